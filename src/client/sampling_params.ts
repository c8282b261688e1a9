/** Sampling parameters of one request; names, ranges and defaults as vLLM's SamplingParams, in camelCase. */
export interface SamplingParams {
  /** Answers per prompt. 1..16384; default 1. Must be 1 when greedy. */
  n?: number;
  /** 0 = greedy; at most 2. Default 1. */
  temperature?: number;
  /** Nucleus: keep the most likely tokens whose probabilities sum to this. (0, 1]; default 1. */
  topP?: number;
  /** Keep the k most likely tokens. 0 or -1 = all (default). */
  topK?: number;
  /** Drop tokens less likely than this share of the most likely one. [0, 1]; default 0. */
  minP?: number;
  /** Subtracted from the logit of every token the answer already holds. [-2, 2]; default 0. */
  presencePenalty?: number;
  /** Subtracted once per occurrence in the answer. [-2, 2]; default 0. */
  frequencyPenalty?: number;
  /** Divides (or multiplies, when negative) the logit of every token of prompt and answer. > 0; default 1. */
  repetitionPenalty?: number;
  /** int64; the same seed gives the same answer. null or -1: drawn at random. */
  seed?: number | bigint | null;
  /** Default 16 in the library; null = the rest of the context. */
  maxTokens?: number | null;
  /** Before so many tokens nothing stops the answer but maxTokens. Default 0. */
  minTokens?: number;
  /** Strings that end the answer; they are not part of it unless includeStopStrInOutput. */
  stop?: string | readonly string[];
  /** Tokens that end the answer. */
  stopTokenIds?: readonly number[];
  includeStopStrInOutput?: boolean;
  /** Go on after the end-of-sequence token. Default false. */
  ignoreEos?: boolean;
  /** Log-probabilities of so many likeliest tokens per token of the answer, besides the chosen one; -1 = all. */
  logprobs?: number | null;
  /** The same for the prompt's tokens. */
  promptLogprobs?: number | null;
  /** Token id -> added to its logit, clamped to [-100, 100]. */
  logitBias?: Readonly<Record<string, number>> | null;
  /** Only these tokens may be chosen. */
  allowedTokenIds?: readonly number[] | null;
  /** Words that may not be written. */
  badWords?: readonly string[];
  /** Leave special tokens out of the text. Default true. */
  skipSpecialTokens?: boolean;
  /** Turn tokens into text. Default true; false leaves `text` empty and forbids `stop`. */
  detokenize?: boolean;
}

/**
 * Sampling parameters as an object: `new SamplingParams({ temperature: 0, maxTokens: 64 })`. A plain object of the same
 * shape does as well. Values are checked when a request is made.
 */
// biome-ignore lint/suspicious/noUnsafeDeclarationMerging: the class holds exactly the interface's fields, copied by the constructor
export class SamplingParams {
  constructor(params: Partial<SamplingParams> = {}) {
    Object.assign(this, params);
  }
}
