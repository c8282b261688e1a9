import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { TokenmillError } from '../base/errors.ts';
import type { MachineFacts, ModelFacts } from './facts.ts';
import { FLAGS } from './flags.ts';
import { parseOptions } from './options.ts';
import { type EnginePlan, maxLogitRows } from './plan.ts';
import { resolve } from './resolve.ts';

const GIB = 2 ** 30;

const MODEL: ModelFacts = {
  modelPath: '/models/m',
  architecture: 'LlamaForCausalLM',
  vocabSize: 1000,
  maxPositionEmbeddings: 4096,
  checkpointDType: 'bfloat16',
  linearElements: 2 ** 29,
  linearRows: 2 ** 16,
  logitsElements: 2 ** 20,
  logitsRows: 1000,
  embeddingElements: 2 ** 20,
  vectorElements: 2 ** 14,
  kv: { layers: 16, kvHeads: 8, headDim: 64 },
  scratchElementsPerToken: 10_000,
};
/** Of one 16-token block in bfloat16: keys and values of 16 layers of 8 heads of 64. */
const BLOCK_BYTES = 2 * 16 * 8 * 64 * 2 * 16;

const MACHINE: MachineFacts = {
  totalMemoryBytes: 16 * GIB,
  availableMemoryBytes: 12 * GIB,
  cpus: Array.from({ length: 8 }, (_, cpu) => ({ cpu, core: cpu % 4, node: 0 })),
  cpuQuota: null,
  cacheFolder: '/nowhere',
  isaLevels: ['avx512', 'avx2'],
};

type Options = Parameters<typeof parseOptions>[0];

function plan(options: Options = {}, machine: Partial<MachineFacts> = {}, model: Partial<ModelFacts> = {}): EnginePlan {
  const config = parseOptions(options, FLAGS, {});
  return resolve(config, { ...MODEL, ...model }, { ...MACHINE, ...machine });
}

function refusal(
  options: Options,
  machine: Partial<MachineFacts> = {},
  model: Partial<ModelFacts> = {},
): TokenmillError {
  try {
    plan(options, machine, model);
  } catch (error) {
    expect(error).toBeInstanceOf(TokenmillError);
    return error as TokenmillError;
  }
  throw new Error('accepted');
}

const RESOLVED: readonly (readonly [string, Options, Partial<MachineFacts>, Partial<EnginePlan>])[] = [
  [
    'CPU defaults',
    {},
    {},
    {
      backend: 'cpu',
      isa: 'avx512',
      threads: 4,
      threadPlaces: [[], [1, 5], [2, 6], [3, 7]].map((cpus) => ({ cpus, node: 0 })),
      weightDType: 'bfloat16',
      kvDType: 'bfloat16',
      maxModelLen: 4096,
      maxNumSeqs: 128,
      maxNumBatchedTokens: 2048,
      targetItlMs: 100,
      blockSize: 16,
    },
  ],
  [
    'reference',
    { backend: 'reference', threads: 9 },
    { isaLevels: [] },
    { isa: 'reference', threads: 1, threadPlaces: [], kvDType: 'float32' },
  ],
  ['forced ISA and threads', { isa: 'avx2', threads: 3 }, {}, { isa: 'avx2', threads: 3 }],
  ['hyperthreads only when asked for', { threads: 8 }, {}, { threads: 8 }],
  ['a quota is rounded up when asked for', { threads: 3 }, { cpuQuota: 2.7 }, { threads: 3 }],
  ['a cgroup quota bounds threads', {}, { cpuQuota: 2.7 }, { threads: 2 }],
  ['a quota below one CPU', {}, { cpuQuota: 0.5 }, { threads: 1 }],
  ['fp32 weights have fp32 keys', { dtype: 'float32' }, {}, { weightDType: 'float32', kvDType: 'float32' }],
  ['KV type forced', { dtype: 'float32', kvCacheDtype: 'bfloat16' }, {}, { kvDType: 'bfloat16' }],
  ['KV in fp8', { kvCacheDtype: 'fp8_e4m3', kvCacheMemoryBytes: 500 * BLOCK_BYTES }, {}, { numBlocks: 1000 }],
  ['packed weights are kept', { packedCache: '/cache' }, {}, { packedCache: '/cache' }],
  ['or not', { packedCache: 'off' }, {}, { packedCache: null }],
  ['by default when they are large', {}, { cacheFolder: '/home' }, { packedCache: join('/home', 'packed') }],
  ['the reference backend has none', { backend: 'reference', packedCache: '/cache' }, {}, { packedCache: null }],
  ['block override', { numGpuBlocksOverride: 300 }, {}, { numBlocks: 300 }],
  ['block override shortens the context', { numGpuBlocksOverride: 10 }, {}, { numBlocks: 10, maxModelLen: 160 }],
  ['exact KV bytes', { kvCacheMemoryBytes: 1000 * BLOCK_BYTES + 1 }, {}, { numBlocks: 1000 }],
  [
    'no more blocks than can be used',
    { maxNumSeqs: 2, maxModelLen: 100 },
    {},
    { numBlocks: 14, maxNumBatchedTokens: 200 },
  ],
  ['sequences bounded by the batch', { maxNumBatchedTokens: 64 }, {}, { maxNumSeqs: 64 }],
  [
    'without chunks a prompt fits in a step',
    { enableChunkedPrefill: false },
    {},
    { maxNumBatchedTokens: 4096, targetItlMs: 0 },
  ],
  ['a step may last as long as it likes', { targetItlMs: 0 }, {}, { targetItlMs: 0 }],
];

