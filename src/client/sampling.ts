/**
 * SamplingParams -> EngineSampling: every value checked, messages and `param` as vLLM words them, so that clients written
 * against vLLM see what they know. Pure.
 */
import { TokenmillError } from '../base/errors.ts';
import type { EngineSampling } from '../engine/types.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import type { SamplingParams } from './sampling_params.ts';
import { MAX_STOP_CHARACTERS } from './stop_strings.ts';

/** Limits of vLLM: VLLM_MAX_N_SEQUENCES, VLLM_MAX_NUM_BAD_WORDS, VLLM_MAX_BAD_WORDS_TOTAL_TOKENS. */
const MAX_N = 16384;
const MAX_BAD_WORDS = 128;
const MAX_BAD_WORD_TOKENS = 1024;
/** No token list within MAX_BAD_WORD_TOKENS is longer; checked before tokenizing. */
const MAX_BAD_WORD_CHARACTERS = 65536;
const MAX_LIST = 1 << 20;
const DEFAULT_MAX_TOKENS = 16;
/** Below it vLLM samples greedily. */
const GREEDY_TEMPERATURE = 1e-5;
/** Smaller temperatures are raised to this: the division would overflow the logits. */
const LEAST_TEMPERATURE = 0.01;
const MAX_LOGIT_BIAS = 100;
const INT64_MAX = 2n ** 63n - 1n;

export interface SamplingContext {
  readonly vocabSize: number;
  readonly maxModelLen: number;
  readonly maxLogprobs: number;
  readonly logprobsMode: EngineSampling['logprobsMode'];
  readonly promptLength: number;
  /** Ends an answer unless ignore_eos; null when the model has none. */
  readonly eosTokenId: number | null;
  /** Further ids of generation_config.json that end an answer; reported as stop tokens, as vLLM does. */
  readonly extraEosTokenIds: readonly number[];
  readonly tokenizer: Pick<Tokenizer, 'encode'>;
  /** Called only when the request has no seed. */
  readonly drawSeed: () => bigint;
}

/** What stays with the client: the text side. */
export interface TextSampling {
  readonly stop: readonly string[];
  readonly includeStopStrInOutput: boolean;
  readonly skipSpecialTokens: boolean;
  readonly detokenize: boolean;
  readonly minTokens: number;
}

export interface ValidSampling {
  /** One per choice; they differ in the seed. */
  readonly engine: readonly EngineSampling[];
  readonly text: TextSampling;
}

export function validateSampling(params: SamplingParams, context: SamplingContext): ValidSampling {
  const numbers = checkNumbers(params);
  const { maxTokens, minTokens } = checkLengths(params, context);
  const stop = checkStop(params);
  const stopTokenIds = checkIds('stop_token_ids', params.stopTokenIds ?? [], context.vocabSize);
  const ignoreEos = params.ignoreEos ?? false;
  const { eosTokenId, extraEosTokenIds } = context;
  const greedy = numbers.temperature < GREEDY_TEMPERATURE;
  const common: Omit<EngineSampling, 'seed'> = {
    temperature: greedy ? 0 : Math.max(numbers.temperature, LEAST_TEMPERATURE),
    topK: greedy || numbers.topK === -1 ? 0 : numbers.topK,
    topP: greedy ? 1 : numbers.topP,
    minP: greedy ? 0 : numbers.minP,
    presencePenalty: numbers.presencePenalty,
    frequencyPenalty: numbers.frequencyPenalty,
    repetitionPenalty: numbers.repetitionPenalty,
    maxTokens,
    minTokens,
    eosTokenIds: ignoreEos || eosTokenId === null ? [] : [eosTokenId],
    stopTokenIds: ignoreEos ? stopTokenIds : [...new Set([...stopTokenIds, ...extraEosTokenIds])],
    logitBias: checkLogitBias(params.logitBias ?? null, context.vocabSize),
    allowedTokenIds: checkAllowed(params.allowedTokenIds ?? null, context.vocabSize),
    badWords: checkBadWords(params.badWords ?? [], context),
    logprobs: checkLogprobs('logprobs', 'sample', params.logprobs, context),
    promptLogprobs: checkLogprobs('prompt_logprobs', 'prompt', params.promptLogprobs, context),
    logprobsMode: context.logprobsMode,
  };
  if (greedy && numbers.n > 1)
    throw refuse(null, undefined, `n must be 1 when using greedy sampling, got ${numbers.n}.`);
  const seed = checkSeed(params.seed) ?? context.drawSeed();
  return {
    engine: Array.from({ length: numbers.n }, (_, i) => ({ ...common, seed: BigInt.asIntN(64, seed + BigInt(i)) })),
    text: {
      stop,
      includeStopStrInOutput: params.includeStopStrInOutput ?? false,
      skipSpecialTokens: params.skipSpecialTokens ?? true,
      detokenize: params.detokenize ?? true,
      minTokens,
    },
  };
}

