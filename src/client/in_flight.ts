/** What every EngineClient keeps on its side of the border: who waits for outputs, cache resets and statistics. */
import { serializeError, TokenmillError } from '../base/errors.ts';
import type { EngineRequest, EngineStats, FinishReason, RequestOutput, StepOutputs } from '../engine/types.ts';

type OnOutput = (output: RequestOutput) => void;

const NO_TIMING = { scheduledMs: 0, firstTokenMs: 0, lastTokenMs: 0, preemptions: 0 } as const;

export class InFlight {
  private readonly requests = new Map<string, OnOutput>();
  private readonly resets = new Map<number, (ok: boolean) => void>();
  private readonly listeners = new Set<(stats: EngineStats) => void>();
  private nextReset = 0;

  /** Requests and resets that still wait for the engine. */
  get size(): number {
    return this.requests.size + this.resets.size;
  }

  /** Throws `invalid_request` when an id is in flight already. */
  add(requests: readonly EngineRequest[], onOutput: OnOutput): void {
    for (const { id } of requests) {
      if (this.requests.has(id))
        throw new TokenmillError('invalid_request', `A request with id ${id} is in flight.`, { param: 'request_id' });
    }
    for (const { id } of requests) this.requests.set(id, onOutput);
  }

  known(ids: readonly string[]): string[] {
    return ids.filter((id) => this.requests.has(id));
  }

  addReset(done: (ok: boolean) => void): number {
    this.resets.set(this.nextReset, done);
    return this.nextReset++;
  }

  onStats(listener: (stats: EngineStats) => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  publish(step: StepOutputs): void {
    for (const output of step.outputs) {
      const onOutput = this.requests.get(output.id);
      if (output.finishReason !== null) this.requests.delete(output.id);
      onOutput?.(output);
    }
    for (const { token, ok } of step.prefixCacheResets) {
      this.resets.get(token)?.(ok);
      this.resets.delete(token);
    }
    for (const listener of this.listeners) listener(step.stats);
  }

  /** The engine will answer nobody any more: `error` for a dead one, null for a closed one. */
  endAll(error: TokenmillError | null): void {
    const finishReason: FinishReason = error === null ? 'abort' : 'error';
    const waiting = [...this.requests];
    this.requests.clear();
    for (const [id, onOutput] of waiting) {
      onOutput({
        id,
        newTokenIds: [],
        logprobs: null,
        promptLogprobs: null,
        finishReason,
        stopTokenId: null,
        cachedTokens: 0,
        error: error === null ? null : serializeError(error),
        timing: NO_TIMING,
      });
    }
    for (const done of this.resets.values()) done(false);
    this.resets.clear();
  }
}
