import { expect, test } from 'vitest';
import { Rng } from '../base/rng.ts';
import { roundToQ4K } from './q4_k.ts';

const BLOCK = 256;

test('what the format can hold exactly stays: multiples of scale and minimum in 6 bits', () => {
  // d = 2^-6 and m = 2^-7: both exact in fp16, the largest group with 63 of each.
  const values = Float32Array.from({ length: BLOCK }, (_, i) => {
    const group = Math.floor(i / 32);
    return ((63 - group) / 64) * (i % 16) - ((63 - 2 * group) / 128) * 8;
  });
  const rounded = roundToQ4K(values);
  for (const [i, value] of values.entries()) expect(rounded[i]).toBeCloseTo(value, 2);
});

test('zeros, a constant, and values of one sign', () => {
  const values = new Float32Array(3 * BLOCK).fill(0.25, BLOCK, 2 * BLOCK).fill(-0.25, 2 * BLOCK);
  const rounded = roundToQ4K(values);
  expect([...rounded.subarray(0, BLOCK)]).toEqual(new Array(BLOCK).fill(0));
  for (let i = BLOCK; i < 3 * BLOCK; i++) expect(rounded[i]).toBeCloseTo(values[i] as number, 3);
});

test('normal weights lose about a fourteenth of their size', () => {
  const rng = new Rng(4);
  const values = Float32Array.from({ length: 200 * BLOCK }, () => rng.normal() * 0.02);
  const rounded = roundToQ4K(values);
  const error = values.reduce((sum, value, i) => sum + (value - (rounded[i] as number)) ** 2, 0);
  const size = values.reduce((sum, value) => sum + value * value, 0);
  expect(Math.sqrt(error / size)).toBeGreaterThan(0.065);
  expect(Math.sqrt(error / size)).toBeLessThan(0.08);
});
