/** What crosses the engine's border: requests in, step outputs out. Text goes no deeper than the client. */
import type { SerializedError } from '../base/errors.ts';

/** Sampling parameters after validation; units and meaning as in vLLM's SamplingParams. */
export interface EngineSampling {
  readonly temperature: number;
  /** 0 = off */
  readonly topK: number;
  readonly topP: number;
  readonly minP: number;
  readonly presencePenalty: number;
  readonly frequencyPenalty: number;
  readonly repetitionPenalty: number;
  /** Always set: the client draws one when the user gave none. */
  readonly seed: bigint;
  /** Most tokens to generate. */
  readonly maxTokens: number;
  readonly minTokens: number;
  /** eos ids and stop_token_ids; `eosTokenIds` is empty with ignore_eos. */
  readonly eosTokenIds: readonly number[];
  readonly stopTokenIds: readonly number[];
  /** All ids masked until minTokens (eos ids also under ignore_eos do not matter). */
  readonly logitBias: ReadonlyMap<number, number> | null;
  readonly allowedTokenIds: readonly number[] | null;
  /** Token sequences whose last token is forbidden when the earlier ones were just written. */
  readonly badWords: readonly (readonly number[])[];
  /** Number of top logprobs per output token; null = none; -1 = whole vocabulary. */
  readonly logprobs: number | null;
  readonly promptLogprobs: number | null;
  readonly logprobsMode: 'raw_logprobs' | 'processed_logprobs' | 'raw_logits' | 'processed_logits';
}

/** The likeliest token each time, and nothing that changes or ends it before `maxTokens`. */
export const GREEDY_SAMPLING: Omit<EngineSampling, 'maxTokens'> = {
  temperature: 0,
  topK: 0,
  topP: 1,
  minP: 0,
  presencePenalty: 0,
  frequencyPenalty: 0,
  repetitionPenalty: 1,
  seed: 0n,
  minTokens: 0,
  eosTokenIds: [],
  stopTokenIds: [],
  logitBias: null,
  allowedTokenIds: null,
  badWords: [],
  logprobs: null,
  promptLogprobs: null,
  logprobsMode: 'raw_logprobs',
};

/** One sequence's worth of work (n > 1 is n of these). */
export interface EngineRequest {
  readonly id: string;
  readonly promptTokenIds: Int32Array;
  readonly sampling: EngineSampling;
  /** Smaller = earlier; only under the priority policy. */
  readonly priority: number;
  /** Salts the first block's hash so that prefix caches are not shared across salts. */
  readonly cacheSalt: string | null;
  /** Arrival in Clock milliseconds, set by the client. */
  readonly arrivalMs: number;
  /** Wanted by bench and verify: forbid reading the prefix cache. */
  readonly skipPrefixCache: boolean;
}

export type FinishReason = 'stop' | 'length' | 'abort' | 'error';

export interface TokenLogprobs {
  /** The chosen token first, then the top ones by rank (may repeat the chosen one). */
  readonly tokenIds: readonly number[];
  readonly logprobs: readonly number[];
  /** 1-based vocabulary rank of each. */
  readonly ranks: readonly number[];
}

/** What one step did for one request. */
export interface RequestOutput {
  readonly id: string;
  readonly newTokenIds: readonly number[];
  /** Parallel to newTokenIds when asked for. */
  readonly logprobs: readonly TokenLogprobs[] | null;
  /** Sent once, when the prefill is complete: one per prompt token, the first null. */
  readonly promptLogprobs: readonly (TokenLogprobs | null)[] | null;
  readonly finishReason: FinishReason | null;
  /** Stop token id that ended it; null for eos. */
  readonly stopTokenId: number | null;
  /** Prompt tokens found in the prefix cache; valid from the first output on. */
  readonly cachedTokens: number;
  readonly error: SerializedError | null;
  /** Clock times of the request's life so far, ms; 0 = not yet. */
  readonly timing: RequestTiming;
}

export interface RequestTiming {
  readonly scheduledMs: number;
  readonly firstTokenMs: number;
  readonly lastTokenMs: number;
  readonly preemptions: number;
}

/**
 * Small record of engine state, sent with every step. Plain numbers: the registry lives on the main thread.
 * The first three are gauges after the step, the token budget one of it; all others count this step alone, so a counter adds them up.
 */
export interface EngineStats {
  readonly numRunning: number;
  readonly numWaiting: number;
  /** Share of KV blocks that some sequence holds, 0..1. */
  readonly kvUsage: number;
  /** Tokens of newly admitted sequences looked up in, and found in, the prefix cache. */
  readonly prefixQueries: number;
  readonly prefixHits: number;
  readonly preemptions: number;
  /** Prompt tokens computed (cached ones excluded) and tokens generated in this step. */
  readonly promptTokens: number;
  readonly generatedTokens: number;
  /** Most tokens the step might have computed. */
  readonly tokenBudget: number;
  /** 0 when the step only published and ran no model. */
  readonly stepMs: number;
}

/** Answer to one `reset_prefix_cache` command. */
export interface PrefixCacheReset {
  readonly token: number;
  /** False when blocks were in use; nothing was emptied then. */
  readonly ok: boolean;
}

export interface StepOutputs {
  readonly outputs: readonly RequestOutput[];
  /** Answers to the `reset_prefix_cache` commands applied since the last step. */
  readonly prefixCacheResets: readonly PrefixCacheReset[];
  readonly stats: EngineStats;
}

/** Main -> engine. */
export type EngineCommand =
  | { readonly kind: 'add'; readonly requests: readonly EngineRequest[] }
  | { readonly kind: 'abort'; readonly ids: readonly string[] }
  | { readonly kind: 'reset_prefix_cache'; readonly token: number }
  | { readonly kind: 'shutdown' };
