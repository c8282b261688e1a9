/**
 * THE table of metrics: registry, docs, dashboards and autoscaling queries take names, labels and buckets from here.
 * Names, types, labels and buckets of `vllm:*` and `http_*` are vLLM's, so that its dashboards keep working.
 */
import type { BucketFamily } from './buckets.ts';

export type MetricType = 'gauge' | 'counter' | 'histogram' | 'summary';
export type MetricUnit = 'requests' | 'tokens' | 'seconds' | 'bytes' | 'ratio' | 'info' | 'count';

export interface MetricDefinition {
  readonly type: MetricType;
  readonly unit: MetricUnit;
  readonly help: string;
  /** Label name -> its closed set of values; `null` = open (named by the deployment or the route). */
  readonly labels: Readonly<Record<string, readonly string[] | null>>;
  readonly buckets?: BucketFamily;
  /** Exported only with `--legacy-metrics`; the value names what replaced it. */
  readonly legacy?: string;
}

const ENGINE = { model_name: null, engine: null } as const;

export const FINISHED_REASONS = ['stop', 'length', 'abort', 'error', 'repetition'] as const;

export const METRICS = {
  'vllm:num_requests_running': {
    type: 'gauge',
    unit: 'requests',
    labels: ENGINE,
    help: 'Requests in execution batches.',
  },
  'vllm:num_requests_waiting': {
    type: 'gauge',
    unit: 'requests',
    labels: ENGINE,
    help: 'Requests waiting to be processed.',
  },
  'vllm:num_requests_waiting_by_reason': {
    type: 'gauge',
    unit: 'requests',
    labels: { ...ENGINE, reason: ['capacity', 'deferred'] },
    help: 'Waiting requests by reason: capacity = waiting for room in a batch or the KV cache; deferred = blocked by something else.',
  },
  'vllm:kv_cache_usage_perc': {
    type: 'gauge',
    unit: 'ratio',
    labels: ENGINE,
    help: 'Share of KV cache blocks in use, 0 to 1.',
  },
  'vllm:cache_config_info': {
    type: 'gauge',
    unit: 'info',
    labels: {
      engine: null,
      block_size: null,
      cache_dtype: null,
      enable_prefix_caching: null,
      gpu_memory_utilization: null,
      num_gpu_blocks: null,
    },
    help: 'Configuration of the KV cache in labels; the value is 1.',
  },
  'vllm:prompt_tokens_total': {
    type: 'counter',
    unit: 'tokens',
    labels: ENGINE,
    help: 'Prompt tokens of requests whose prefill is complete, cached ones included.',
  },
  'vllm:prompt_tokens_by_source_total': {
    type: 'counter',
    unit: 'tokens',
    labels: { ...ENGINE, source: ['local_compute', 'local_cache_hit', 'external_kv_transfer'] },
    help: 'Prompt tokens by where their KV entries came from.',
  },
  'vllm:prompt_tokens_cached_total': {
    type: 'counter',
    unit: 'tokens',
    labels: ENGINE,
    help: 'Prompt tokens found in the prefix cache.',
  },
  'vllm:prompt_tokens_cached_by_source_total': {
    type: 'counter',
    unit: 'tokens',
    labels: { ...ENGINE, source: ['device', 'host', 'disk', 'p2p', 'external_unspecified'] },
    help: 'Prompt tokens found in the prefix cache, by tier.',
  },
  'vllm:generation_tokens_total': { type: 'counter', unit: 'tokens', labels: ENGINE, help: 'Tokens generated.' },
  'vllm:request_success_total': {
    type: 'counter',
    unit: 'requests',
    labels: { ...ENGINE, finished_reason: FINISHED_REASONS },
    help: 'Finished requests by reason (aborted and failed ones are counted here too).',
  },
  'vllm:num_preemptions_total': {
    type: 'counter',
    unit: 'count',
    labels: ENGINE,
    help: 'Preemptions by the scheduler.',
  },
  'vllm:prefix_cache_queries_total': {
    type: 'counter',
    unit: 'tokens',
    labels: ENGINE,
    help: 'Tokens looked up in the prefix cache.',
  },
  'vllm:prefix_cache_hits_total': {
    type: 'counter',
    unit: 'tokens',
    labels: ENGINE,
    help: 'Tokens found in the prefix cache.',
  },
  'vllm:admission_rejections_total': {
    type: 'counter',
    unit: 'requests',
    labels: { model_name: null, reason: ['max_num_queued_reqs', 'max_num_queued_tokens'] },
    help: 'Requests refused at a queue limit.',
  },
  'vllm:time_to_first_token_seconds': {
    type: 'histogram',
    unit: 'seconds',
    labels: ENGINE,
    buckets: 'time_to_first_token',
    help: 'Arrival to first token sent, tokenizing and queueing included.',
  },
  'vllm:inter_token_latency_seconds': {
    type: 'histogram',
    unit: 'seconds',
    labels: ENGINE,
    buckets: 'inter_token_latency',
    help: 'Gap between consecutive engine outputs of a request.',
  },
  'vllm:request_time_per_output_token_seconds': {
    type: 'histogram',
    unit: 'seconds',
    labels: ENGINE,
    buckets: 'inter_token_latency',
    help: 'Decode time over output tokens after the first, at finish.',
  },
  'vllm:e2e_request_latency_seconds': {
    type: 'histogram',
    unit: 'seconds',
    labels: ENGINE,
    buckets: 'request_latency',
    help: 'Arrival to finish.',
  },
  'vllm:request_queue_time_seconds': {
    type: 'histogram',
    unit: 'seconds',
    labels: ENGINE,
    buckets: 'request_latency',
    help: 'Arrival to first scheduling.',
  },
  'vllm:request_prefill_time_seconds': {
    type: 'histogram',
    unit: 'seconds',
    labels: ENGINE,
    buckets: 'request_latency',
    help: 'First scheduling to first token.',
  },
  'vllm:request_decode_time_seconds': {
    type: 'histogram',
    unit: 'seconds',
    labels: ENGINE,
    buckets: 'request_latency',
    help: 'First token to last token.',
  },
  'vllm:request_inference_time_seconds': {
    type: 'histogram',
    unit: 'seconds',
    labels: ENGINE,
    buckets: 'request_latency',
    help: 'First scheduling to last token.',
  },
  'vllm:request_prompt_tokens': {
    type: 'histogram',
    unit: 'tokens',
    labels: ENGINE,
    buckets: 'request_tokens',
    help: 'Prompt tokens of a finished request.',
  },
  'vllm:request_generation_tokens': {
    type: 'histogram',
    unit: 'tokens',
    labels: ENGINE,
    buckets: 'request_tokens',
    help: 'Generated tokens of a finished request.',
  },
  'vllm:request_max_num_generation_tokens': {
    type: 'histogram',
    unit: 'tokens',
    labels: ENGINE,
    buckets: 'request_tokens',
    help: 'Longest output among the n choices of a request.',
  },
  'vllm:request_params_max_tokens': {
    type: 'histogram',
    unit: 'tokens',
    labels: ENGINE,
    buckets: 'request_tokens',
    help: 'Limit of generated tokens that was in force.',
  },
  'vllm:request_params_n': {
    type: 'histogram',
    unit: 'count',
    labels: ENGINE,
    buckets: 'request_params_n',
    help: 'Requested n.',
  },
  'vllm:request_num_preemptions': {
    type: 'histogram',
    unit: 'count',
    labels: ENGINE,
    buckets: 'request_num_preemptions',
    help: 'Preemptions of a finished request.',
  },
  'vllm:request_prefill_kv_computed_tokens': {
    type: 'histogram',
    unit: 'tokens',
    labels: ENGINE,
    buckets: 'request_tokens',
    help: 'Prompt tokens computed, cached ones left out.',
  },
  'vllm:iteration_tokens_total': {
    type: 'histogram',
    unit: 'tokens',
    labels: ENGINE,
    buckets: 'iteration_tokens',
    help: 'Tokens of one engine step, computed and generated (a histogram despite its name).',
  },

  'tokenmill:engine_heartbeat_age_seconds': {
    type: 'gauge',
    unit: 'seconds',
    labels: ENGINE,
    help: "Time since the engine loop's last sign of life.",
  },
  'tokenmill:engine_healthy': {
    type: 'gauge',
    unit: 'info',
    labels: ENGINE,
    help: '1 while the engine answers /health with 200, else 0.',
  },
  'tokenmill:engine_step_seconds': {
    type: 'histogram',
    unit: 'seconds',
    labels: ENGINE,
    buckets: 'engine_step',
    help: 'Duration of engine steps that ran the model.',
  },
  'tokenmill:step_token_budget': {
    type: 'gauge',
    unit: 'tokens',
    labels: ENGINE,
    help: 'Most tokens the last step might compute: --max-num-batched-tokens, or what --target-itl-ms leaves of it.',
  },
  'tokenmill:http_requests_in_flight': {
    type: 'gauge',
    unit: 'requests',
    labels: {},
    help: 'Generation requests between arrival and the end of their answer.',
  },
  'tokenmill:slow_readers_aborted_total': {
    type: 'counter',
    unit: 'requests',
    labels: {},
    help: 'Streams ended because the client did not read.',
  },

  http_requests_total: {
    type: 'counter',
    unit: 'requests',
    labels: { method: null, status: null, handler: null },
    help: 'Total number of requests by method, status and handler.',
  },
  http_request_size_bytes: {
    type: 'summary',
    unit: 'bytes',
    labels: { handler: null },
    help: 'Content length of incoming requests by handler.',
  },
  http_response_size_bytes: {
    type: 'summary',
    unit: 'bytes',
    labels: { handler: null },
    help: 'Content length of outgoing responses by handler.',
  },
  http_request_duration_seconds: {
    type: 'histogram',
    unit: 'seconds',
    labels: { handler: null, method: null },
    buckets: 'http_duration',
    help: 'Latency by handler, few buckets.',
  },
  http_request_duration_highr_seconds: {
    type: 'histogram',
    unit: 'seconds',
    labels: {},
    buckets: 'http_duration_highr',
    help: 'Latency over all handlers, many buckets.',
  },

  'vllm:gpu_cache_usage_perc': {
    type: 'gauge',
    unit: 'ratio',
    labels: ENGINE,
    legacy: 'vllm:kv_cache_usage_perc',
    help: 'Old name of vllm:kv_cache_usage_perc.',
  },
  'vllm:gpu_prefix_cache_queries_total': {
    type: 'counter',
    unit: 'tokens',
    labels: ENGINE,
    legacy: 'vllm:prefix_cache_queries_total',
    help: 'Old name of vllm:prefix_cache_queries_total.',
  },
  'vllm:gpu_prefix_cache_hits_total': {
    type: 'counter',
    unit: 'tokens',
    labels: ENGINE,
    legacy: 'vllm:prefix_cache_hits_total',
    help: 'Old name of vllm:prefix_cache_hits_total.',
  },
  'vllm:gpu_prefix_cache_hit_rate': {
    type: 'gauge',
    unit: 'ratio',
    labels: ENGINE,
    legacy: 'vllm:prefix_cache_hits_total / vllm:prefix_cache_queries_total',
    help: 'Share of looked-up tokens found in the prefix cache since start.',
  },
  'vllm:time_per_output_token_seconds': {
    type: 'histogram',
    unit: 'seconds',
    labels: ENGINE,
    buckets: 'inter_token_latency',
    legacy: 'vllm:inter_token_latency_seconds',
    help: 'Old name of vllm:inter_token_latency_seconds.',
  },
  'vllm:time_in_queue_requests': {
    type: 'histogram',
    unit: 'seconds',
    labels: ENGINE,
    buckets: 'request_latency',
    legacy: 'vllm:request_queue_time_seconds',
    help: 'Old name of vllm:request_queue_time_seconds.',
  },
  'vllm:tokens_total': {
    type: 'counter',
    unit: 'tokens',
    labels: ENGINE,
    legacy: 'vllm:prompt_tokens_total + vllm:generation_tokens_total',
    help: 'Prompt and generated tokens.',
  },
} as const satisfies Record<string, MetricDefinition>;

export type MetricName = keyof typeof METRICS;

export function metricNames(options: { readonly legacy: boolean }): MetricName[] {
  return (Object.keys(METRICS) as MetricName[]).filter((name) => options.legacy || !('legacy' in METRICS[name]));
}
