/** Row operations of the cpu backend against their definition, on random rows with ties, gaps and extremes. */
import { describe, expect, test } from 'vitest';
import type { DrawParams, LoadedModel, LogitRows } from '../../src/backends/backend.ts';
import { drawRows, ReferenceLogitRows } from '../../src/backends/reference/logit_rows.ts';
import { AssertionError } from '../../src/base/assert.ts';
import { Rng } from '../../src/base/rng.ts';
import { loadModelConfig, recordProgram } from '../../src/models/index.ts';
import type { StepInputs } from '../../src/ops/define_op.ts';
import { readCheckpoint } from '../../src/weights/safetensors.ts';
import { cpuTargets, type Target } from './backends.ts';

const FOLDER = new URL('../golden/models/llama', import.meta.url).pathname;
const ROWS = 3;
const VOCAB = 512;

/** Some tokens of one sequence, all of them with a logit row. */
function stepOf(tokens: number, first: number): StepInputs {
  const upTo = Int32Array.from({ length: tokens }, (_, i) => i);
  return {
    sizes: { T: tokens, S: 1, R: tokens },
    tokenIds: upTo.map((i) => (first + 7 * i) % VOCAB),
    positions: upTo,
    slotMapping: upTo,
    queryStarts: Int32Array.of(0, tokens),
    seqLens: Int32Array.of(tokens),
    blockTables: Int32Array.from({ length: Math.ceil(tokens / 16) }, (_, i) => i),
    maxBlocksPerSeq: Math.ceil(tokens / 16),
    logitRows: upTo,
  };
}

function loadModel({ backend, isa }: Target, tokens: number, threads: number): LoadedModel {
  return backend.load({
    program: recordProgram(loadModelConfig(FOLDER), { maxModelLen: 512 }),
    tensors: readCheckpoint(FOLDER),
    weightDType: 'bfloat16',
    quantization: 'none',
    kvDType: 'bfloat16',
    blockSize: 16,
    numBlocks: Math.ceil(tokens / 16),
    maxNumBatchedTokens: tokens,
    maxNumSeqs: 1,
    maxLogitRows: tokens,
    threads,
    isa,
  });
}

/** Of a model that has just run a step of three logit rows. */
function loadRows(target: Target): LogitRows {
  const model = loadModel(target, ROWS, 1);
  model.run(stepOf(ROWS, 1));
  return model.logits;
}

const KINDS: Readonly<Record<string, (rng: Rng) => number>> = {
  normal: (rng) => rng.normal() * 3,
  ties: (rng) => rng.int(-3, 3),
  masked: (rng) => (rng.next() < 0.9 ? -Infinity : rng.normal()),
  extreme: (rng) => rng.normal() * 1e4,
  flat: () => 0.25,
};

function randomParams(rng: Rng): DrawParams {
  return {
    temperature: rng.pick([1, 0.7, 0.003, 2]),
    topK: rng.pick([0, 1, 5, 50, VOCAB, VOCAB + 9]),
    topP: rng.pick([1, 0.95, 0.5, 1e-4]),
    minP: rng.pick([0, 0.01, 0.3, 1]),
    u: rng.next(),
  };
}

describe.each(cpuTargets)('$name', (target) => {
  test.each([
    [1, 1],
    [3, 2],
    [200, 3],
  ])('tokens drawn within a run, from %i rows by %i threads, are what each row gives alone', (tokens, threads) => {
    const model = loadModel(target, tokens, threads);
    const rng = new Rng(6);
    const [rows, tokenIds] = [new Int32Array(tokens), new Int32Array(tokens + 1).fill(-7)];
    const draws = { count: 0, rows, numbers: new Float64Array(5 * tokens), tokenIds };
    const step = stepOf(tokens, 1);
    // The same arrays, of a step that the model knows, then of another.
    for (const given of [step, step, stepOf(tokens, 5)]) {
      given.tokenIds[0] = rng.int(0, VOCAB - 1);
      draws.count = rng.int(1, tokens);
      for (let i = 0; i < draws.count; i++) {
        const { temperature, topK, topP, minP, u } = randomParams(rng);
        rows[i] = rng.int(0, tokens - 1);
        draws.numbers.set([rng.pick([0, temperature]), topK, topP, minP, u], 5 * i);
      }
      model.run(given, draws);
      const alone = { ...draws, tokenIds: new Int32Array(tokens) };
      drawRows(model.logits, alone);
      expect(tokenIds.subarray(0, draws.count)).toEqual(alone.tokenIds.subarray(0, draws.count));
      expect(tokenIds[tokens]).toBe(-7);
    }
    draws.count = tokens + 1;
    expect(() => model.run(step, draws)).toThrow(AssertionError);
    draws.count = 1;
    rows[0] = tokens;
    expect(() => model.run(step, draws)).toThrow(AssertionError);
    model.close();
  });

  const rows = loadRows(target);
  const reference = new ReferenceLogitRows(new Float32Array(ROWS * VOCAB), VOCAB);

  /** Both sides get the same row; returns its number. */
  function fill(rng: Rng, kind: string): number {
    const r = rng.int(0, ROWS - 1);
    const data = Float32Array.from({ length: VOCAB }, () => (KINDS[kind] as (rng: Rng) => number)(rng));
    // At least one token is left.
    data[rng.int(0, VOCAB - 1)] = 1;
    rows.row(r).set(data);
    reference.row(r).set(data);
    return r;
  }

  test.each(Object.keys(KINDS))('%s', (kind) => {
    for (let seed = 0; seed < 60; seed++) {
      const rng = new Rng(seed);
      const r = fill(rng, kind);
      const label = `seed ${seed}`;
      expect(rows.argmax(r), label).toBe(reference.argmax(r));
      // The cpu backend's exp is fp32, two units in the last place off; its sum fp64. 1e-9 would ask for an fp64 exp, ten times the time.
      expect(Math.abs(rows.logSumExp(r) - reference.logSumExp(r)), label).toBeLessThan(2e-7);
      const id = rng.int(0, VOCAB - 1);
      expect(rows.rank(r, id), label).toBe(reference.rank(r, id));
      for (const k of [1, 7, VOCAB]) expect(rows.topK(r, k), label).toEqual(reference.topK(r, k));
      const params = randomParams(rng);
      expect(rows.sample(r, params), `${label} ${JSON.stringify(params)}`).toBe(reference.sample(r, params));
      rows.process(r, params);
      reference.process(r, params);
      for (let i = 0; i < VOCAB; i++) {
        const [actual, expected] = [rows.row(r)[i] as number, reference.row(r)[i] as number];
        const close = actual === expected || Math.abs(actual - expected) <= 1e-6 * Math.max(1, Math.abs(expected));
        expect(close, `${label} id ${i}: ${actual}, expected ${expected}, ${JSON.stringify(params)}`).toBe(true);
      }
    }
  });
});
