import { describe, expect, it } from 'vitest';
import { createCpuBackend } from '../../backends/cpu/cpu_backend.ts';
import { createReferenceBackend } from '../../backends/reference/reference_backend.ts';
import { loadModelConfig, recordProgram } from '../../models/index.ts';
import { OP_NAMES } from '../../ops/index.ts';
import { fuseProgram } from '../../program/fuse.ts';
import { shapeConfig } from '../../weights/random_model.ts';
import { type KernelOptions, kernelRuns, makeStep } from './kernel_runs.ts';

type Json = Parameters<typeof loadModelConfig>[0];

const options: KernelOptions = {
  weightDType: 'float32',
  quantization: 'none',
  kvDType: 'float32',
  blockSize: 16,
  threads: 1,
  repeat: 1,
};
const program = recordProgram(loadModelConfig(shapeConfig('tiny-llama') as Json), { maxModelLen: 128 });

describe('kernel runs', () => {
  it('cover the op table, each different call once, and every run runs', () => {
    const backends = [createReferenceBackend(), createCpuBackend()];
    const seen = new Set<string>();
    const labels: string[] = [];
    const shape = { sequences: 2, tokens: 3, context: 20 };
    for (const { label, run, cost } of [program, fuseProgram(program)].flatMap((p) => [
      ...kernelRuns(p, shape, options),
    ])) {
      const [expected, actual] = backends.map((backend) => backend.runOp(run).outputs);
      for (const output of expected ?? []) expect(output.every(Number.isFinite), label).toBe(true);
      expect(
        actual?.map(({ length }) => length),
        label,
      ).toEqual(expected?.map(({ length }) => length));
      expect(cost.bytes, label).toBeGreaterThan(0);
      seen.add(run.op);
      labels.push(label);
    }
    expect([...seen].sort()).toEqual([...OP_NAMES].sort());
    expect(new Set(labels).size).toBeGreaterThan(8);
  });

  it('count bytes and operations by the storage type', () => {
    const costs = (quantization: 'none' | 'int8') =>
      [...kernelRuns(program, { sequences: 1, tokens: 1, context: 8 }, { ...options, quantization })]
        .filter(({ run }) => run.op === 'linear')
        .map(({ cost }) => cost);
    const [plain, int8] = [costs('none'), costs('int8')];
    expect(int8[0]?.flops).toBe(plain[0]?.flops);
    expect(int8[0]?.bytes).toBeLessThan((plain[0]?.bytes ?? 0) / 2);
  });

  it('cut weights that would need gigabytes', () => {
    const large = recordProgram(loadModelConfig(shapeConfig('llama-8b') as Json), { maxModelLen: 16 });
    const first = kernelRuns(large, { sequences: 1, tokens: 1, context: 0 }, options).next().value;
    expect(first?.run.op).toBe('embedding');
    expect(first?.run.inputs[1]?.length).toBeLessThanOrEqual(32 << 20);
  });
});

describe('makeStep', () => {
  it('lays sequences out one after the other', () => {
    const step = makeStep({ sequences: 2, tokens: 2, context: 15 }, 16);
    expect([...step.positions]).toEqual([15, 16, 15, 16]);
    expect([...step.slotMapping]).toEqual([15, 16, 47, 48]);
    expect([...step.queryStarts]).toEqual([0, 2, 4]);
    expect([...step.seqLens]).toEqual([17, 17]);
    expect([...step.logitRows]).toEqual([1, 3]);
  });
});
