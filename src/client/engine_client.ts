/** The engine as its users see it: the same interface in-process (tests, library) and over the engine thread (server). */
import type { TokenmillError } from '../base/errors.ts';
import type { EngineRequest, EngineStats, RequestOutput } from '../engine/types.ts';

export interface EngineHealth {
  /** False once the engine thread ended or a step has been running longer than the stuck limit. */
  readonly healthy: boolean;
  /** Why not; null when healthy. */
  readonly reason: string | null;
  /** Clock ms of the engine loop's last sign of life. */
  readonly heartbeatMs: number;
  readonly lastStepMs: number;
}

export interface EngineClient {
  /** Queues requests; `onOutput` is called once per step and request until a finishReason is set. */
  add(requests: readonly EngineRequest[], onOutput: (output: RequestOutput) => void): void;
  /** Unknown ids are ignored; an aborted request gets a last output with finishReason 'abort'. */
  abort(ids: readonly string[]): void;
  /** Called after every step with the engine's plain numbers. Returns the unsubscribe function. */
  onStats(listener: (stats: EngineStats) => void): () => void;
  health(): EngineHealth;
  /** Resolves with the reason when the engine dies (`engine_dead`); stays pending otherwise. The process should end then. */
  readonly died: Promise<TokenmillError>;
  /** True when nothing was in use and the cache was emptied. */
  resetPrefixCache(): Promise<boolean>;
  /** Aborts what runs and frees native memory. */
  close(): Promise<void>;
}
