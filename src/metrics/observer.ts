/** Feeds the engine's families from what the engine and the text layer report; holds plain numbers only. */
import { FINISHED_REASONS } from './definitions.ts';
import type { MetricsRegistry, Write } from './registry.ts';

/** The engine's numbers of one step. */
export interface StepNumbers {
  readonly numRunning: number;
  readonly numWaiting: number;
  readonly kvUsage: number;
  readonly prefixQueries: number;
  readonly prefixHits: number;
  readonly preemptions: number;
  readonly promptTokens: number;
  readonly generatedTokens: number;
  readonly tokenBudget: number;
  readonly stepMs: number;
}

/** New output of one choice. */
export interface OutputNumbers {
  readonly index: number;
  readonly tokenIds: { readonly length: number };
  readonly promptTokenIds: { readonly length: number };
  readonly finishReason: string | null;
  readonly cachedTokens: number;
  /** Clock milliseconds; 0 = not yet. */
  readonly timing: {
    readonly scheduledMs: number;
    readonly firstTokenMs: number;
    readonly lastTokenMs: number;
    readonly preemptions: number;
  };
}

export interface RequestNumbers {
  readonly arrivalMs: number;
  readonly n: number;
  /** null = the rest of the context. */
  readonly maxTokens: number | null;
}

interface Choice {
  generated: number;
  lastTokenMs: number;
  sawFirst: boolean;
  finished: boolean;
}

function cacheLabels(config: CacheConfigNumbers): Record<string, string> {
  return {
    block_size: String(config.blockSize),
    cache_dtype: config.kvDType,
    enable_prefix_caching: config.enablePrefixCaching ? 'True' : 'False',
    gpu_memory_utilization: config.memoryUtilization === null ? 'None' : String(config.memoryUtilization),
    num_gpu_blocks: String(config.numBlocks),
  };
}

export interface CacheConfigNumbers {
  readonly blockSize: number;
  readonly numBlocks: number;
  readonly kvDType: string;
  readonly enablePrefixCaching: boolean;
  readonly memoryUtilization: number | null;
}

export class EngineMetrics {
  readonly maxModelLen: number;
  private readonly registry: MetricsRegistry;
  private readonly write: ReturnType<typeof bind>;
  private readonly finishedBy = new Map<string, Write>();
  private queries = 0;
  private hits = 0;

  constructor(registry: MetricsRegistry, maxModelLen: number, cache: CacheConfigNumbers) {
    this.registry = registry;
    this.maxModelLen = maxModelLen;
    this.write = bind(registry);
    for (const reason of FINISHED_REASONS) {
      this.finishedBy.set(reason, registry.counter('vllm:request_success_total', { finished_reason: reason }));
    }
    registry.gauge('vllm:cache_config_info', cacheLabels(cache))(1);
  }

  onStep(step: StepNumbers): void {
    const w = this.write;
    w.running(step.numRunning);
    w.waiting(step.numWaiting);
    w.waitingCapacity(step.numWaiting);
    w.kvUsage(step.kvUsage);
    w.gpuCacheUsage(step.kvUsage);
    w.prefixQueries(step.prefixQueries);
    w.prefixHits(step.prefixHits);
    w.gpuPrefixQueries(step.prefixQueries);
    w.gpuPrefixHits(step.prefixHits);
    this.queries += step.prefixQueries;
    this.hits += step.prefixHits;
    w.gpuPrefixHitRate(this.queries === 0 ? 0 : this.hits / this.queries);
    w.preemptions(step.preemptions);
    w.generationTokens(step.generatedTokens);
    const tokens = step.promptTokens + step.generatedTokens;
    if (tokens > 0) w.iterationTokens(tokens);
    w.tokens(step.generatedTokens);
    w.tokenBudget(step.tokenBudget);
    if (step.stepMs > 0) w.stepSeconds(step.stepMs / 1000);
  }

  /** Starts counting one request (a prompt with its n choices). */
  onRequest(request: RequestNumbers): RequestMetrics {
    return new RequestMetrics(request, this.write, this);
  }

  onRejected(reason: 'max_num_queued_reqs' | 'max_num_queued_tokens'): void {
    this.registry.counter('vllm:admission_rejections_total', { reason })(1);
  }

  onFinished(reason: string): void {
    this.finishedBy.get(reason)?.(1);
  }
}

