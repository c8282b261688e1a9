import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { processed, ReferenceLogitRows } from './logit_rows.ts';

interface Case {
  readonly name: string;
  readonly logits: readonly number[];
  readonly params: { readonly [key: string]: unknown };
  readonly greedy_token: number;
  readonly logprobs: readonly (number | null)[];
  readonly raw_logprobs: readonly number[];
}

const url = new URL('../../../test/golden/sampling/cases.json', import.meta.url);
const { cases } = JSON.parse(readFileSync(url, 'utf8')) as { cases: Case[] };

/** Cases whose parameters are only those of LogitRows: the rest edits the row before. */
const restricting = ['temperature', 'top_k', 'top_p', 'min_p'];
const neutral = JSON.stringify(cases.find((c) => c.name === 'nothing')?.params);
const rowCases = cases.filter((c) => {
  const base = JSON.parse(neutral) as Record<string, unknown>;
  const differing = Object.keys(base).filter((key) => JSON.stringify(base[key]) !== JSON.stringify(c.params[key]));
  return c.params['temperature'] !== 0 && differing.every((key) => restricting.includes(key));
});

function drawOf(params: Case['params']) {
  const topK = Number(params['top_k']);
  return {
    temperature: Number(params['temperature']),
    topK: Math.max(topK, 0),
    topP: Number(params['top_p']),
    minP: Number(params['min_p']),
  };
}

test('there are cases of each restriction', () => {
  expect(rowCases.length).toBeGreaterThan(25);
});

test.each(rowCases.map((c) => [c.name, c] as const))('process agrees with the sampler: %s', (_name, c) => {
  const actual = processed(c.logits, drawOf(c.params));
  for (const [id, expected] of c.logprobs.entries()) {
    if (expected === null) expect(actual[id]).toBe(-Infinity);
    else expect(Math.abs(actual[id]! - expected)).toBeLessThan(1e-5);
  }
  const logits = Float32Array.from(c.logits);
  const rows = new ReferenceLogitRows(logits.slice(), logits.length);
  expect(rows.logSumExp(0) / (c.logits[0]! - c.raw_logprobs[0]!)).toBeCloseTo(1, 6);
  rows.process(0, drawOf(c.params));
  expect(rows.row(0)).toEqual(Float32Array.from(processed(logits, drawOf(c.params))));
});

test('draws follow the distribution left after all restrictions', () => {
  const logits = Float32Array.of(1, -Infinity, 2, 0.5, 2, -3);
  const params = { temperature: 1, topK: 3, topP: 1, minP: 0 };
  const processedRows = new ReferenceLogitRows(logits.slice(), 6);
  processedRows.process(0, params);
  const rows = new ReferenceLogitRows(logits, 6);
  const counts = new Array<number>(6).fill(0);
  const draws = 3000;
  for (let i = 0; i < draws; i++) counts[rows.sample(0, { ...params, u: (i + 0.5) / draws })]!++;
  for (let id = 0; id < 6; id++) {
    expect(counts[id]! / draws).toBeCloseTo(Math.exp(processedRows.row(0)[id]!), 2);
  }
});

test('argmax, topK and rank: the lower id wins a tie, removed tokens are left out', () => {
  const rows = new ReferenceLogitRows(Float32Array.of(9, 9, 9, 9, 1, 3, -Infinity, 3), 4);
  expect(rows.argmax(0)).toBe(0);
  expect(rows.argmax(1)).toBe(1);
  expect([...rows.topK(1, 4).ids]).toEqual([1, 3, 0]);
  expect([...rows.topK(1, 2).logits]).toEqual([3, 3]);
  expect([rows.rank(1, 1), rows.rank(1, 3), rows.rank(1, 0)]).toEqual([1, 1, 3]);
});

test('the last token with any probability takes the rounding at the end of the range', () => {
  const rows = new ReferenceLogitRows(Float32Array.of(0, 0, -Infinity), 3);
  expect(rows.sample(0, { temperature: 1, topK: 0, topP: 1, minP: 0, u: 1 - 2 ** -53 })).toBe(1);
  expect(rows.sample(0, { temperature: 1, topK: 0, topP: 1, minP: 0, u: 0 })).toBe(0);
});