describe('resolve', () => {
  test('weights that are packed at once are not kept, unless a folder is named', () => {
    const small = { linearElements: 2 ** 20, embeddingElements: 2 ** 20 };
    expect(plan({}, {}, small)).toMatchObject({
      packedCache: null,
      reasons: { packedCache: expect.stringMatching(/64/) },
    });
    expect(plan({ packedCache: '/cache' }, {}, small).packedCache).toBe('/cache');
  });

  test.each(RESOLVED)('%s', (_, options, machine, expected) => {
    expect(plan(options, machine)).toMatchObject(expected);
  });

  test('the memory sum is that of the shapes', () => {
    const { memory, numBlocks, ...rest } = plan();
    expect(memory.weightBytes).toBe(2 ** 30 + 2 ** 21 + 2 ** 16);
    expect(memory.scratchBytes).toBe(2048 * 10_000 * 4 + maxLogitRows(rest) * 1000 * 4);
    expect(memory.availableBytes).toBe(Math.floor(0.9 * 16 * GIB - 4 * GIB));
    expect(memory.kvBytes).toBe(numBlocks * BLOCK_BYTES);
    expect(memory.weightBytes + memory.scratchBytes + memory.kvBytes).toBeLessThanOrEqual(memory.availableBytes);
    // One block more would not fit.
    expect(memory.weightBytes + memory.scratchBytes + memory.kvBytes + BLOCK_BYTES).toBeGreaterThan(
      memory.availableBytes,
    );
  });

  test('int8 keeps a byte an element and a scale a row', () => {
    expect(plan({ quantization: 'int8' }).memory.weightBytes).toBe(2 ** 29 + 2 ** 18 + 2 ** 21 + 2 ** 16);
  });

  test('int4 keeps half a byte an element, two bytes a group and a unit a row, and the logits in int8', () => {
    const body = (2 ** 29 - 2 ** 20) * (0.5 + 2 / 32);
    const others = 2 ** 21 + 2 ** 16;
    expect(plan({ quantization: 'int4_g32' }).memory.weightBytes).toBe(body + 2 ** 20 + 2 ** 18 + others);
  });

  test('every decision has a reason', () => {
    const { reasons } = plan();
    for (const key of [
      'isa',
      'threads',
      'weightDType',
      'kvDType',
      'maxModelLen',
      'maxNumSeqs',
      'maxNumBatchedTokens',
      'targetItlMs',
      'numBlocks',
      'availableBytes',
    ]) {
      expect(reasons[key], key).toMatch(/\w/);
    }
  });

  test('the plan is frozen and names the model as asked', () => {
    expect(Object.isFrozen(plan())).toBe(true);
    expect(plan({ model: 'org/m' }).servedModelNames).toEqual(['org/m']);
    expect(plan({ model: 'org/m', servedModelName: ['a', 'b'] }).servedModelNames).toEqual(['a', 'b']);
  });
});

