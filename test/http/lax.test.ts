import { afterAll, beforeAll, expect, it } from 'vitest';
import { z } from 'zod';
import { parseJsonBody } from '../../src/server/body.ts';
import { coerceLax } from '../../src/server/lax.ts';
import { ChatCompletionRequest, CompletionRequest, TokenizeRequest } from '../../src/server/schemas.ts';
import { type Bench, bench } from './harness.ts';

let b: Bench;
beforeAll(async () => {
  b = await bench();
});
afterAll(() => b.close());

/** [written, understood] as pydantic 2 does; the same on both sides = left for the schema to refuse. */
const INTS: readonly (readonly [unknown, unknown])[] = [
  ['5', 5],
  [' +5 ', 5],
  ['-1', -1],
  ['1_000', 1000],
  ['5.0', 5],
  [true, 1],
  ['5.5', '5.5'],
  ['', ''],
  ['1e3', '1e3'],
  ['0x10', '0x10'],
  ['1__0', '1__0'],
  ['9'.repeat(1000), '9'.repeat(1000)],
  [[5], [5]],
];
const FLOATS: readonly (readonly [unknown, unknown])[] = [
  ['0.5', 0.5],
  ['.5', 0.5],
  ['1.', 1],
  [' -2e-1 ', -0.2],
  [false, 0],
  ['nan', 'nan'],
  ['Infinity', 'Infinity'],
  ['0.5x', '0.5x'],
  [null, null],
];
const BOOLS: readonly (readonly [unknown, unknown])[] = [
  ['true', true],
  ['ON', true],
  ['n', false],
  [1, true],
  [0, false],
  [2, 2],
  ['maybe', 'maybe'],
];

it.each(INTS)('integer %j -> %j', (from, to) => expect(coerceLax(z.int(), from)).toEqual(to));
it.each(FLOATS)('number %j -> %j', (from, to) => expect(coerceLax(z.number(), from)).toEqual(to));
it.each(BOOLS)('boolean %j -> %j', (from, to) => expect(coerceLax(z.boolean(), from)).toEqual(to));

it('reaches into lists, maps and nested objects, and nowhere else', () => {
  const written = {
    max_tokens: '7',
    logit_bias: { 5: '1.5' },
    stop_token_ids: ['1', 2],
    stream_options: { include_usage: 'yes' },
    prompt: '5',
    stop: '5',
    user: '5',
    unknown: '5',
    toString: '5',
  };
  expect(CompletionRequest.parse(coerceLax(CompletionRequest, written))).toEqual({
    ...written,
    max_tokens: 7,
    logit_bias: { 5: 1.5 },
    stop_token_ids: [1, 2],
    stream_options: { include_usage: true },
  });
  expect(coerceLax(TokenizeRequest, { prompt: '1', add_special_tokens: 'no' })).toEqual({
    prompt: '1',
    add_special_tokens: false,
  });
  expect(coerceLax(ChatCompletionRequest, { logprobs: 1, top_logprobs: '2' })).toEqual({
    logprobs: true,
    top_logprobs: 2,
  });
});

it('a request with everything as text is answered like one with numbers', async () => {
  const ask = async (payload: object) =>
    (await b.server.app.inject({ method: 'POST', url: '/v1/completions', payload })).json();
  const asText = await ask({ prompt: 'x', max_tokens: '3', temperature: '0', logprobs: '1', echo: 'false' });
  const asNumbers = await ask({ prompt: 'x', max_tokens: 3, temperature: 0, logprobs: 1, echo: false });
  expect(asText.choices).toEqual(asNumbers.choices);
  expect(asText.usage.completion_tokens).toBe(3);
});

const seedOf = (json: string): unknown => {
  const body = parseJsonBody(new TextEncoder().encode(json));
  const parsed = CompletionRequest.safeParse(coerceLax(CompletionRequest, body));
  return parsed.success ? parsed.data.seed : 'refused';
};

it.each([
  ['{"seed": 5}', 5],
  ['{"seed": 9007199254740991}', 9007199254740991],
  ['{"seed": 9007199254740993}', 9007199254740993n],
  ['{"seed" : -9223372036854775808 }', -(2n ** 63n)],
  ['{"seed": "9223372036854775807"}', 2n ** 63n - 1n],
  ['{"seed": 9223372036854775808}', 'refused'],
  ['{"seed": 1e18}', 'refused'],
  ['{"seed": 9007199254740993.0}', 'refused'],
  ['{"\\u0073eed": 9007199254740993}', 'refused'],
  ['{"seed": 9007199254740993, "seed": 7}', 7],
  ['{"seed": 7, "seed": 9007199254740993}', 9007199254740993n],
  [
    '{"user": "\\"seed\\": 9007199254740995", "x": {"seed": 9007199254740997}, "seed": 9007199254740993}',
    9007199254740993n,
  ],
  ['{"a\\"seed": 9007199254740995, "seed": 9007199254740993}', 9007199254740993n],
])('no digit of a seed is lost: %s', (json, seed) => {
  expect(seedOf(json)).toEqual(seed);
});

it('only the seed itself is read again', () => {
  const json = '{"user": "\\"seed\\": 9007199254740995", "x": {"seed": 9007199254740996}, "seed": 9007199254740993}';
  expect(parseJsonBody(new TextEncoder().encode(json))).toEqual({
    user: '"seed": 9007199254740995',
    x: { seed: 9007199254740996 },
    seed: 9007199254740993n,
  });
});
