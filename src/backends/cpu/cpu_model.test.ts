import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { AssertionError } from '../../base/assert.ts';
import { Rng } from '../../base/rng.ts';
import type { StepInputs } from '../../ops/define_op.ts';
import { createProgramBuilder } from '../../program/builder.ts';
import type { Program } from '../../program/program.ts';
import type { LoadedModel, LoadOptions, TensorSource } from '../backend.ts';
import { ReferenceLogitRows } from '../reference/logit_rows.ts';
import { createCpuBackend } from './cpu_backend.ts';

const HIDDEN = 48;
const VOCAB = 61;
const HEADS = { heads: 6, kvHeads: 2, headDim: 8 };
const KV_WIDTH = HEADS.kvHeads * HEADS.headDim;
const MAX_LENGTH = 96;

/** One decoder layer, small but with every op. */
function smallProgram(): Program {
  const b = createProgramBuilder();
  const linear = (x: number, name: string, outputs: number, inputs: number) =>
    b.linear({ x, weight: b.weight({ name, role: 'linear', shape: [outputs, inputs] }), name: `${name}.y` });
  const norm = (x: number, name: string) =>
    b.rmsNorm({ x, weight: b.weight({ name, role: 'vector', shape: [HIDDEN] }), eps: 1e-5, name: `${name}.y` });
  const x = b.embedding({ weight: b.weight({ name: 'embed', role: 'embedding', shape: [VOCAB, HIDDEN] }) });
  const angles = Float32Array.from({ length: MAX_LENGTH * 8 }, (_, i) => Math.cos((i >> 3) / 10 + (i & 7)));
  const rotation = {
    table: b.table('angles', [MAX_LENGTH, 8], (begin, end) => angles.subarray(begin * 8, end * 8)),
    headDim: 8,
    rotaryDim: 8,
    interleaved: 0,
  };
  const h = norm(x, 'norm1');
  const q = b.rope({ x: linear(h, 'q', HIDDEN, HIDDEN), ...rotation });
  const k = b.rope({ x: linear(h, 'k', KV_WIDTH, HIDDEN), ...rotation });
  b.kvWrite({ k, v: linear(h, 'v', KV_WIDTH, HIDDEN), layer: 0 });
  const mixed = b.pagedAttention({ q, layer: 0, ...HEADS, scale: 0.35, window: 0, softcap: 0 });
  const middle = b.add({ a: x, b: linear(mixed, 'o', HIDDEN, HIDDEN) });
  const m = norm(middle, 'norm2');
  const hidden = b.siluMul({ gate: linear(m, 'gate', 80, HIDDEN), up: linear(m, 'up', 80, HIDDEN) });
  const out = b.add({ a: middle, b: linear(hidden, 'down', HIDDEN, 80) });
  const logits = linear(norm(b.gatherRows({ x: out }), 'norm3'), 'head', VOCAB, HIDDEN);
  return b.finish(logits, { layers: 1, kvHeads: HEADS.kvHeads, headDim: HEADS.headDim });
}

const program = smallProgram();
let folder: string;
let tensors: Map<string, TensorSource>;

/** A file of fp32 tensors, one after the other; `spoil` may write into them. */
function writeTensors(path: string, spoil: (name: string, data: Float32Array) => void = () => {}) {
  const rng = new Rng(1);
  const chunks: Float32Array[] = [];
  const sources = new Map<string, TensorSource>();
  let offset = 0;
  for (const { name, shape, computeRows } of program.weights) {
    if (computeRows !== undefined) continue;
    const data = Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, () => rng.normal() / 4);
    spoil(name, data);
    chunks.push(data);
    sources.set(name, { name, dtype: 'F32', shape, path, offset, byteLength: data.byteLength });
    offset += data.byteLength;
  }
  writeFileSync(path, Buffer.concat(chunks.map((chunk) => new Uint8Array(chunk.buffer))));
  return sources;
}

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'tokenmill-cpu-'));
  tensors = writeTensors(join(folder, 'weights.bin'));
});

afterAll(() => rmSync(folder, { recursive: true }));

const backend = createCpuBackend();

function load(options: Partial<LoadOptions> = {}): LoadedModel {
  return backend.load({
    program,
    tensors,
    weightDType: 'bfloat16',
    quantization: 'none',
    kvDType: 'bfloat16',
    blockSize: 16,
    numBlocks: 24,
    maxNumBatchedTokens: 128,
    maxNumSeqs: 8,
    maxLogitRows: 8,
    threads: 2,
    ...options,
  });
}

interface Chunk {
  readonly sequence: number;
  readonly from: number;
  readonly to: number;
}

const tokenAt = (sequence: number, position: number) => (sequence * 31 + position * 17 + 5) % VOCAB;

