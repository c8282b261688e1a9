import { expect, test } from 'vitest';
import { Rng } from '../base/rng.ts';
import { decodeQ8_0, encodeQ8_0, Q8_0_BLOCK_BYTES } from './q8_0.ts';

test('a block is an fp16 scale and 32 quotients', () => {
  const values = Float32Array.from({ length: 32 }, (_, i) => (i === 5 ? -127 : i === 6 ? 0.5 : i));
  const bytes = encodeQ8_0(values);
  expect(bytes).toHaveLength(Q8_0_BLOCK_BYTES);
  // fp16 1.0, then the values themselves: the scale is 1. A half rounds away from zero.
  expect([...bytes.subarray(0, 2)]).toEqual([0x00, 0x3c]);
  expect([...new Int8Array(bytes.buffer, 2, 8)]).toEqual([0, 1, 2, 3, 4, -127, 1, 7]);
});

test('decoding is within half a step, and zeros stay zeros', () => {
  const rng = new Rng(4);
  const values = Float32Array.from({ length: 32 * 50 }, (_, i) => (i < 32 ? 0 : rng.normal()));
  const decoded = decodeQ8_0(encodeQ8_0(values));
  expect(decoded.subarray(0, 32).every((value) => value === 0)).toBe(true);
  for (let block = 1; block < 50; block++) {
    const own = values.subarray(block * 32, block * 32 + 32);
    const absmax = Math.max(...own.map(Math.abs));
    // Half a step of rounding, and fp16's relative error of the scale.
    const limit = absmax / 127 / 2 + absmax * 2 ** -11;
    for (let i = 0; i < 32; i++) {
      expect(Math.abs((decoded[block * 32 + i] as number) - (own[i] as number))).toBeLessThanOrEqual(limit);
    }
  }
});
