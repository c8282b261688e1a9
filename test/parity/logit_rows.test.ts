/** Row operations of the cpu backend against their definition, on random rows with ties, gaps and extremes. */
import { describe, expect, test } from 'vitest';
import type { DrawParams, LogitRows } from '../../src/backends/backend.ts';
import { ReferenceLogitRows } from '../../src/backends/reference/logit_rows.ts';
import { Rng } from '../../src/base/rng.ts';
import { loadModelConfig, recordProgram } from '../../src/models/index.ts';
import { readCheckpoint } from '../../src/weights/safetensors.ts';
import { cpuTargets, type Target } from './backends.ts';

const FOLDER = new URL('../golden/models/llama', import.meta.url).pathname;
const ROWS = 3;
const VOCAB = 512;

/** A model that has just run a step of three logit rows. */
function loadRows({ backend, isa }: Target): LogitRows {
  const model = backend.load({
    program: recordProgram(loadModelConfig(FOLDER), { maxModelLen: 16 }),
    tensors: readCheckpoint(FOLDER),
    weightDType: 'bfloat16',
    quantization: 'none',
    kvDType: 'bfloat16',
    blockSize: 16,
    numBlocks: 1,
    maxNumBatchedTokens: ROWS,
    maxNumSeqs: 1,
    maxLogitRows: ROWS,
    threads: 1,
    isa,
  });
  model.run({
    sizes: { T: ROWS, S: 1, R: ROWS },
    tokenIds: Int32Array.of(1, 2, 3),
    positions: Int32Array.of(0, 1, 2),
    slotMapping: Int32Array.of(0, 1, 2),
    queryStarts: Int32Array.of(0, ROWS),
    seqLens: Int32Array.of(ROWS),
    blockTables: Int32Array.of(0),
    maxBlocksPerSeq: 1,
    logitRows: Int32Array.of(0, 1, 2),
  });
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