/** Chunks of several sequences as one step; sequence s owns the blocks from s * blocksEach, in descending order. */
function stepOf(chunks: readonly Chunk[], blockSize: number): StepInputs {
  const blocksEach = Math.ceil(MAX_LENGTH / blockSize);
  const block = (sequence: number, index: number) => (sequence + 1) * blocksEach - 1 - index;
  const tokens = chunks.flatMap(({ sequence, from, to }) =>
    Array.from({ length: to - from }, (_, i) => ({ sequence, position: from + i })),
  );
  const ends = [0];
  for (const { from, to } of chunks) ends.push((ends.at(-1) as number) + to - from);
  return {
    sizes: { T: tokens.length, S: chunks.length, R: chunks.length },
    tokenIds: Int32Array.from(tokens, ({ sequence, position }) => tokenAt(sequence, position)),
    positions: Int32Array.from(tokens, ({ position }) => position),
    slotMapping: Int32Array.from(
      tokens,
      ({ sequence, position }) =>
        block(sequence, Math.floor(position / blockSize)) * blockSize + (position % blockSize),
    ),
    queryStarts: Int32Array.from(ends),
    seqLens: Int32Array.from(chunks, ({ to }) => to),
    blockTables: Int32Array.from(
      chunks.flatMap((c) => Array.from({ length: blocksEach }, (_, i) => block(c.sequence, i))),
    ),
    maxBlocksPerSeq: blocksEach,
    logitRows: Int32Array.from(ends.slice(1), (end) => end - 1),
  };
}

function lastLogits(model: LoadedModel, steps: readonly (readonly Chunk[])[], blockSize: number): Int32Array {
  for (const chunks of steps) model.run(stepOf(chunks, blockSize));
  const row = (steps.at(-1) as readonly Chunk[]).findIndex(({ sequence }) => sequence === 0);
  return new Int32Array(model.logits.row(row).slice().buffer);
}

/** Ways to compute the first 70 tokens of sequence 0. */
const SCHEDULES: readonly (readonly (readonly Chunk[])[])[] = [
  [[{ sequence: 0, from: 0, to: 69 }], [{ sequence: 0, from: 69, to: 70 }]],
  [
    [
      { sequence: 1, from: 0, to: 13 },
      { sequence: 0, from: 0, to: 7 },
    ],
    [
      { sequence: 0, from: 7, to: 64 },
      { sequence: 1, from: 13, to: 14 },
      { sequence: 2, from: 0, to: 37 },
    ],
    [
      { sequence: 2, from: 37, to: 38 },
      { sequence: 0, from: 64, to: 70 },
    ],
  ],
  Array.from({ length: 70 }, (_, i) => [{ sequence: 0, from: i, to: i + 1 }]),
];

describe.each(['none', 'int8', 'int4_g64'] as const)('quantization %s', (quantization) => {
  test('logits have the same bits for any schedule, batch, block size and number of threads', () => {
    const alone = load({ quantization });
    const expected = lastLogits(alone, [[{ sequence: 0, from: 0, to: 70 }]], 16);
    alone.close();
    for (const [blockSize, threads] of [
      [16, 1],
      [32, 3],
      [8, 2],
    ] as const) {
      for (const schedule of SCHEDULES) {
        const model = load({ quantization, blockSize, threads, numBlocks: 3 * Math.ceil(MAX_LENGTH / blockSize) });
        expect(lastLogits(model, schedule, blockSize)).toEqual(expected);
        model.close();
      }
    }
  });
});

test('a step that breaks a rule throws, and the model still computes', () => {
  const model = load();
  const good = stepOf([{ sequence: 0, from: 0, to: 5 }], 16);
  const bad: Partial<Record<keyof StepInputs, unknown>>[] = [
    { tokenIds: Int32Array.of(0, 1, 2, 3, VOCAB) },
    { tokenIds: Int32Array.of(0, 1) },
    { tokenIds: new Float32Array(5) },
    { tokenIds: [0, 1, 2, 3, 4] },
    { positions: Int32Array.of(0, 1, 2, 3, MAX_LENGTH) },
    { slotMapping: Int32Array.of(0, 1, 2, 3, 24 * 16) },
    { queryStarts: Int32Array.of(0, 6) },
    { seqLens: Int32Array.of(96) },
    { blockTables: new Int32Array(6).fill(24) },
    { blockTables: new Int32Array(6).fill(-1) },
    { maxBlocksPerSeq: 0 },
    { maxBlocksPerSeq: 7 },
    { logitRows: Int32Array.of(5) },
    { sizes: { T: 0, S: 1, R: 1 } },
    { sizes: { T: 1e9, S: 1, R: 1 } },
    { sizes: { T: 5, S: Number.NaN, R: 1 } },
    { sizes: { T: 5, S: 1, R: 99 } },
  ];
  for (const change of bad) expect(() => model.run({ ...good, ...change } as StepInputs)).toThrow(AssertionError);
  expect(() => model.logits.argmax(8)).toThrow(AssertionError);
  expect(() => model.logits.rank(0, VOCAB)).toThrow(AssertionError);
  model.run(good);
  expect(Number.isFinite(model.logits.row(0)[0])).toBe(true);
  model.close();
});

