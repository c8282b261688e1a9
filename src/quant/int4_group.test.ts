import { expect, test } from 'vitest';
import { QUANTIZATIONS, quantizedBytes, storedAs } from '../base/quantization.ts';
import { Rng } from '../base/rng.ts';
import { decodeInt4Groups, encodeInt4Groups, encodeInt4Weight, int4Linear } from './int4_group.ts';
import { decodeInt8, encodeActivations } from './int8_channel.ts';

const normals = (count: number, seed: number) => {
  const rng = new Rng(seed);
  return Float32Array.from({ length: count }, () => rng.normal() * 0.02);
};

function relativeError(actual: Float32Array, expected: Float32Array): number {
  let [error, size] = [0, 0];
  for (const [i, x] of expected.entries()) {
    error += ((actual[i] as number) - x) ** 2;
    size += x * x;
  }
  return Math.sqrt(error / size);
}

test.each([
  [32, 0.0737],
  [64, 0.086],
  [128, 0.0965],
])('groups of %i of normal weights lose at most %d of their size', (group, most) => {
  const matrix = normals(64 * 1024, group);
  const back = decodeInt4Groups(encodeInt4Groups(matrix, 1024, group));
  expect(relativeError(back, matrix)).toBeLessThan(most);
});

test('the line fitted to a group is better than its range in 15 steps', () => {
  const matrix = normals(32 * 200, 5);
  const back = decodeInt4Groups(encodeInt4Groups(matrix, 32, 32));
  const plain = Float32Array.from(matrix, (w, i) => {
    const own = matrix.subarray(Math.floor(i / 32) * 32, Math.floor(i / 32) * 32 + 32);
    const [low, high] = [Math.min(...own), Math.max(...own)];
    return low + (Math.round(((w - low) * 15) / (high - low)) * (high - low)) / 15;
  });
  expect(relativeError(back, matrix)).toBeLessThan(relativeError(plain, matrix));
});

test('groups of very different size in a row lose no more than equal ones', () => {
  const matrix = normals(64 * 1024, 7).map((w, i) => w * 3 ** -((i % 1024) >> 5));
  const back = decodeInt4Groups(encodeInt4Groups(matrix, 1024, 32));
  expect(relativeError(back, matrix)).toBeLessThan(0.0737);
});

test('symmetric groups and those of one sign fit their minimum', () => {
  for (const offset of [0, 1, -1]) {
    const matrix = Float32Array.from({ length: 32 }, (_, i) => ((i % 16) - 7.5) / 8 + offset);
    const encoded = encodeInt4Groups(matrix, 32, 32);
    expect(relativeError(decodeInt4Groups(encoded), matrix)).toBeLessThan(0.01);
    expect([...encoded.quotients]).toEqual(Array.from({ length: 32 }, (_, i) => i % 16));
  }
});

test('constants, zeros, a last group that is shorter, and values near the ends of fp32', () => {
  const width = 40;
  const matrix = new Float32Array(6 * width);
  matrix.fill(0.5, 0, width);
  for (let i = 0; i < width; i++) matrix[2 * width + i] = i;
  matrix.set(Float32Array.of(1e-44, 3e-44), 3 * width);
  for (let i = 0; i < width; i++) matrix[4 * width + i] = 3e38 * (i % 2 ? 1 : -1);
  matrix.fill(-3e38, 5 * width);
  const encoded = encodeInt4Groups(matrix, width, 32);
  const back = decodeInt4Groups(encoded);
  // A constant is its group's minimum, an 8-bit step times the row's fp32 unit, which rounds.
  for (let i = 0; i < 2 * width; i++) expect(back[i]).toBeCloseTo(matrix[i] as number, 6);
  for (let i = 2 * width; i < 3 * width; i++)
    expect(Math.abs((back[i] as number) - (matrix[i] as number))).toBeLessThan(1.2);
  for (let i = 3 * width; i < 4 * width; i++) expect(Math.abs(back[i] as number)).toBeLessThan(1e-43);
  for (let i = 4 * width; i < 6 * width; i++) expect((back[i] as number) / (matrix[i] as number)).toBeCloseTo(1, 1);
  expect(Math.max(...encoded.quotients)).toBeLessThanOrEqual(15);
  expect([...encoded.units].every((unit) => unit > 0 && Number.isFinite(unit))).toBe(true);
});

test('a 4-bit linear is the product of the decoded factors', () => {
  const [T, K, N] = [3, 600, 7];
  const x = normals(T * K, 1);
  const weight = encodeInt4Weight(normals(N * K, 2), K, 32);
  const P = weight.width;
  const bias = normals(N, 3);
  const y = new Float32Array(T * N);
  int4Linear(x, weight, bias, y);
  const [xs, ws] = [decodeInt8(encodeActivations(x, K)), decodeInt4Groups(weight)];
  for (let t = 0; t < T; t++) {
    for (let n = 0; n < N; n++) {
      let sum = bias[n] as number;
      for (let k = 0; k < P; k++) sum += (xs[t * P + k] as number) * (ws[n * P + k] as number);
      expect(y[t * N + n]).toBeCloseTo(sum, 7);
    }
  }
});

test('bits a weight, and int8 for the logits of every quantised model', () => {
  const bits = Object.fromEntries(
    QUANTIZATIONS.filter((name) => name !== 'none').map((name) => [
      name,
      (8 * quantizedBytes(name, 2 ** 20, 0)) / 2 ** 20,
    ]),
  );
  expect(bits).toEqual({ int8: 8, int4_g32: 4.5, int4_g64: 4.25, int4_g128: 4.125 });
  expect(QUANTIZATIONS.map((name) => storedAs(name, true))).toEqual([null, 'int8', 'int8', 'int8', 'int8']);
});
