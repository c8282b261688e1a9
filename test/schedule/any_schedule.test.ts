/**
 * Promise P1: whatever else is in the batch, however a request is chunked, preempted, resumed or found in the prefix cache,
 * with any block size and number of threads, it gets the tokens and logprobs it gets alone, bit for bit. A failure prints
 * the seed; SEED=n runs that one, SEEDS=n that many.
 */
import { afterAll, describe, expect, test } from 'vitest';
import type { Backend, LoadedModel, Quantization } from '../../src/backends/backend.ts';
import { isQuantizedKv, KV_DTYPE_NAMES, type KvDType } from '../../src/base/kv_dtypes.ts';
import { maxLogitRows } from '../../src/config/plan.ts';
import {
  aloneSimulation,
  firstDifference,
  randomSimulation,
  type Simulation,
  type SimulationLimits,
  type SimulationResult,
  simulate,
  type Transcript,
} from '../../src/engine/simulate.ts';
import { UniprocExecutor } from '../../src/executor/uniproc_executor.ts';
import { loadModelConfig, recordProgram } from '../../src/models/index.ts';
import { fuseProgram } from '../../src/program/fuse.ts';
import { readCheckpoint } from '../../src/weights/safetensors.ts';
import { goldenFolder } from '../golden/folders.ts';
import { availableBackends } from './available_backends.ts';

interface Setting {
  readonly backend: Backend;
  readonly isa: string;
  readonly weightDType: 'float32' | 'bfloat16';
  readonly quantization: Quantization;
  readonly kvDType: KvDType;
}

const LIMITS: SimulationLimits = { vocabSize: 512, maxModelLen: 128, blockSizes: [16, 16, 16, 32, 64], requests: 12 };
/** Beyond the 24 keys of the golden mistral's window. */
const MODELS = ['llama', 'mistral', 'qwen3'] as const;

function load(folder: string, setting: Setting, { config }: Simulation, threads: number): UniprocExecutor {
  const program = fuseProgram(recordProgram(loadModelConfig(folder), { maxModelLen: config.maxModelLen }));
  const limits = { ...config, maxLogitRows: maxLogitRows(config) };
  const { backend, ...rest } = setting;
  const isa = backend.name === 'cpu' ? { isa: setting.isa } : {};
  const model: LoadedModel = backend.load({
    program,
    tensors: readCheckpoint(folder),
    threads,
    ...limits,
    ...rest,
    ...isa,
  });
  return new UniprocExecutor(model, limits);
}

function run(folder: string, setting: Setting, simulation: Simulation, threads: number): SimulationResult {
  const executor = load(folder, setting, simulation, threads);
  try {
    return simulate(simulation, executor);
  } finally {
    executor.close();
  }
}

function settings(backend: Backend): Setting[] {
  const plain = { backend, quantization: 'none' } as const;
  const levels = backend.isaLevels;
  const bf16 = levels.map((isa) => ({ ...plain, isa, weightDType: 'bfloat16', kvDType: 'bfloat16' }) as const);
  const fp32 = levels.map((isa) => ({ ...plain, isa, weightDType: 'float32', kvDType: 'float32' }) as const);
  const quantized = levels.flatMap((isa) =>
    (['int8', 'int4_g32'] as const).map((quantization) => ({ ...(bf16[0] as Setting), isa, quantization })),
  );
  const kv = levels.flatMap((isa) =>
    KV_DTYPE_NAMES.filter(isQuantizedKv).map((kvDType) => ({ ...(bf16[0] as Setting), isa, kvDType }) as const),
  );
  return backend.name === 'reference' ? fp32 : [...bf16, ...fp32, ...quantized, ...kv];
}

const only = process.env['SEED'];
const count = Number(process.env['SEEDS'] ?? 4);

/** Seeds of setting `index`: all of them; on emulated levels, which are slow, one in four of those that are not plain bf16. */
function seedsOf(setting: Setting, index: number, model: string): number[] {
  if (only !== undefined) return [Number(only)];
  const plain = setting.weightDType === 'bfloat16' && setting.quantization === 'none' && setting.kvDType === 'bfloat16';
  const fewer = setting.isa.endsWith('_emulated') && !plain;
  const first = MODELS.indexOf(model as (typeof MODELS)[number]) * 1000;
  return Array.from({ length: count }, (_, i) => first + i).filter((_, i) => !fewer || i % 4 === index % 4);
}

const totals = { preemptions: 0, prefixHits: 0, largestBatch: 0 };

describe.each(MODELS)('any schedule, %s', (name) => {
  const folder = goldenFolder(name) as string;

  for (const backend of availableBackends()) {
    for (const [index, setting] of settings(backend).entries()) {
      const label = `${backend.name} ${setting.isa} ${setting.weightDType} ${setting.quantization}, KV ${setting.kvDType}`;
      let aloneExecutor: UniprocExecutor | null = null;
      afterAll(() => aloneExecutor?.close());
      test.each(seedsOf(setting, index, name))(`${label}, seed %i`, (seed) => {
        const simulation = randomSimulation(seed, LIMITS);
        const threads = seed % 4 === 3 ? 2 : 1;
        const result = run(folder, setting, simulation, threads);
        totals.preemptions += result.preemptions;
        totals.prefixHits += result.prefixHits;
        totals.largestBatch = Math.max(totals.largestBatch, result.largestBatch);
        const differences: string[] = [];
        for (const { request } of simulation.arrivals) {
          const alone = aloneSimulation(request, LIMITS);
          aloneExecutor ??= load(folder, setting, alone, 1);
          const expected = simulate(alone, aloneExecutor).transcripts.get(request.id) as Transcript;
          const difference = firstDifference(result.transcripts.get(request.id) as Transcript, expected);
          if (difference !== null) differences.push(`${request.id}: ${difference}`);
        }
        expect(differences, `SEED=${seed}`).toEqual([]);
      });
    }
  }
});

test.runIf(only === undefined && count >= 4)('the schedules were rough enough to prove something', () => {
  expect(totals.preemptions).toBeGreaterThan(5);
  expect(totals.prefixHits).toBeGreaterThan(50);
  expect(totals.largestBatch).toBeGreaterThan(4);
});
