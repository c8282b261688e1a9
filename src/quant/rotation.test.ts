import { expect, test } from 'vitest';
import { Rng } from '../base/rng.ts';
import { rotatedWidth, rotateRows, rotateWeights } from './rotation.ts';

const normals = (count: number, seed: number) => {
  const rng = new Rng(seed);
  return Float32Array.from({ length: count }, () => rng.normal());
};

test.each([1, 64, 96, 100, 192, 576, 1024])('products of rows of %i stay what they were', (width) => {
  const [x, w] = [normals(3 * width, width), normals(2 * width, width + 1)];
  const padded = rotatedWidth(width);
  const [rx, rw] = [rotateRows(x, width), rotateWeights(w, width)];
  expect(rx).toHaveLength(3 * padded);
  const dot = (a: Float32Array, b: Float32Array, n: number, i: number, j: number) =>
    a.subarray(i * n, (i + 1) * n).reduce((sum, value, k) => sum + value * (b[j * n + k] as number), 0);
  for (const i of [0, 1, 2]) {
    for (const j of [0, 1]) expect(dot(rx, rw, padded, i, j)).toBeCloseTo(dot(x, w, width, i, j), 3);
  }
});

test('a single large element is spread over its block', () => {
  const x = new Float32Array(192);
  x[64 + 35] = 8;
  for (const [i, value] of rotateRows(x, 192).entries()) expect(Math.abs(value)).toBe(i >= 64 && i < 128 ? 8 : 0);
});

test('rotating a rotated weight as rows are gives the weight', () => {
  const w = normals(2 * 128, 9);
  for (const [i, value] of rotateRows(rotateWeights(w, 128), 128).entries())
    expect(value).toBeCloseTo(w[i] as number, 5);
});
