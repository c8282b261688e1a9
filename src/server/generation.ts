/** Runs the prompts of one HTTP request through the AsyncLLM and gives their deltas as one stream. */
import { TokenmillError } from '../base/errors.ts';
import type { GenerationDelta } from '../client/async_llm.ts';
import type { SamplingParams } from '../client/sampling_params.ts';
import type { RequestMetrics } from '../metrics/observer.ts';
import type { ActiveRequest } from './active.ts';
import type { ServerContext } from './context.ts';
import { randomId } from './request_id.ts';

export interface GenerationJob {
  /** Id of the answer, `cmpl-...`; the engine's ids begin with it. */
  readonly id: string;
  readonly prompts: readonly (string | Int32Array)[];
  readonly addSpecialTokens: boolean;
  readonly params: SamplingParams;
  readonly priority: number;
  readonly cacheSalt: string | null;
}

export interface PromptDelta {
  /** Which of the job's prompts. */
  readonly prompt: number;
  readonly delta: GenerationDelta;
}

/** Which limit refused a request; null when it was something else. */
function rejectionReason(error: unknown): 'max_num_queued_reqs' | 'max_num_queued_tokens' | null {
  if (!(error instanceof TokenmillError)) return null;
  if (/queued_?tokens/i.test(error.param ?? '')) return 'max_num_queued_tokens';
  return error.code === 'queue_full' ? 'max_num_queued_reqs' : null;
}

function logJob({ log, config }: ServerContext, { id, prompts, params }: GenerationJob): void {
  const clip = (prompt: string | Int32Array): unknown =>
    typeof prompt === 'string' ? prompt.slice(0, config.maxLogLen) : [...prompt.subarray(0, config.maxLogLen)];
  log.info(
    { id, prompts: prompts.slice(0, 16).map(clip), params: { ...params, seed: params.seed?.toString() } },
    'generation',
  );
}

/**
 * Deltas of all prompts in order of arrival. One failure ends all prompts. Throws what the AsyncLLM throws, or the
 * reason of the request's signal once it is aborted.
 */
export async function* runGeneration(
  context: ServerContext,
  job: GenerationJob,
  request: ActiveRequest,
): AsyncGenerator<PromptDelta> {
  const { llm, clock } = context;
  const stop = new AbortController();
  const signal = AbortSignal.any([request.signal, stop.signal]);
  if (context.config.enableLogRequests) logJob(context, job);
  const suffix = randomId();
  const numbers = { arrivalMs: request.arrivalMs, n: job.params.n ?? 1, maxTokens: job.params.maxTokens ?? null };
  const queue: PromptDelta[] = [];
  let running = job.prompts.length;
  let failure: unknown = null;
  let wake: (() => void) | null = null;
  const ring = (): void => {
    wake?.();
    wake = null;
  };

  const pump = async (prompt: string | Int32Array, index: number): Promise<void> => {
    let metrics: RequestMetrics | null = null;
    try {
      const deltas = llm.generate({
        id: `${job.id}-${suffix}-${index}`,
        prompt,
        addSpecialTokens: job.addSpecialTokens,
        params: job.params,
        priority: job.priority,
        cacheSalt: job.cacheSalt,
        signal,
      });
      for await (const delta of deltas) {
        metrics ??= context.metrics.onRequest(numbers);
        metrics.onOutput(delta, clock.now());
        queue.push({ prompt: index, delta });
        ring();
      }
    } catch (error) {
      const rejected = rejectionReason(error);
      if (rejected) context.metrics.onRejected(rejected);
      failure ??= error;
      stop.abort();
    } finally {
      // Aborted while queued: it never gave a delta, yet it was a request that ended.
      if (!metrics && request.signal.aborted) metrics = context.metrics.onRequest(numbers);
      metrics?.onEnd(signal.aborted ? 'abort' : 'error');
      running--;
      ring();
    }
  };

  request.signal.addEventListener('abort', ring);
  for (const [index, prompt] of job.prompts.entries()) void pump(prompt, index);
  try {
    for (;;) {
      if (request.signal.aborted) throw request.signal.reason;
      if (failure !== null) throw failure;
      const next = queue.shift();
      if (next) yield next;
      else if (running === 0) return;
      else await new Promise<void>((resolve) => (wake = resolve));
    }
  } finally {
    stop.abort();
  }
}