describe('what does not fit is refused with a value that works', () => {
  /** Applies `--flag value` pairs of a remedy on top of the options. */
  function follow(options: Options, remedy: string): Options {
    const given: Record<string, unknown> = { ...options };
    for (const [, name, value] of remedy.matchAll(/--([a-z-]+) ([\w.]+)/g)) {
      const key = name!.replace(/-([a-z])/g, (_, letter: string) => letter.toUpperCase());
      given[key] = value;
    }
    return given as Options;
  }

  const small: Partial<MachineFacts> = { totalMemoryBytes: 2 * GIB, availableMemoryBytes: 1.3 * GIB };
  const TOO_BIG: readonly (readonly [string, Options, Partial<MachineFacts>])[] = [
    ['context asked for', { maxModelLen: 4096, gpuMemoryUtilization: 0.945 }, small],
    ['explicit KV size beyond memory', { kvCacheMemoryBytes: 64 * GIB }, {}],
    ['blocks beyond memory', { numGpuBlocksOverride: 1_000_000 }, {}],
    ['a share too small', { gpuMemoryUtilization: 0.26 }, {}],
    ['explicit KV size below one sequence', { kvCacheMemoryBytes: 1024 }, {}],
    ['blocks below the context asked for', { numGpuBlocksOverride: 4, maxModelLen: 100 }, {}],
    ['weights beyond memory', {}, { totalMemoryBytes: 1.2 * GIB, availableMemoryBytes: 1 * GIB }],
    ['batch below sequences', { maxNumBatchedTokens: 8, maxNumSeqs: 9 }, {}],
    ['no chunks and a small batch', { enableChunkedPrefill: false, maxNumBatchedTokens: 1000 }, {}],
    ['a target without chunks', { enableChunkedPrefill: false, targetItlMs: 50 }, {}],
    ['more threads than CPUs', { threads: 9 }, {}],
    ['more threads than the cgroup grants', { threads: 4 }, { cpuQuota: 2.7 }],
    ['context beyond the positions', { maxModelLen: 5000 }, {}],
  ];

  test.each(TOO_BIG)('%s', (_, options, machine) => {
    const error = refusal(options, machine);
    expect(['out_of_memory', 'flag_invalid']).toContain(error.code);
    const remedy = error.remedy ?? '';
    const flag = /--([a-z-]+) [\w.]+|Use (?:at least )?(\d+)/.exec(remedy);
    expect(flag, remedy).not.toBeNull();
    const cured = flag![2] === undefined ? follow(options, remedy) : follow(options, `${error.param} ${flag![2]}`);
    expect(plan(cured, machine).numBlocks).toBeGreaterThan(0);
  });

  test('where nothing helps it says so', () => {
    const error = refusal({}, { totalMemoryBytes: GIB / 4, availableMemoryBytes: GIB / 8 });
    expect(error.message).toMatch(/weights take 1\.0 GiB .* Use a smaller model or a machine with more memory\.$/);
  });

  test('a context that is ours to choose is shortened, with the reason', () => {
    const made = plan({ gpuMemoryUtilization: 0.945 }, small);
    expect(made.maxModelLen).toBeLessThan(4096);
    expect(made.maxModelLen).toBe(made.numBlocks * 16);
    expect(made.reasons['maxModelLen']).toMatch(/largest that fits .* would allow 4096/);
  });

  test('a processor too old and a missing level name what there is', () => {
    expect(refusal({}, { isaLevels: ['avx512_emulated'] }).code).toBe('isa_unsupported');
    expect(plan({ isa: 'avx512_emulated' }, { isaLevels: ['avx512_emulated', 'avx2'] }).isa).toBe('avx512_emulated');
    const error = refusal({ isa: 'amx' });
    expect(error.code).toBe('isa_unsupported');
    expect(error.message).toContain('avx512, avx2');
  });
});
