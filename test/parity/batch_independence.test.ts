/**
 * Promise P1 at its root: a row of an op's output has the same bits whatever rows are computed with it, on however many
 * threads, and attention the same bits however the sequence is chunked, batched and cut into blocks.
 */
import { describe, expect, test } from 'vitest';
import type { OpRun } from '../../src/backends/backend.ts';
import { Rng } from '../../src/base/rng.ts';
import type { StepInputs } from '../../src/ops/define_op.ts';
import { OP_NAMES, opByName } from '../../src/ops/index.ts';
import { allTargets, type Target } from './backends.ts';
import { makeRun, type Sizes, storageOf } from './op_inputs.ts';

/** Ops that compute rows of T alone, with sizes that cross the kernels' tile borders. */
const ROW_OPS: Readonly<Record<string, readonly Sizes[]>> = {
  rms_norm: [{ T: 70, K: 97, D: 97, eps: 1e-6 }],
  linear: [
    { T: 70, K: 515, N: 33, bias: 1 },
    { T: 13, K: 64, N: 130, bias: 0 },
    { T: 101, K: 1030, N: 18, bias: 0 },
  ],
  rope: [{ T: 21, K: 96, P: 31, headDim: 48, rotaryDim: 48, interleaved: 0 }],
  add: [{ T: 21, D: 97 }],
  silu_mul: [{ T: 21, I: 97 }],
  add_rms_norm: [{ T: 70, D: 97, eps: 1e-6 }],
  linear_silu_mul: [
    { T: 70, K: 515, I: 33, gateBias: 1, upBias: 0 },
    { T: 101, K: 1030, I: 18, gateBias: 0, upBias: 0 },
  ],
};

/** The same call with only the rows from..to of everything that has T rows. */
function rowsOf(run: OpRun, from: number, to: number): OpRun {
  const op = opByName(run.op);
  const specs = Object.values(op.inputs);
  const cut = (shape: readonly number[] | null | undefined) => (shape ? [to - from, ...shape.slice(1)] : null);
  const inputs = run.inputs.map((data, i) => {
    if (data === null || specs[i]?.dims[0] !== 'T') return data;
    const width = data.length / run.sizes.T;
    return data.slice(from * width, to * width);
  });
  return {
    ...run,
    sizes: { ...run.sizes, T: to - from },
    inputs,
    inputShapes: run.inputShapes.map((shape, i) => (specs[i]?.dims[0] === 'T' ? cut(shape) : shape)),
    outputShapes: run.outputShapes.map((shape) => cut(shape) as number[]),
  };
}

function bits(data: Float32Array | undefined): Int32Array {
  const copy = (data as Float32Array).slice();
  return new Int32Array(copy.buffer);
}

function firstOutput(target: Target, run: OpRun, threads = 2): Int32Array {
  return bits(target.backend.runOp({ ...run, isa: target.isa, threads }).outputs[0]);
}