/** vLLM appends the parameter to messages of checks that name one. */
function refuse(
  param: string | null,
  value: unknown,
  message: string,
  code: 'invalid_request' | 'context_length_exceeded' = 'invalid_request',
) {
  const suffix =
    param === null ? '' : ` (parameter=${param}, value=${typeof value === 'string' ? value : String(value)})`;
  return new TokenmillError(code, message + suffix, { param, value });
}

/** A float as Python prints it: `-1.0`. */
function float(value: number): string {
  return Number.isInteger(value) ? value.toFixed(1) : String(value).replace('Infinity', 'inf').replace('NaN', 'nan');
}

/** Logits up to 1e8 divided by this are still numbers of 32 bits. */
const MIN_REPETITION_PENALTY = 1e-30;

function checkNumbers(params: SamplingParams) {
  const n = integer('n', params.n ?? 1);
  if (n < 1) throw refuse(null, n, `n must be at least 1, got ${n}.`);
  if (n > MAX_N) throw refuse('n', n, `n must be at most ${MAX_N}, got ${n}.`);
  const presencePenalty = ranged('presence_penalty', params.presencePenalty ?? 0, '[-2, 2]', (x) => x >= -2 && x <= 2);
  const frequencyPenalty = ranged(
    'frequency_penalty',
    params.frequencyPenalty ?? 0,
    '[-2, 2]',
    (x) => x >= -2 && x <= 2,
  );
  const repetitionPenalty = number('repetition_penalty', params.repetitionPenalty ?? 1);
  if (!(repetitionPenalty > 0 && Number.isFinite(repetitionPenalty))) {
    throw refuse(
      'repetition_penalty',
      float(repetitionPenalty),
      `repetition_penalty must be greater than zero, got ${float(repetitionPenalty)}.`,
    );
  }
  if (repetitionPenalty < MIN_REPETITION_PENALTY) {
    throw refuse(
      'repetition_penalty',
      repetitionPenalty,
      `repetition_penalty must be at least ${MIN_REPETITION_PENALTY}: below it logits overflow.`,
    );
  }
  const temperature = number('temperature', params.temperature ?? 1);
  if (temperature < 0)
    throw refuse('temperature', float(temperature), `temperature must be non-negative, got ${float(temperature)}.`);
  if (!(temperature <= 2))
    throw refuse('temperature', float(temperature), `temperature must be in [0, 2], got ${float(temperature)}.`);
  const topP = ranged('top_p', params.topP ?? 1, '(0, 1]', (x) => x > 0 && x <= 1);
  const topK = integer('top_k', params.topK ?? 0);
  if (topK < -1) throw refuse('top_k', topK, `top_k must be 0 (disable), or at least 1, got ${topK}.`);
  const minP = ranged('min_p', params.minP ?? 0, '[0, 1]', (x) => x >= 0 && x <= 1);
  return { n, presencePenalty, frequencyPenalty, repetitionPenalty, temperature, topP, topK, minP };
}

function number(param: string, value: unknown): number {
  if (typeof value !== 'number') throw refuse(param, value, `${param} must be a number, got ${typeof value}.`);
  return value;
}

function integer(param: string, value: unknown): number {
  if (typeof value !== 'number' || !Number.isSafeInteger(value)) {
    throw refuse(
      param,
      value,
      `${param} must be an integer, got ${typeof value === 'number' ? float(value) : typeof value}.`,
    );
  }
  return value;
}

function ranged(param: string, value: unknown, range: string, inside: (x: number) => boolean): number {
  const x = number(param, value);
  if (!inside(x)) throw refuse(param, float(x), `${param} must be in ${range}, got ${float(x)}.`);
  return x;
}

