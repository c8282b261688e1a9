/** A request's fields -> SamplingParams. Values are checked by the AsyncLLM; here is what only the wire has. */
import type { SamplingParams } from '../client/sampling_params.ts';
import { badValue } from './http_errors.ts';
import type { SamplingBody } from './schemas.ts';

/** Limits of vLLM's server: VLLM_MAX_STOP_STRINGS, VLLM_MAX_N_SEQUENCES. */
const MAX_STOP_STRINGS = 4;
export const MAX_N = 16_384;
const MAX_CACHE_SALT_CHARS = 128;

export interface RouteSampling {
  /** null = the rest of the context. */
  readonly maxTokens: number | null;
  readonly logprobs: number | null;
  readonly promptLogprobs: number | null;
}

function checkCacheSalt(salt: string | null | undefined): void {
  if (salt === null || salt === undefined) return;
  if (salt === '' || salt.length > MAX_CACHE_SALT_CHARS || /[@/\\\0]/.test(salt)) {
    throw badValue(
      `cache_salt must be 1 to ${MAX_CACHE_SALT_CHARS} characters without @, /, \\ and NUL.`,
      'cache_salt',
    );
  }
}

/** Checks between fields, which come before the model is looked at. Throws `invalid_request`. */
export function checkCombinations(body: SamplingBody): void {
  checkCacheSalt(body.cache_salt);
  if (body.stream_options && !body.stream) {
    throw badValue('Stream options can only be defined when `stream=True`.', 'stream_options');
  }
  const promptLogprobs = body.prompt_logprobs ?? 0;
  if (body.stream && (promptLogprobs > 0 || promptLogprobs === -1)) {
    throw badValue('`prompt_logprobs` are not available when `stream=True`.', 'prompt_logprobs');
  }
}

function stopStrings(stop: SamplingBody['stop']): readonly string[] {
  const strings = typeof stop === 'string' ? [stop] : (stop ?? []);
  if (strings.length > MAX_STOP_STRINGS) {
    throw badValue(`stop can have at most ${MAX_STOP_STRINGS} strings, got ${strings.length}.`, 'stop');
  }
  return strings;
}

/** Fields the request gave override `defaults` (generation_config.json), which override the neutral values. */
export function toSamplingParams(
  body: SamplingBody,
  route: RouteSampling,
  defaults: Readonly<Partial<SamplingParams>>,
): SamplingParams {
  return {
    n: body.n ?? 1,
    temperature: body.temperature ?? defaults.temperature ?? 1,
    topP: body.top_p ?? defaults.topP ?? 1,
    topK: body.top_k ?? defaults.topK ?? 0,
    minP: body.min_p ?? defaults.minP ?? 0,
    presencePenalty: body.presence_penalty ?? defaults.presencePenalty ?? 0,
    frequencyPenalty: body.frequency_penalty ?? defaults.frequencyPenalty ?? 0,
    repetitionPenalty: body.repetition_penalty ?? defaults.repetitionPenalty ?? 1,
    seed: body.seed ?? null,
    maxTokens: route.maxTokens ?? defaults.maxTokens ?? null,
    minTokens: body.min_tokens ?? 0,
    stop: stopStrings(body.stop),
    stopTokenIds: [...new Set([...(body.stop_token_ids ?? []), ...(defaults.stopTokenIds ?? [])])],
    includeStopStrInOutput: body.include_stop_str_in_output ?? false,
    ignoreEos: body.ignore_eos ?? false,
    logprobs: route.logprobs,
    promptLogprobs: route.promptLogprobs,
    logitBias: body.logit_bias ?? null,
    allowedTokenIds: body.allowed_token_ids ?? null,
    badWords: body.bad_words ?? [],
    skipSpecialTokens: body.skip_special_tokens ?? true,
    detokenize: true,
  };
}
