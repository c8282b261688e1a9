import { expect, test } from 'vitest';
import { Rng } from '../base/rng.ts';
import { MIN_PREFILL_TOKENS, TokenBudget, type Upcoming } from './token_budget.ts';

const MAX = 2048;
const EIGHT: Upcoming = { decodeRows: 8, decodeAttended: 8 * 300, prefillStart: 0 };

/** One that knows a machine of 15 ms a step, 1 ms a row, 0.6 ms a prefill token. */
function taught(targetItlMs: number, maxNumBatchedTokens = MAX): TokenBudget {
  const budget = new TokenBudget({ targetItlMs, maxNumBatchedTokens });
  const rng = new Rng(1);
  for (let i = 0; i < 200; i++) {
    const decodeRows = rng.int(1, 16);
    const prefillTokens = rng.pick([0, 50, 100, 200]);
    budget.observe({ decodeRows, prefillTokens, attended: 0 }, 15 + decodeRows + 0.6 * prefillTokens);
  }
  return budget;
}

test('the step takes 90% of the target', () => {
  const tokens = taught(100).next({ ...EIGHT, decodeAttended: 0 });
  expect(15 + 8 + 0.6 * (tokens - 8)).toBeGreaterThan(87);
  expect(15 + 8 + 0.6 * (tokens - 8)).toBeLessThan(93);
});

test('everything when the target is off, when nothing was measured, when nobody decodes', () => {
  expect(taught(0).next(EIGHT)).toBe(MAX);
  expect(new TokenBudget({ targetItlMs: 1, maxNumBatchedTokens: MAX }).next(EIGHT)).toBe(MAX);
  expect(taught(1).next({ decodeRows: 0, decodeAttended: 0, prefillStart: 500 })).toBe(MAX);
});

test('prompts advance however small the target; the limit of a step holds however large', () => {
  expect(taught(1).next(EIGHT)).toBe(8 + MIN_PREFILL_TOKENS);
  expect(taught(1, 20).next(EIGHT)).toBe(20);
  expect(taught(1e6).next(EIGHT)).toBe(MAX);
});

test('more time is never fewer tokens; more rows and more context are never more prefill', () => {
  const targets = [1, 10, 30, 50, 80, 100, 200, 1000].map((target) => taught(target).next(EIGHT));
  expect(targets).toEqual([...targets].sort((a, b) => a - b));
  expect(new Set(targets).size).toBeGreaterThan(4);
  const budget = taught(100);
  const falling = (values: number[]) => expect(values).toEqual([...values].sort((a, b) => b - a));
  falling([1, 4, 8, 32, 64, 128].map((decodeRows) => budget.next({ ...EIGHT, decodeRows }) - decodeRows));
  falling([0, 1e3, 1e5, 1e7].map((decodeAttended) => budget.next({ ...EIGHT, decodeAttended })));
  falling([0, 100, 1e4, 1e6].map((prefillStart) => budget.next({ ...EIGHT, prefillStart })));
});