function bind(r: MetricsRegistry) {
  return {
    running: r.gauge('vllm:num_requests_running'),
    waiting: r.gauge('vllm:num_requests_waiting'),
    waitingCapacity: r.gauge('vllm:num_requests_waiting_by_reason', { reason: 'capacity' }),
    kvUsage: r.gauge('vllm:kv_cache_usage_perc'),
    gpuCacheUsage: r.gauge('vllm:gpu_cache_usage_perc'),
    prefixQueries: r.counter('vllm:prefix_cache_queries_total'),
    prefixHits: r.counter('vllm:prefix_cache_hits_total'),
    gpuPrefixQueries: r.counter('vllm:gpu_prefix_cache_queries_total'),
    gpuPrefixHits: r.counter('vllm:gpu_prefix_cache_hits_total'),
    gpuPrefixHitRate: r.gauge('vllm:gpu_prefix_cache_hit_rate'),
    preemptions: r.counter('vllm:num_preemptions_total'),
    promptTokens: r.counter('vllm:prompt_tokens_total'),
    promptComputed: r.counter('vllm:prompt_tokens_by_source_total', { source: 'local_compute' }),
    promptHit: r.counter('vllm:prompt_tokens_by_source_total', { source: 'local_cache_hit' }),
    promptCached: r.counter('vllm:prompt_tokens_cached_total'),
    promptCachedDevice: r.counter('vllm:prompt_tokens_cached_by_source_total', { source: 'device' }),
    generationTokens: r.counter('vllm:generation_tokens_total'),
    tokens: r.counter('vllm:tokens_total'),
    iterationTokens: r.observer('vllm:iteration_tokens_total'),
    tokenBudget: r.gauge('tokenmill:step_token_budget'),
    stepSeconds: r.observer('tokenmill:engine_step_seconds'),
    ttft: r.observer('vllm:time_to_first_token_seconds'),
    itl: r.observer('vllm:inter_token_latency_seconds'),
    itlOld: r.observer('vllm:time_per_output_token_seconds'),
    tpot: r.observer('vllm:request_time_per_output_token_seconds'),
    e2e: r.observer('vllm:e2e_request_latency_seconds'),
    queue: r.observer('vllm:request_queue_time_seconds'),
    queueOld: r.observer('vllm:time_in_queue_requests'),
    prefill: r.observer('vllm:request_prefill_time_seconds'),
    decode: r.observer('vllm:request_decode_time_seconds'),
    inference: r.observer('vllm:request_inference_time_seconds'),
    reqPrompt: r.observer('vllm:request_prompt_tokens'),
    reqGeneration: r.observer('vllm:request_generation_tokens'),
    reqMaxGeneration: r.observer('vllm:request_max_num_generation_tokens'),
    reqMaxTokens: r.observer('vllm:request_params_max_tokens'),
    reqN: r.observer('vllm:request_params_n'),
    reqPreemptions: r.observer('vllm:request_num_preemptions'),
    reqComputed: r.observer('vllm:request_prefill_kv_computed_tokens'),
  };
}

const seconds = (fromMs: number, toMs: number): number => Math.max(0, toMs - fromMs) / 1000;

/** One prompt with its n choices, from admission to its end. Like vLLM, most families count choices, not requests. */
export class RequestMetrics {
  private readonly request: RequestNumbers;
  private readonly write: ReturnType<typeof bind>;
  private readonly engine: EngineMetrics;
  private readonly choices: Choice[];
  private ended = false;

  constructor(request: RequestNumbers, write: ReturnType<typeof bind>, engine: EngineMetrics) {
    this.request = request;
    this.write = write;
    this.engine = engine;
    this.choices = Array.from({ length: request.n }, () => ({
      generated: 0,
      lastTokenMs: 0,
      sawFirst: false,
      finished: false,
    }));
  }

  onOutput(output: OutputNumbers, nowMs: number): void {
    const choice = this.choices[output.index];
    if (!choice || choice.finished) return;
    const w = this.write;
    choice.generated += output.tokenIds.length;
    if (!choice.sawFirst && output.tokenIds.length > 0) {
      choice.sawFirst = true;
      const computed = output.promptTokenIds.length - output.cachedTokens;
      w.ttft(seconds(this.request.arrivalMs, nowMs));
      w.promptTokens(output.promptTokenIds.length);
      w.tokens(output.promptTokenIds.length);
      w.promptComputed(computed);
      w.promptHit(output.cachedTokens);
      w.promptCached(output.cachedTokens);
      w.promptCachedDevice(output.cachedTokens);
    } else if (output.tokenIds.length > 0 && choice.lastTokenMs > 0) {
      const gap = seconds(choice.lastTokenMs, output.timing.lastTokenMs);
      w.itl(gap);
      w.itlOld(gap);
    }
    if (output.tokenIds.length > 0) choice.lastTokenMs = output.timing.lastTokenMs;
    if (output.finishReason !== null) this.finish(choice, output, output.finishReason, nowMs);
  }

  /** Ends the request; choices without a finish reason count as `reason`. */
  onEnd(reason: 'abort' | 'error'): void {
    if (this.ended) return;
    this.ended = true;
    for (const choice of this.choices) {
      if (!choice.finished) this.engine.onFinished(reason);
      choice.finished = true;
    }
    this.write.reqN(this.request.n);
    this.write.reqMaxGeneration(Math.max(...this.choices.map((choice) => choice.generated)));
  }

  private finish(choice: Choice, output: OutputNumbers, reason: string, nowMs: number): void {
    choice.finished = true;
    const w = this.write;
    const { scheduledMs, firstTokenMs, lastTokenMs, preemptions } = output.timing;
    const promptTokens = output.promptTokenIds.length;
    this.engine.onFinished(reason);
    w.e2e(seconds(this.request.arrivalMs, nowMs));
    w.reqPrompt(promptTokens);
    w.reqGeneration(choice.generated);
    w.reqMaxTokens(this.request.maxTokens ?? this.engine.maxModelLen - promptTokens);
    w.reqPreemptions(preemptions);
    w.reqComputed(promptTokens - output.cachedTokens);
    if (scheduledMs > 0) {
      w.queue(seconds(this.request.arrivalMs, scheduledMs));
      w.queueOld(seconds(this.request.arrivalMs, scheduledMs));
    }
    if (firstTokenMs > 0) {
      w.prefill(seconds(scheduledMs, firstTokenMs));
      w.decode(seconds(firstTokenMs, lastTokenMs));
      w.inference(seconds(scheduledMs, lastTokenMs));
      // vLLM observes 0 for one-token outputs: kept, so that the counts of all request families agree.
      w.tpot(choice.generated > 1 ? seconds(firstTokenMs, lastTokenMs) / (choice.generated - 1) : 0);
    }
  }
}