function checkLengths(params: SamplingParams, context: SamplingContext): { maxTokens: number; minTokens: number } {
  const { maxModelLen, promptLength } = context;
  if (promptLength === 0) throw refuse('prompt', '', 'The decoder prompt cannot be empty.');
  if (promptLength >= maxModelLen) throw promptTooLong(promptLength, maxModelLen);
  const rest = maxModelLen - promptLength;
  const asked = params.maxTokens ?? null;
  let maxTokens = params.maxTokens === undefined ? Math.min(DEFAULT_MAX_TOKENS, rest) : rest;
  if (asked !== null) {
    maxTokens = integer('max_tokens', asked);
    if (maxTokens < 1) throw refuse('max_tokens', maxTokens, `max_tokens must be at least 1, got ${maxTokens}.`);
    checkContext(maxTokens, promptLength, maxModelLen);
  }
  const minTokens = integer('min_tokens', params.minTokens ?? 0);
  if (minTokens < 0)
    throw refuse('min_tokens', minTokens, `min_tokens must be greater than or equal to 0, got ${minTokens}.`);
  if (minTokens > maxTokens) {
    throw refuse(
      'min_tokens',
      minTokens,
      `min_tokens must be less than or equal to max_tokens=${maxTokens}, got ${minTokens}.`,
    );
  }
  return { maxTokens, minTokens };
}

/** The 400 for a prompt that leaves no room for an answer. `tokens` may be a lower bound. */
/** `isExact`: false when the prompt was too long to be worth counting. */
export function promptTooLong(tokens: number, maxModelLen: number, isExact = true): TokenmillError {
  return refuse(
    'input_tokens',
    tokens,
    `This model's maximum context length is ${maxModelLen} tokens. However, your request has ${isExact ? '' : 'at least '}${tokens} input tokens. Please reduce the length of the input messages.`,
    'context_length_exceeded',
  );
}

function checkContext(maxTokens: number, promptLength: number, maxModelLen: number): void {
  if (maxTokens > maxModelLen) {
    throw refuse(
      'max_tokens',
      maxTokens,
      `max_tokens=${maxTokens} cannot be greater than max_model_len=${maxModelLen}. Please request fewer output tokens.`,
      'context_length_exceeded',
    );
  }
  if (promptLength + maxTokens <= maxModelLen) return;
  throw refuse(
    'input_tokens',
    promptLength,
    `This model's maximum context length is ${maxModelLen} tokens. However, you requested ${maxTokens} output tokens and your prompt contains ${promptLength} input tokens, for a total of ${promptLength + maxTokens} tokens. Please reduce the length of the input prompt or the number of requested output tokens.`,
    'context_length_exceeded',
  );
}

function checkStop(params: SamplingParams): readonly string[] {
  const stop = params.stop === undefined ? [] : typeof params.stop === 'string' ? [params.stop] : params.stop;
  if (!Array.isArray(stop) || stop.some((text) => typeof text !== 'string'))
    throw refuse('stop', 'a non-string', 'stop must hold strings.');
  if (stop.some((text) => text === '')) throw refuse(null, '', 'stop cannot contain an empty string.');
  if (stop.reduce((sum, text) => sum + text.length, 0) > MAX_STOP_CHARACTERS) {
    throw refuse(null, '', `stop strings may have at most ${MAX_STOP_CHARACTERS} characters together.`);
  }
  if (stop.length > 0 && params.detokenize === false) {
    throw refuse(null, '', 'stop strings are only supported when detokenize is True. Set detokenize=True to use stop.');
  }
  return stop;
}

function checkIds(param: string, ids: readonly number[], vocabSize: number): readonly number[] {
  if (!Array.isArray(ids) || ids.length > MAX_LIST)
    throw refuse(param, '...', `${param} must be a list of at most ${MAX_LIST} token ids.`);
  const wrong = ids.find((id) => !Number.isSafeInteger(id));
  if (wrong !== undefined) throw refuse(param, wrong, `${param} must contain only integers, got ${String(wrong)}.`);
  const outside = ids.find((id) => id < 0 || id >= vocabSize);
  if (outside !== undefined) {
    throw refuse(param, outside, `${param} contains out-of-vocab token id ${outside}. Vocabulary size: ${vocabSize}.`);
  }
  return ids;
}

function checkAllowed(ids: readonly number[] | null, vocabSize: number): readonly number[] | null {
  if (ids === null) return null;
  if (ids.length === 0) throw refuse('allowed_token_ids', '[]', 'allowed_token_ids is not None and empty!');
  return checkIds('allowed_token_ids', ids, vocabSize);
}

