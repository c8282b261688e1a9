/** What the engine asks of whoever runs the model. The engine owns this interface; src/executor implements it. */
import type { SerializedError } from '../base/errors.ts';
import type { GrowableInt32 } from '../base/growable.ts';
import type { TokenHistory } from './token_history.ts';
import type { EngineSampling, TokenLogprobs } from './types.ts';

/** A sequence as an executor may read it while a step runs; only the engine writes. */
export interface ScheduledSequence {
  readonly sampling: EngineSampling;
  /** Known tokens: prompt, then output. */
  readonly tokens: Readonly<Pick<GrowableInt32, 'data' | 'length'>>;
  readonly promptLength: number;
  /** Tokens whose keys and values are in the cache before this step. */
  readonly tokensComputed: number;
  readonly blocks: Readonly<Pick<GrowableInt32, 'data' | 'length' | 'clears'>>;
  /** Token counts for penalties; null when no penalty is in force. */
  readonly history: TokenHistory | null;
  /** First prompt position whose logit row is still wanted for prompt logprobs; `promptLength` when none is. */
  readonly promptRowsFrom: number;
}

/**
 * The work of one step: sequence i computes its tokens [tokensComputed, tokensComputed + tokenCounts[i]). One that thereby
 * reaches its last known token gets a new one. Arrays are reused by the next step.
 */
export interface SchedulerOutput {
  readonly sequences: readonly ScheduledSequence[];
  readonly tokenCounts: readonly number[];
}

/** Parallel to `SchedulerOutput.sequences`; valid until the next `submit`. */
export interface ExecutorOutput {
  /** The new token; -1 where none was due or the sequence failed. */
  readonly tokenIds: Int32Array;
  /** Of the new token, when asked for. */
  readonly logprobs: readonly (TokenLogprobs | null)[];
  /** Of prompt tokens promptRowsFrom + 1 and on that this step reached, when asked for. */
  readonly promptLogprobs: readonly (readonly TokenLogprobs[] | null)[];
  /** Why this one sequence failed (its logits are not numbers, its masks leave no token). */
  readonly errors: readonly (SerializedError | null)[];
}

/** Runs steps. `submit` may return before the step is done; `collect` waits for it. Every submit is followed by one collect. */
export interface Executor {
  submit(step: SchedulerOutput): void;
  collect(): ExecutorOutput;
  /** Frees weights and KV memory. */
  close(): void;
}
