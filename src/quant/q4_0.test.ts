import { expect, test } from 'vitest';
import { Rng } from '../base/rng.ts';
import { decodeQ4_0, encodeQ4_0, Q4_0_BLOCK_BYTES } from './q4_0.ts';

test('a block is an fp16 scale and 32 halves of bytes, the largest element exact', () => {
  const values = Float32Array.from({ length: 32 }, (_, i) => (i === 3 ? -8 : i === 19 ? 7 : i === 4 ? 0.5 : 0));
  const bytes = encodeQ4_0(values);
  expect(bytes).toHaveLength(Q4_0_BLOCK_BYTES);
  // fp16 1.0; zeros are 8; element 3 is 0 and element 19 is 15 in one byte; a half rounds up.
  expect([...bytes.subarray(0, 8)]).toEqual([0x00, 0x3c, 0x88, 0x88, 0x88, 0xf0, 0x89, 0x88]);
  expect(decodeQ4_0(bytes)[3]).toBe(-8);
  expect(decodeQ4_0(bytes)[19]).toBe(7);
});

test('decoding is within a step, and zeros stay zeros', () => {
  const rng = new Rng(4);
  const values = Float32Array.from({ length: 32 * 50 }, (_, i) => (i < 32 ? 0 : rng.normal()));
  const decoded = decodeQ4_0(encodeQ4_0(values));
  expect(decoded.subarray(0, 32).every((value) => value === 0)).toBe(true);
  for (let block = 1; block < 50; block++) {
    const own = values.subarray(block * 32, block * 32 + 32);
    const step = Math.max(...own.map(Math.abs)) / 8;
    for (let i = 0; i < 32; i++) {
      expect(Math.abs((decoded[block * 32 + i] as number) - (own[i] as number))).toBeLessThanOrEqual(step * 1.01);
    }
  }
});