function checkLogitBias(
  bias: Readonly<Record<string, number>> | null,
  vocabSize: number,
): ReadonlyMap<number, number> | null {
  if (bias === null) return null;
  const clamped = new Map<number, number>();
  const strangers: number[] = [];
  for (const [key, value] of Object.entries(bias)) {
    if (!/^-?\d{1,15}$/.test(key))
      throw refuse('logit_bias', key, `Found token_id(s) in logit_bias that are not integers: ${key.slice(0, 80)}.`);
    const id = Number(key);
    if (typeof value !== 'number' || Number.isNaN(value))
      throw refuse('logit_bias', value, `logit_bias of token ${id} is not a number.`);
    if (id < 0 || id >= vocabSize) strangers.push(id);
    clamped.set(id, Math.min(MAX_LOGIT_BIAS, Math.max(-MAX_LOGIT_BIAS, value)));
  }
  if (strangers.length > 0) {
    const list = `[${strangers.slice(0, 10).join(', ')}]`;
    throw refuse(
      'logit_bias',
      list,
      `token_id(s) ${list} in logit_bias contain out-of-vocab token ids. Vocabulary size: ${vocabSize}.`,
    );
  }
  return clamped.size === 0 ? null : clamped;
}

/** Each word as it stands at the beginning of a text and after a space; the latter only where that is a token of its own. */
function checkBadWords(
  words: readonly string[],
  { tokenizer, vocabSize }: SamplingContext,
): readonly (readonly number[])[] {
  if (words.length === 0) return [];
  if (!Array.isArray(words) || words.some((word) => typeof word !== 'string'))
    throw refuse('bad_words', '...', 'bad_words must hold strings.');
  if (words.some((word) => word.trim() === ''))
    throw refuse('bad_words', '', 'bad_words cannot contain an empty string.');
  const characters = words.reduce((sum, word) => sum + word.length, 0);
  if (words.length > MAX_BAD_WORDS || characters > MAX_BAD_WORD_CHARACTERS) {
    throw refuse(
      'bad_words',
      words.length,
      `bad_words may hold at most ${MAX_BAD_WORDS} words of ${MAX_BAD_WORD_CHARACTERS} characters together.`,
    );
  }
  const sequences: number[][] = [];
  for (const word of words) {
    const bare = word.trimStart();
    const plain = [...tokenizer.encode(bare, { addSpecialTokens: false })];
    const spaced = [...tokenizer.encode(` ${bare}`, { addSpecialTokens: false })];
    if (plain.length > 0) sequences.push(plain);
    if (spaced.length === plain.length && spaced[0] !== plain[0]) sequences.push(spaced);
  }
  const tokens = sequences.reduce((sum, ids) => sum + ids.length, 0);
  if (sequences.length > MAX_BAD_WORDS || tokens > MAX_BAD_WORD_TOKENS) {
    throw refuse(
      'bad_words',
      words.length,
      `bad_words become ${sequences.length} sequences of ${tokens} tokens; at most ${MAX_BAD_WORDS} and ${MAX_BAD_WORD_TOKENS} are allowed.`,
    );
  }
  for (const ids of sequences) checkIds('bad_words', ids, vocabSize);
  return sequences;
}

function checkLogprobs(
  param: string,
  kind: string,
  asked: number | null | undefined,
  context: SamplingContext,
): number | null {
  if (asked === null || asked === undefined) return null;
  const count = integer(param, asked);
  if (count < -1) throw refuse(param, count, `${param} must be non-negative or -1, got ${count}.`);
  const wanted = count === -1 ? context.vocabSize : count;
  if (context.maxLogprobs !== -1 && wanted > context.maxLogprobs) {
    throw refuse(
      param,
      wanted,
      `Requested ${kind} logprobs of ${wanted}, which is greater than max allowed: ${context.maxLogprobs}`,
    );
  }
  return wanted >= context.vocabSize ? -1 : count;
}

function checkSeed(seed: number | bigint | null | undefined): bigint | null {
  if (seed === null || seed === undefined) return null;
  if (typeof seed === 'number' && !Number.isSafeInteger(seed))
    throw refuse('seed', seed, `seed must be an integer, got ${float(seed)}.`);
  if (typeof seed !== 'number' && typeof seed !== 'bigint')
    throw refuse('seed', seed, `seed must be an integer, got ${typeof seed}.`);
  const value = BigInt(seed);
  if (value > INT64_MAX || value < -INT64_MAX - 1n)
    throw refuse('seed', seed, `seed must fit into 64 bits, got ${seed}.`);
  return value === -1n ? null : value;
}
