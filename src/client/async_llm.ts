/**
 * Text in, text out over an EngineClient: tokenizing, n, detokenizing, stop strings, logprobs as text. The server, the LLM
 * class and the CLI all stand on this one interface. Named after vLLM's AsyncLLM.
 */
import type { EnginePlan } from '../config/plan.ts';
import type { EngineStats, FinishReason, RequestTiming } from '../engine/types.ts';
import type { ChatMessage, ChatTemplateOptions, Tokenizer } from '../tokenizer/tokenizer.ts';
import type { EngineHealth } from './engine_client.ts';
import type { SamplingParams } from './sampling_params.ts';

export interface GenerationRequest {
  /** Unique; the server puts `cmpl-...`/`chatcmpl-...` in front of it. */
  readonly id: string;
  readonly prompt: string | Int32Array;
  /** For string prompts. Default true (chat-rendered prompts: false). */
  readonly addSpecialTokens?: boolean;
  readonly params: SamplingParams;
  readonly priority?: number;
  readonly cacheSalt?: string | null;
  readonly skipPrefixCache?: boolean;
  /** Abort: frees blocks and ends the iteration with finishReason 'abort'. */
  readonly signal?: AbortSignal;
}

export interface LogprobEntry {
  readonly tokenId: number;
  /** Decoded text of the token (may hold U+FFFD; see bytes). */
  readonly token: string;
  readonly bytes: Uint8Array;
  readonly logprob: number;
  readonly rank: number;
}

export interface TokenLogprob extends LogprobEntry {
  readonly top: readonly LogprobEntry[];
}

/** New text and tokens of one choice. */
export interface GenerationDelta {
  /** Choice, 0..n-1. */
  readonly index: number;
  /** New text; what may still become a stop string is held back. */
  readonly text: string;
  readonly tokenIds: readonly number[];
  readonly logprobs: readonly TokenLogprob[] | null;
  readonly finishReason: FinishReason | null;
  /** The stop string or stop token id that ended it; null for eos and length. */
  readonly stopReason: string | number | null;
  readonly promptTokenIds: Int32Array;
  /** On the first delta of choice 0 when asked for; the first entry is null. */
  readonly promptLogprobs: readonly (TokenLogprob | null)[] | null;
  readonly cachedTokens: number;
  readonly timing: RequestTiming;
}

export interface AsyncLLM {
  readonly plan: EnginePlan;
  readonly tokenizer: Tokenizer;
  /** Unix seconds at load, for `created`. */
  readonly createdS: number;
  /** Sampling defaults from generation_config.json (or neutral), to merge under a request's fields. */
  readonly defaultSampling: Partial<SamplingParams>;
  /**
   * Validates (throws `invalid_request`, `context_length_exceeded`), queues and streams. Deltas of the n choices
   * interleave; the iteration ends when all have finished. Throws `queue_full` or `overloaded` at admission.
   */
  generate(request: GenerationRequest): AsyncIterable<GenerationDelta>;
  /** Chat template + encode. Throws `template_error`. */
  renderChat(messages: readonly ChatMessage[], options: ChatTemplateOptions): string;
  readonly hasChatTemplate: boolean;
  /** Requests in flight (waiting and running). */
  readonly inFlight: number;
  health(): EngineHealth;
  /** Called after every step with the engine's plain numbers, for /metrics. Returns the unsubscribe function. */
  onStats(listener: (stats: EngineStats) => void): () => void;
  /** Generates one real token; the deep probe. */
  probe(signal?: AbortSignal): Promise<void>;
  resetPrefixCache(): Promise<boolean>;
  close(): Promise<void>;
}
