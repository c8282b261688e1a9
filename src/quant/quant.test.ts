import { expect, test } from 'vitest';
import { Rng } from '../base/rng.ts';
import { bfloat16Bits, bfloat16Value, decodeElements, float16Bits, float16Value, roundTo } from './dtypes.ts';
import {
  ACTIVATION_GROUP,
  decodeInt8,
  encodeActivations,
  encodeInt8,
  encodeInt8Weight,
  int8Linear,
} from './int8_channel.ts';

test('every half survives a round trip', () => {
  for (let half = 0; half < 65536; half++) {
    const [f16, bf16] = [float16Value(half), bfloat16Value(half)];
    if (Number.isNaN(f16)) expect(Number.isNaN(float16Value(float16Bits(f16)))).toBe(true);
    else if (float16Bits(f16) !== half) throw new Error(`float16 ${half.toString(16)}`);
    if (Number.isNaN(bf16)) expect(Number.isNaN(bfloat16Value(bfloat16Bits(bf16)))).toBe(true);
    else if (bfloat16Bits(bf16) !== half) throw new Error(`bfloat16 ${half.toString(16)}`);
  }
});

test('rounding goes to the nearer neighbour, and to the even one from the middle', () => {
  for (const [encode, decode] of [
    [float16Bits, float16Value],
    [bfloat16Bits, bfloat16Value],
  ] as const) {
    // All neighbours below infinity and above zero, both signs' bits alike; the middle of two is exact in fp32.
    for (let low = 1; low < 0x7bff; low += 7) {
      const middle = (decode(low) + decode(low + 1)) / 2;
      if (Math.fround(middle) !== middle) continue;
      expect(encode(middle)).toBe(low % 2 === 0 ? low : low + 1);
      expect(encode(-decode(low))).toBe(low | 0x8000);
    }
  }
  expect(float16Bits(65519.99)).toBe(0x7bff);
  expect(float16Bits(65520)).toBe(0x7c00);
  expect(float16Bits(2 ** -25)).toBe(0);
  expect(float16Bits(-(2 ** -26) * 3)).toBe(0x8001);
});

test('elements of every type decode', () => {
  const bytes = (view: ArrayBufferView<ArrayBuffer>) => new Uint8Array(view.buffer);
  expect([...decodeElements('I64', bytes(BigInt64Array.of(-3n, 5n)))]).toEqual([-3, 5]);
  expect([...decodeElements('F64', bytes(Float64Array.of(0.5, 2)))]).toEqual([0.5, 2]);
  expect([...decodeElements('BF16', bytes(Uint16Array.of(0x3f80, 0xc000)))]).toEqual([1, -2]);
  expect([...decodeElements('F16', bytes(Uint16Array.of(0x3c00, 0xc000)))]).toEqual([1, -2]);
  expect([...decodeElements('I8', bytes(Int8Array.of(-1, 2)))]).toEqual([-1, 2]);
  expect(() => decodeElements('F4', new Uint8Array(1))).toThrow('F4');
});

test('int8 rows: error at most half a step, extremes exact, zeros stay zero', () => {
  const rng = new Rng(3);
  const width = 33;
  const matrix = Float32Array.from({ length: 5 * width }, () => rng.normal());
  matrix.fill(0, width, 2 * width);
  const rows = encodeInt8(matrix, width);
  const back = decodeInt8(rows);
  for (let i = 0; i < matrix.length; i++) {
    const step = rows.scales[Math.floor(i / width)] as number;
    expect(Math.abs(back[i]! - matrix[i]!)).toBeLessThanOrEqual(step * 0.5001);
  }
  expect(rows.scales[1]).toBe(1);
  expect(Math.max(...rows.values.subarray(0, width).map(Math.abs))).toBe(127);
});

test('an int8 linear is the product of the decoded factors', () => {
  const rng = new Rng(4);
  const [T, K, N] = [3, 2 * ACTIVATION_GROUP + 40, 7];
  const x = Float32Array.from({ length: T * K }, () => rng.normal());
  const weight = encodeInt8Weight(
    Float32Array.from({ length: N * K }, () => rng.normal() / 16),
    K,
  );
  const P = weight.width;
  const bias = Float32Array.from({ length: N }, () => rng.normal());
  const y = new Float32Array(T * N);
  int8Linear(x, weight, bias, y);
  const [xs, ws] = [decodeInt8(encodeActivations(x, K)), decodeInt8(weight)];
  for (let t = 0; t < T; t++) {
    for (let n = 0; n < N; n++) {
      let sum = bias[n]!;
      for (let k = 0; k < P; k++) sum += xs[t * P + k]! * ws[n * P + k]!;
      expect(y[t * N + n]).toBeCloseTo(sum, 5);
    }
  }
});

test('a large element of x makes the step coarse for its own group alone', () => {
  const rng = new Rng(5);
  const K = 3 * ACTIVATION_GROUP;
  const x = Float32Array.from({ length: K }, () => rng.normal());
  x[ACTIVATION_GROUP + 7] = 1000;
  const { scales } = encodeInt8(x, K, ACTIVATION_GROUP);
  expect(scales[1]).toBeCloseTo(1000 / 127, 5);
  for (const group of [0, 2]) expect(scales[group]).toBeLessThan(5 / 127);
});

test('roundTo keeps fp32 and rounds the others', () => {
  const values = Float32Array.of(1.00390625, 1 / 3);
  expect([...roundTo('float32', values.slice())]).toEqual([...values]);
  expect([...roundTo('bfloat16', values.slice())]).toEqual([1, 0.333984375]);
  expect(roundTo('float16', values.slice())[1]).toBe(0.333251953125);
});
