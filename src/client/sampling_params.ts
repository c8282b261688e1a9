/** Sampling parameters of one request; names and defaults as vLLM's SamplingParams, in camelCase. */
export interface SamplingParams {
  n?: number;
  temperature?: number;
  topP?: number;
  topK?: number;
  minP?: number;
  presencePenalty?: number;
  frequencyPenalty?: number;
  repetitionPenalty?: number;
  seed?: number | bigint | null;
  /** Default 16 in the library; null = the rest of the context. */
  maxTokens?: number | null;
  minTokens?: number;
  stop?: string | readonly string[];
  stopTokenIds?: readonly number[];
  includeStopStrInOutput?: boolean;
  ignoreEos?: boolean;
  logprobs?: number | null;
  promptLogprobs?: number | null;
  logitBias?: Readonly<Record<string, number>> | null;
  allowedTokenIds?: readonly number[] | null;
  badWords?: readonly string[];
  skipSpecialTokens?: boolean;
  detokenize?: boolean;
}