describe.each(allTargets)('$name', (target) => {
  for (const [name, cases] of Object.entries(ROW_OPS)) {
    const op = opByName(name);
    for (const [key, sizes] of Object.keys(op.tolerance).flatMap((key) =>
      cases.map((sizes) => [key, sizes] as const),
    )) {
      test(`${name} ${key} ${JSON.stringify(sizes)}: any rows together, any threads`, () => {
        const run = makeRun(op, sizes, storageOf(op, key), 7);
        const all = firstOutput(target, run);
        const rng = new Rng(7);
        const T = run.sizes.T;
        const width = all.length / T;
        const spans = [
          ...Array.from({ length: Math.min(T, 9) }, (_, i) => [i, i + 1] as const),
          ...Array.from({ length: 12 }, () => {
            const from = rng.int(0, T - 1);
            return [from, rng.int(from + 1, T)] as const;
          }),
        ];
        for (const [from, to] of spans) {
          const part = firstOutput(target, rowsOf(run, from, to), 1);
          expect(part, `rows ${from} to ${to}`).toEqual(all.slice(from * width, to * width));
        }
        for (const threads of [1, 3, 5]) expect(firstOutput(target, run, threads), `${threads} threads`).toEqual(all);
      });
    }
  }

  const attention = opByName('paged_attention');
  const base = { heads: 6, kvHeads: 2, headDim: 40, Q: 240, KV: 80, scale: 0.158, layer: 0 };
  const cases: readonly Sizes[] = [
    { ...base, T: 29, S: 4, context: 61, window: 0, softcap: 0, blockSize: 16 },
    { ...base, T: 29, S: 3, context: 61, window: 19, softcap: 4, blockSize: 16 },
    { ...base, T: 40, S: 1, context: 300, window: 0, softcap: 0, blockSize: 16 },
    // Long enough to be cut by splits when several threads share it.
    { ...base, T: 9, S: 2, context: 1300, window: 0, softcap: 0, blockSize: 16, sinks: 1, slopes: 1 },
  ];
  for (const [key, sizes] of Object.keys(attention.tolerance).flatMap((key) => cases.map((c) => [key, c] as const))) {
    test(`paged_attention ${key} ${JSON.stringify(sizes)}: any batch, chunk, block size, threads`, () => {
      const run = makeRun(attention, sizes, storageOf(attention, key), 11);
      const all = firstOutput(target, run);
      for (const threads of [1, 3]) expect(firstOutput(target, run, threads)).toEqual(all);
      for (const blockSize of [8, 32]) expect(firstOutput(target, reblocked(run, blockSize))).toEqual(all);
      const { queryStarts } = (run.kv as NonNullable<OpRun['kv']>).step;
      const rng = new Rng(11);
      for (let s = 0; s < run.sizes.S; s++) {
        const [first, end] = [queryStarts[s] as number, queryStarts[s + 1] as number];
        const middle = rng.int(first, end - 1);
        for (const [from, to] of [
          [first, end],
          [first, first + 1],
          [middle, end],
          [end - 1, end],
        ] as const) {
          const part = firstOutput(target, chunkOf(run, s, from, to), 1);
          const width = all.length / run.sizes.T;
          expect(part, `sequence ${s}, tokens ${from} to ${to}`).toEqual(all.slice(from * width, to * width));
        }
      }
    });
  }

  test.each([
    ['kv_write', 1],
    ['rope_kv_write', 1],
    ['rope_kv_write', 2],
  ] as const)('%s case %i stores the same bits alone as together', (name, index) => {
    const op = opByName(name);
    const slots = Object.keys(op.inputs).indexOf('slotMapping');
    for (const key of Object.keys(op.tolerance)) {
      const run = makeRun(op, op.cases[index] as Sizes, storageOf(op, key), 3);
      const all = target.backend.runOp({ ...run, isa: target.isa });
      let kv = run.kv as NonNullable<OpRun['kv']>;
      for (let t = 0; t < run.sizes.T; t++) {
        const part = rowsOf({ ...run, kv }, t, t + 1);
        const step = { ...kv.step, sizes: part.sizes, slotMapping: part.inputs[slots] as Int32Array };
        const result = target.backend.runOp({ ...part, kv: { ...kv, step }, isa: target.isa });
        kv = { ...kv, ...(result.kv as NonNullable<typeof result.kv>) };
        for (const [i, output] of result.outputs.entries()) {
          const whole = all.outputs[i] as Float32Array;
          expect(bits(output)).toEqual(bits(whole.subarray(t * output.length, (t + 1) * output.length)));
        }
      }
      expect(bits(kv.keys)).toEqual(bits(all.kv?.keys));
      expect(bits(kv.values)).toEqual(bits(all.kv?.values));
    }
  });
});

/** Only tokens from..to of sequence `s`, as if the later ones had not come yet. */
function chunkOf(run: OpRun, s: number, from: number, to: number): OpRun {
  const kv = run.kv as NonNullable<OpRun['kv']>;
  const { step } = kv;
  const T = to - from;
  const part = rowsOf(run, from, to);
  const sizes = { T, S: 1, R: 1 };
  const chunk: StepInputs = {
    ...step,
    sizes,
    positions: step.positions.slice(from, to),
    slotMapping: step.slotMapping.slice(from, to),
    queryStarts: Int32Array.of(0, T),
    seqLens: Int32Array.of((step.positions[to - 1] as number) + 1),
    blockTables: step.blockTables.slice(s * step.maxBlocksPerSeq, (s + 1) * step.maxBlocksPerSeq),
  };
  return { ...part, sizes, kv: { ...kv, step: chunk } };
}

/** The same sequences in blocks of another size, laid out one after the other. */
function reblocked(run: OpRun, blockSize: number): OpRun {
  const kv = run.kv as NonNullable<OpRun['kv']>;
  const { step } = kv;
  const width = kv.kvHeads * kv.headDim;
  const maxBlocksPerSeq = Math.ceil((step.maxBlocksPerSeq * kv.blockSize) / blockSize);
  const blockTables = Int32Array.from({ length: step.sizes.S * maxBlocksPerSeq }, (_, i) => i);
  const keys = new Float32Array(blockTables.length * blockSize * width).fill(Number.NaN);
  const values = keys.slice();
  for (let s = 0; s < step.sizes.S; s++) {
    for (let p = 0; p < (step.seqLens[s] as number); p++) {
      const block = step.blockTables[s * step.maxBlocksPerSeq + Math.floor(p / kv.blockSize)] as number;
      const from = (block * kv.blockSize + (p % kv.blockSize)) * width;
      const to = (s * maxBlocksPerSeq * blockSize + p) * width;
      keys.set(kv.keys.subarray(from, from + width), to);
      values.set(kv.values.subarray(from, from + width), to);
    }
  }
  return { ...run, kv: { ...kv, blockSize, keys, values, step: { ...step, blockTables, maxBlocksPerSeq } } };
}

test('every op is covered here or trivially independent of its rows', () => {
  const copies = ['embedding', 'gather_rows'];
  const covered = [...Object.keys(ROW_OPS), 'paged_attention', 'kv_write', 'rope_kv_write', ...copies];
  expect([...OP_NAMES].sort()).toEqual(covered.sort());
});