test('trace hands out what run computes', () => {
  const model = load();
  const step = stepOf([{ sequence: 0, from: 0, to: 9 }], 16);
  model.run(step);
  const logits = model.logits.row(0).slice();
  const traced: (readonly Float32Array[])[] = [];
  model.trace(step, (_index, outputs) => traced.push(outputs));
  expect(traced.length).toBe(program.calls.length);
  expect(traced.at(-1)?.[0]).toEqual(logits);
  model.close();
});

test('logit rows agree with the reference on random rows', () => {
  const model = load();
  const row = model.logits.row(2);
  const rng = new Rng(4);
  for (let round = 0; round < 40; round++) {
    for (let i = 0; i < row.length; i++) row[i] = rng.int(0, 9) === 0 ? Number.NEGATIVE_INFINITY : rng.int(-20, 20) / 4;
    const reference = new ReferenceLogitRows(row.slice(), VOCAB);
    expect(model.logits.argmax(2)).toBe(reference.argmax(0));
    expect(model.logits.logSumExp(2)).toBeCloseTo(reference.logSumExp(0), 5);
    expect(model.logits.topK(2, 7)).toEqual(reference.topK(0, 7));
    const id = rng.int(0, VOCAB - 1);
    expect(model.logits.rank(2, id)).toBe(reference.rank(0, id));
    const params = {
      temperature: 0.5 + rng.next(),
      topK: rng.int(0, 20),
      topP: rng.next() + 0.01,
      minP: rng.next() / 4,
    };
    const draw = { ...params, topP: Math.min(1, params.topP), u: rng.next() };
    const before = row.slice();
    const sampled = model.logits.sample(2, draw);
    expect(row).toEqual(before);
    model.logits.process(2, draw);
    reference.process(0, draw);
    for (const [i, expected] of reference.row(0).entries()) {
      if (expected === Number.NEGATIVE_INFINITY) expect(row[i]).toBe(expected);
      else expect(Math.abs((row[i] as number) - expected)).toBeLessThan(1e-4);
    }
    expect(row[sampled]).toBeGreaterThan(Number.NEGATIVE_INFINITY);
  }
  model.close();
});

test('close takes the memory away at once and for good', () => {
  const model = load();
  const row = model.logits.row(0);
  expect(row.length).toBe(VOCAB);
  model.close();
  model.close();
  expect(row.length).toBe(0);
  expect(() => model.run(stepOf([{ sequence: 0, from: 0, to: 1 }], 16))).toThrow(AssertionError);
  expect(() => model.logits.argmax(0)).toThrow(AssertionError);
});

test('loading and closing many times leaves nothing behind', () => {
  const cycle = () => {
    const model = load({ numBlocks: 4096, maxNumBatchedTokens: 4096 });
    const chunk = { sequence: 0, from: 0, to: 90 };
    model.run(stepOf([chunk], 16));
    model.logits.row(0).fill(0);
    model.close();
  };
  for (let i = 0; i < 5; i++) cycle();
  const before = process.memoryUsage().rss;
  for (let i = 0; i < 60; i++) cycle();
  // Each cycle touches several MB.
  expect(process.memoryUsage().rss - before).toBeLessThan(64 * 2 ** 20);
});

describe('weight files', () => {
  const refusal = (options: Partial<LoadOptions>) => {
    try {
      load(options).close();
    } catch (error) {
      return error as { code: string; message: string };
    }
    return null;
  };

  test.each(['q', 'embed', 'norm1'])('NaN in %s is refused by name', (name) => {
    const path = join(folder, 'nan.bin');
    const spoiled = writeTensors(path, (tensor, data) => {
      if (tensor === name) data[data.length - 1] = Number.NaN;
    });
    expect(refusal({ tensors: spoiled })).toMatchObject({
      code: 'weights_invalid',
      message: expect.stringContaining(`Tensor ${name} holds NaN or infinity`),
    });
  });

  test('a truncated file is refused, also when it was cut after its header was read', () => {
    const path = join(folder, 'short.bin');
    const sources = writeTensors(path);
    truncateSync(path, 1000);
    expect(refusal({ tensors: sources })).toMatchObject({ code: 'model_files_invalid' });
  });

  test('a missing file and an element type without a kernel are refused', () => {
    const moved = new Map([...tensors].map(([name, t]) => [name, { ...t, path: join(folder, 'absent') }] as const));
    expect(refusal({ tensors: moved })).toMatchObject({ code: 'model_files_missing' });
    const other = new Map([...tensors].map(([name, t]) => [name, { ...t, dtype: 'F64' as const }] as const));
    expect(refusal({ tensors: other })).toMatchObject({ code: 'weights_invalid' });
  });

  test('a cache beyond what slots can number is refused', () => {
    expect(refusal({ numBlocks: 2 ** 31 })).toMatchObject({ message: expect.stringContaining('numBlocks') });
  });
});
