import { existsSync, readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { TokenmillError } from '../base/errors.ts';
import { type SamplingContext, validateSampling } from './sampling.ts';
import { SamplingParams } from './sampling_params.ts';

const CONTEXT: SamplingContext = {
  vocabSize: 1000,
  maxModelLen: 1024,
  maxLogprobs: 20,
  logprobsMode: 'raw_logprobs',
  promptLength: 100,
  eosTokenId: 2,
  extraEosTokenIds: [7],
  tokenizer: {
    // One token a character; a space in front of a letter makes it a token of its own.
    encode: (text) =>
      Int32Array.from(
        text.replace(/ ([a-z])/g, (_, letter: string) => letter.toUpperCase()),
        (c) => c.charCodeAt(0),
      ),
  },
  drawSeed: () => 42n,
};

function valid(params: SamplingParams, context: Partial<SamplingContext> = {}) {
  return validateSampling(params, { ...CONTEXT, ...context });
}

function one(params: SamplingParams, context: Partial<SamplingContext> = {}) {
  return valid(params, context).engine[0]!;
}

function refusal(params: SamplingParams, context: Partial<SamplingContext> = {}): TokenmillError {
  try {
    valid(params, context);
  } catch (error) {
    expect(error).toBeInstanceOf(TokenmillError);
    expect((error as TokenmillError).status).toBe(400);
    return error as TokenmillError;
  }
  throw new Error(`accepted: ${JSON.stringify(params)}`);
}

const REFUSED: readonly (readonly [SamplingParams, string, string | null])[] = [
  [
    { temperature: -1 },
    'temperature must be non-negative, got -1.0. (parameter=temperature, value=-1.0)',
    'temperature',
  ],
  [{ temperature: 2.5 }, 'temperature must be in [0, 2], got 2.5. (parameter=temperature, value=2.5)', 'temperature'],
  [
    { temperature: Number.NaN },
    'temperature must be in [0, 2], got nan. (parameter=temperature, value=nan)',
    'temperature',
  ],
  [
    { temperature: Number.POSITIVE_INFINITY },
    'temperature must be in [0, 2], got inf. (parameter=temperature, value=inf)',
    'temperature',
  ],
  [{ topP: 0 }, 'top_p must be in (0, 1], got 0.0. (parameter=top_p, value=0.0)', 'top_p'],
  [{ topP: Number.NaN }, 'top_p must be in (0, 1], got nan. (parameter=top_p, value=nan)', 'top_p'],
  [{ minP: 1.5 }, 'min_p must be in [0, 1], got 1.5. (parameter=min_p, value=1.5)', 'min_p'],
  [{ topK: -2 }, 'top_k must be 0 (disable), or at least 1, got -2. (parameter=top_k, value=-2)', 'top_k'],
  [{ topK: 1.5 }, 'top_k must be an integer, got 1.5. (parameter=top_k, value=1.5)', 'top_k'],
  [
    { presencePenalty: 3 },
    'presence_penalty must be in [-2, 2], got 3.0. (parameter=presence_penalty, value=3.0)',
    'presence_penalty',
  ],
  [
    { frequencyPenalty: -2.1 },
    'frequency_penalty must be in [-2, 2], got -2.1. (parameter=frequency_penalty, value=-2.1)',
    'frequency_penalty',
  ],
  [
    { repetitionPenalty: 1e-31 },
    'repetition_penalty must be at least 1e-30: below it logits overflow. (parameter=repetition_penalty, value=1e-31)',
    'repetition_penalty',
  ],
  [
    { repetitionPenalty: 0 },
    'repetition_penalty must be greater than zero, got 0.0. (parameter=repetition_penalty, value=0.0)',
    'repetition_penalty',
  ],
  [{ n: 0 }, 'n must be at least 1, got 0.', null],
  [{ n: 2 ** 20 }, 'n must be at most 16384, got 1048576. (parameter=n, value=1048576)', 'n'],
  [{ n: 2, temperature: 0 }, 'n must be 1 when using greedy sampling, got 2.', null],
  [{ maxTokens: 0 }, 'max_tokens must be at least 1, got 0. (parameter=max_tokens, value=0)', 'max_tokens'],
  [
    { maxTokens: 5000 },
    'max_tokens=5000 cannot be greater than max_model_len=1024. Please request fewer output tokens. (parameter=max_tokens, value=5000)',
    'max_tokens',
  ],
  [
    { minTokens: -1 },
    'min_tokens must be greater than or equal to 0, got -1. (parameter=min_tokens, value=-1)',
    'min_tokens',
  ],
  [
    { minTokens: 5, maxTokens: 4 },
    'min_tokens must be less than or equal to max_tokens=4, got 5. (parameter=min_tokens, value=5)',
    'min_tokens',
  ],
  [
    { logprobs: 500 },
    'Requested sample logprobs of 500, which is greater than max allowed: 20 (parameter=logprobs, value=500)',
    'logprobs',
  ],
  [
    { logprobs: -1 },
    'Requested sample logprobs of 1000, which is greater than max allowed: 20 (parameter=logprobs, value=1000)',
    'logprobs',
  ],
  [{ logprobs: -2 }, 'logprobs must be non-negative or -1, got -2. (parameter=logprobs, value=-2)', 'logprobs'],
  [
    { promptLogprobs: 21 },
    'Requested prompt logprobs of 21, which is greater than max allowed: 20 (parameter=prompt_logprobs, value=21)',
    'prompt_logprobs',
  ],
  [{ stop: [''] }, 'stop cannot contain an empty string.', null],
  [{ stop: 'x'.repeat(70000) }, 'stop strings may have at most 65536 characters together.', null],
  [
    { stop: 'a', detokenize: false },
    'stop strings are only supported when detokenize is True. Set detokenize=True to use stop.',
    null,
  ],
  [
    { stopTokenIds: [1000] },
    'stop_token_ids contains out-of-vocab token id 1000. Vocabulary size: 1000. (parameter=stop_token_ids, value=1000)',
    'stop_token_ids',
  ],
  [
    { stopTokenIds: [1.5] },
    'stop_token_ids must contain only integers, got 1.5. (parameter=stop_token_ids, value=1.5)',
    'stop_token_ids',
  ],
  [
    { allowedTokenIds: [] },
    'allowed_token_ids is not None and empty! (parameter=allowed_token_ids, value=[])',
    'allowed_token_ids',
  ],
  [
    { allowedTokenIds: [-1] },
    'allowed_token_ids contains out-of-vocab token id -1. Vocabulary size: 1000. (parameter=allowed_token_ids, value=-1)',
    'allowed_token_ids',
  ],
  [
    { logitBias: { '1000': 1 } },
    'token_id(s) [1000] in logit_bias contain out-of-vocab token ids. Vocabulary size: 1000. (parameter=logit_bias, value=[1000])',
    'logit_bias',
  ],
  [
    { logitBias: { x: 1 } },
    'Found token_id(s) in logit_bias that are not integers: x. (parameter=logit_bias, value=x)',
    'logit_bias',
  ],
  [
    { logitBias: { '1': Number.NaN } },
    'logit_bias of token 1 is not a number. (parameter=logit_bias, value=NaN)',
    'logit_bias',
  ],
  [{ badWords: ['ok', ' '] }, 'bad_words cannot contain an empty string. (parameter=bad_words, value=)', 'bad_words'],
  [
    { badWords: ['x'.repeat(1100)] },
    'bad_words become 2 sequences of 2200 tokens; at most 128 and 1024 are allowed. (parameter=bad_words, value=1)',
    'bad_words',
  ],
  [{ seed: 1.5 }, 'seed must be an integer, got 1.5. (parameter=seed, value=1.5)', 'seed'],
  [
    { seed: 2n ** 63n },
    'seed must fit into 64 bits, got 9223372036854775808. (parameter=seed, value=9223372036854775808)',
    'seed',
  ],
];

describe('refused', () => {
  test.each(REFUSED.map(([params, message, param]) => [message.slice(0, 60), params, message, param] as const))(
    '%s',
    (_, params, message, param) => {
      const error = refusal(params);
      expect(error.message).toBe(message);
      expect(error.param).toBe(param);
    },
  );

  test('values of a wrong type, as JavaScript allows them', () => {
    for (const params of [
      { temperature: '1' },
      { n: '2' },
      { stop: 5 },
      { stop: [5] },
      { badWords: 'x' },
      { stopTokenIds: 5 },
      { seed: 'x' },
    ]) {
      expect(refusal(params as unknown as SamplingParams).code).toBe('invalid_request');
    }
  });

  test('a context that is too short is context_length_exceeded, never a cut', () => {
    const prompt = refusal({}, { promptLength: 1024 });
    expect([prompt.code, prompt.param]).toEqual(['context_length_exceeded', 'input_tokens']);
    expect(prompt.message).toContain(
      "This model's maximum context length is 1024 tokens. However, your request has 1024 input tokens.",
    );
    const both = refusal({ maxTokens: 925 });
    expect(both.code).toBe('context_length_exceeded');
    expect(both.message).toContain(
      'you requested 925 output tokens and your prompt contains 100 input tokens, for a total of 1025 tokens',
    );
    expect(one({ maxTokens: 924 }).maxTokens).toBe(924);
  });

  const recorded = new URL('../../../shared/contract/requests.json', import.meta.url);
  test.skipIf(!existsSync(recorded))('the recorded refusals of vLLM (skipped where the recordings are absent)', () => {
    const cases = JSON.parse(readFileSync(recorded, 'utf8')) as Record<
      string,
      { answer: { error: { message: string; param: string | null } } }
    >;
    const params: Readonly<Record<string, SamplingParams>> = {
      err_temperature: { maxTokens: 4, temperature: -1 },
      err_top_p: { maxTokens: 4, temperature: 0, topP: 0 },
      err_max_tokens: { maxTokens: 0, temperature: 0 },
      err_too_long: { maxTokens: 5000, temperature: 0 },
      err_n0: { maxTokens: 4, temperature: 0, n: 0 },
      err_logprobs: { maxTokens: 4, temperature: 0, logprobs: 500 },
    };
    for (const [name, given] of Object.entries(params)) {
      const { message, param } = refusal(given);
      expect({ message, param }, name).toEqual({
        message: cases[name]!.answer.error.message,
        param: cases[name]!.answer.error.param,
      });
    }
  });
});

describe('accepted', () => {
  test('defaults are neutral, with 16 tokens', () => {
    expect(one({})).toEqual({
      temperature: 1,
      topK: 0,
      topP: 1,
      minP: 0,
      presencePenalty: 0,
      frequencyPenalty: 0,
      repetitionPenalty: 1,
      seed: 42n,
      maxTokens: 16,
      minTokens: 0,
      eosTokenIds: [2],
      stopTokenIds: [7],
      logitBias: null,
      allowedTokenIds: null,
      badWords: [],
      logprobs: null,
      promptLogprobs: null,
      logprobsMode: 'raw_logprobs',
    });
  });

  test('lengths: null is the rest, the default never exceeds it', () => {
    expect(one({ maxTokens: null }).maxTokens).toBe(924);
    expect(one({}, { promptLength: 1020 }).maxTokens).toBe(4);
  });

  test('greedy resets what has no meaning; tiny temperatures are raised', () => {
    expect(one({ temperature: 0, topP: 0.5, topK: 3, minP: 0.1 })).toMatchObject({
      temperature: 0,
      topP: 1,
      topK: 0,
      minP: 0,
    });
    expect(one({ temperature: 1e-6, topK: 3 })).toMatchObject({ temperature: 0, topK: 0 });
    expect(one({ temperature: 0.001, topK: 3 })).toMatchObject({ temperature: 0.01, topK: 3 });
    expect(one({ topK: -1 }).topK).toBe(0);
  });

  test('ends of an answer', () => {
    expect(one({ stopTokenIds: [9, 7] })).toMatchObject({ eosTokenIds: [2], stopTokenIds: [9, 7] });
    expect(one({ stopTokenIds: [9], ignoreEos: true })).toMatchObject({ eosTokenIds: [], stopTokenIds: [9] });
    expect(one({}, { eosTokenId: null, extraEosTokenIds: [] })).toMatchObject({ eosTokenIds: [], stopTokenIds: [] });
  });

  test('choices differ by consecutive seeds, so the first is that of n=1', () => {
    expect(valid({ n: 3, seed: 5 }).engine.map(({ seed }) => seed)).toEqual([5n, 6n, 7n]);
    expect(valid({ n: 2, seed: 2n ** 63n - 1n }).engine[1]!.seed).toBe(-(2n ** 63n));
    expect(one({ seed: -1 }).seed).toBe(42n);
    expect(one({ seed: null }).seed).toBe(42n);
    expect(one({ seed: 0 }).seed).toBe(0n);
  });

  test('bias is clamped, all logprobs are -1', () => {
    expect(one({ logitBias: { '3': 500, '4': -500, '5': 1.5 } }).logitBias).toEqual(
      new Map([
        [3, 100],
        [4, -100],
        [5, 1.5],
      ]),
    );
    expect(one({ logprobs: -1 }, { maxLogprobs: -1 }).logprobs).toBe(-1);
    expect(one({ logprobs: 0 }).logprobs).toBe(0);
  });

  test('bad words stand at the beginning and after a space, where that is another token', () => {
    // ` ab` becomes `Ab`: as long as `ab` with another first token. ` é` keeps its space: longer, so left out.
    const codes = (text: string) => [...text].map((c) => c.charCodeAt(0));
    expect(one({ badWords: [' ab', 'é'] }).badWords).toEqual([codes('ab'), codes('Ab'), codes('é')]);
  });

  test('the class and a plain object are the same', () => {
    const fields = { temperature: 0, maxTokens: 3, stop: ['x'] };
    expect(valid(new SamplingParams(fields))).toEqual(valid(fields));
    expect(valid(fields).text).toEqual({
      stop: ['x'],
      includeStopStrInOutput: false,
      skipSpecialTokens: true,
      detokenize: true,
      minTokens: 0,
    });
  });
});
