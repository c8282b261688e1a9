/** The fused program computes the bits of the recorded one, on every backend and ISA level. */
import { describe, expect, test } from 'vitest';
import type { LoadOptions } from '../../src/backends/backend.ts';
import { Rng } from '../../src/base/rng.ts';
import { loadModelConfig, recordProgram } from '../../src/models/index.ts';
import type { StepInputs } from '../../src/ops/define_op.ts';
import { fuseProgram } from '../../src/program/fuse.ts';
import type { Program } from '../../src/program/program.ts';
import { readCheckpoint } from '../../src/weights/safetensors.ts';
import { goldenFolder } from '../golden/folders.ts';
import { allTargets, type Target } from './backends.ts';
import { makeStep } from './op_inputs.ts';

const VOCAB = 512;
const CONTEXT = 40;

/** A chunk of three sequences, then a token of each of two, over a cache that the chunks before left empty. */
function makeSteps(): StepInputs[] {
  const rng = new Rng(5);
  return [
    { T: 37, S: 3, R: 2 },
    { T: 2, S: 2, R: 2 },
    { T: 1, S: 1, R: 0 },
  ].map((sizes) => ({
    ...makeStep(rng, sizes, { context: CONTEXT, blockSize: 16 }),
    tokenIds: Int32Array.from({ length: sizes.T }, () => rng.int(0, VOCAB - 1)),
  }));
}

function logitsOf(target: Target, program: Program, folder: string, how: Partial<LoadOptions>): Int32Array[] {
  const model = target.backend.load({
    program,
    tensors: readCheckpoint(folder),
    weightDType: 'bfloat16',
    quantization: 'none',
    kvDType: 'bfloat16',
    blockSize: 16,
    numBlocks: 64,
    maxNumBatchedTokens: CONTEXT,
    maxNumSeqs: 4,
    maxLogitRows: 4,
    threads: 3,
    isa: target.isa,
    ...how,
  });
  try {
    return makeSteps().flatMap((step) => {
      model.run(step);
      return Array.from({ length: step.sizes.R }, (_, r) => new Int32Array(model.logits.row(r).slice().buffer));
    });
  } finally {
    model.close();
  }
}

describe.each(allTargets)('$name', (target) => {
  test.each([
    ['llama', {}],
    ['llama', { quantization: 'int8' }],
    ['llama', { quantization: 'int4_g32', kvDType: 'int8_per_token_head' }],
    ['llama_tied', { weightDType: 'float32', kvDType: 'float32' }],
    ['mistral', { weightDType: 'float16' }],
    ['qwen2', {}],
    ['qwen3', {}],
    ['qwen3', { quantization: 'int8' }],
  ] as const)('%s %o', (name, how) => {
    const folder = goldenFolder(name);
    const recorded = recordProgram(loadModelConfig(folder), { maxModelLen: 64 });
    const fused = fuseProgram(recorded);
    for (const op of ['add_rms_norm', 'linear_silu_mul', 'rope_kv_write']) {
      expect(fused.calls.map((call) => call.op)).toContain(op);
    }
    expect(fused.calls.length).toBeLessThan(recorded.calls.length * 0.6);
    expect(logitsOf(target, fused, folder, how)).toEqual(logitsOf(target, recorded, folder, how));
  });
});
