import { expect, test } from 'vitest';
import { KV_DTYPE_NAMES } from '../base/kv_dtypes.ts';
import { Rng } from '../base/rng.ts';
import { E4M3, E5M2, roundToFp8 } from './fp8.ts';
import { roundKv } from './kv_cache.ts';

/** All numbers of a format, ascending, from its definition. */
function numbersOf(mantissaBits: number, bias: number, count: number): number[] {
  return Array.from({ length: count }, (_, code) => {
    const [exponent, fraction] = [code >> mantissaBits, (code % 2 ** mantissaBits) / 2 ** mantissaBits];
    return exponent === 0 ? fraction * 2 ** (1 - bias) : (1 + fraction) * 2 ** (exponent - bias);
  });
}

test.each([
  ['e4m3', E4M3, numbersOf(3, 7, 127)],
  ['e5m2', E5M2, numbersOf(2, 15, 124)],
] as const)(
  '%s: every number stays, and what lies between goes to the nearer or the even one',
  (_, format, numbers) => {
    for (const [code, number] of numbers.entries()) {
      expect(roundToFp8(format, number)).toBe(number);
      expect(roundToFp8(format, -number)).toBe(-number);

      const next = numbers[code + 1];
      if (next === undefined) continue;
      const middle = (number + next) / 2;
      expect(roundToFp8(format, middle)).toBe(code % 2 === 0 ? number : next);
      expect(roundToFp8(format, middle * (1 + 2 ** -20))).toBe(next);
      expect(roundToFp8(format, middle * (1 - 2 ** -20))).toBe(number);
    }
    const largest = numbers.at(-1) as number;
    for (const beyond of [largest * 1.01, 1e30, Number.POSITIVE_INFINITY]) {
      expect(roundToFp8(format, beyond)).toBe(largest);
      expect(roundToFp8(format, -beyond)).toBe(-largest);
    }
    expect(roundToFp8(format, Number.NaN)).toBeNaN();
  },
);

test('int8: each head has its own scale, and no value is off by more than half a step', () => {
  const rng = new Rng(1);
  const sizes = [1, 1e-3, 1e4, 0, 1e-40];
  const exact = Float32Array.from({ length: 5 * 24 }, (_, i) => rng.normal() * (sizes[Math.floor(i / 24)] as number));
  const rounded = roundKv('int8_per_token_head', exact.slice(), 24);
  for (const head of [0, 1, 2, 3]) {
    const [from, to] = [exact, rounded].map((data) => [...data.subarray(head * 24, (head + 1) * 24)]);
    const absmax = Math.max(...(from as number[]).map(Math.abs));
    // Rounding the scale to bf16 makes a step at most 2^-8 larger.
    const step = (absmax / 127) * (1 + 2 ** -8);
    for (const [i, value] of (from as number[]).entries()) {
      expect(Math.abs(value - ((to as number[])[i] as number))).toBeLessThanOrEqual(step / 2);
    }
  }
});

test.each(KV_DTYPE_NAMES)('%s: what was read from a cache is written as it was', (dtype) => {
  const rng = new Rng(2);
  const values = Float32Array.from({ length: 40 * 50 }, () => rng.normal() * 2 ** rng.int(-30, 6));
  const once = roundKv(dtype, values, 40).slice();
  expect(roundKv(dtype, values, 40)).toEqual(once);
});

test('int8: a head with a value that is not finite is not a number', () => {
  const rounded = roundKv('int8_per_token_head', Float32Array.of(1, 2, 3, Number.POSITIVE_INFINITY, Number.NaN, 0), 2);
  expect([...rounded.subarray(0, 2)]).not.toContain(Number.NaN);
  expect([...rounded.subarray(2)]).toEqual([Number.NaN, Number.NaN, Number.NaN, Number.NaN]);
});
