/**
 * Packing a 4-bit weight gives the integers of its definition. Where x is a row of the rotation's matrix, the rotated x has one
 * element and y is one weight, exact but for the last rounding: so every weight can be read out of a linear.
 */
import { describe, expect, test } from 'vitest';
import type { OpRun, Quantization } from '../../src/backends/backend.ts';
import { Rng } from '../../src/base/rng.ts';
import { opByName } from '../../src/ops/index.ts';
import { cpuTargets, reference } from './backends.ts';
import { makeRun, storageOf } from './op_inputs.ts';

const BLOCK = 64;
const [T, K, N] = [3 * BLOCK, 3 * BLOCK, 21];

/** The sign of element a, b of a Hadamard matrix. */
function sign(a: number, b: number): number {
  let negative = 0;
  for (let both = a & b; both > 0; both &= both - 1) negative ^= 1;
  return negative ? -1 : 1;
}

const readers = Float32Array.from({ length: T * K }, (_, i) => {
  const [row, k] = [Math.floor(i / K), i % K];
  return Math.floor(row / BLOCK) === Math.floor(k / BLOCK) ? sign(row % BLOCK, k % BLOCK) : 0;
});

/** Rows that test an end each: constant, zero, tiny, huge, of one sign, sparse, and of uneven groups. */
function weights(): Float32Array {
  const rng = new Rng(9);
  const rows: ((k: number) => number)[] = [
    () => 0.5,
    () => -3,
    () => 0,
    (k) => 1e-44 * (k % 5),
    () => 1e-38 * rng.normal(),
    (k) => 3e38 * (k % 2 ? 1 : -1),
    () => 1 + 0.1 * rng.normal(),
    (k) => (k % 50 === 7 ? 100 : 0),
    (k) => 10 ** -(k >> 4) * rng.normal(),
  ];
  return Float32Array.from({ length: N * K }, (_, i) => (rows[Math.floor(i / K)] ?? (() => rng.normal()))(i % K));
}

function linearOf(quantization: Quantization): OpRun {
  const run = makeRun(opByName('linear'), { T, K, N, bias: 0 }, storageOf(opByName('linear'), quantization), 1);
  return { ...run, inputs: [readers, weights(), null] };
}

const bits = (data: Float32Array | undefined) => new Int32Array((data as Float32Array).slice().buffer);

describe.each(cpuTargets)('$name', (target) => {
  test.each(['int4_g32', 'int4_g64', 'int4_g128'] as const)('%s', (quantization) => {
    const run = linearOf(quantization);
    const expected = bits(reference.runOp(run).outputs[0]);
    // Of at most 16 values a group, in 21 rows of at least two groups.
    expect(new Set(expected).size).toBeGreaterThan(300);
    expect(bits(target.backend.runOp({ ...run, isa: target.isa }).outputs[0])).toEqual(expected);
  });
});
