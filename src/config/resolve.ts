/**
 * Flags + model + machine -> EnginePlan. Pure. Every value carries its reason; memory is one visible sum; what does not fit
 * is refused with the flag and a value that would work.
 */
import { join } from 'node:path';
import { TokenmillError } from '../base/errors.ts';
import { kvHeadBytes } from '../base/kv_dtypes.ts';
import { quantizedBytes, storedAs } from '../base/quantization.ts';
import type { MachineFacts, ModelFacts } from './facts.ts';
import { type EngineConfig, FLAGS } from './flags.ts';
import { formatBytes } from './format.ts';
import { type EnginePlan, maxLogitRows } from './plan.ts';
import { countCores, placeThreads } from './topology.ts';

/** Defaults of vLLM's server on CPU (one rank). */
const DEFAULT_MAX_NUM_SEQS = 128;
const DEFAULT_MAX_NUM_BATCHED_TOKENS = 2048;
/** docs/decisions/0008-budget-by-time.md */
const DEFAULT_TARGET_ITL_MS = 100;
/** Below this a model is of no use; what cannot hold it is refused. */
const SMALLEST_CONTEXT = 16;

/** Weights that take less are packed within a tenth of a second. */
const WORTH_KEEPING = 64 * 2 ** 20;

const BYTES = { float32: 4, bfloat16: 2, float16: 2 } as const;

type Mutable<T> = { -readonly [K in keyof T]: T[K] };
type Reasons = Record<string, string>;

export function resolve(config: EngineConfig, model: ModelFacts, machine: MachineFacts): EnginePlan {
  try {
    return workOut(config, model, machine);
  } catch (error) {
    if (!(error instanceof TokenmillError) || error.code !== 'out_of_memory') throw error;
    const remedy = findCure(config, model, machine);
    throw new TokenmillError('out_of_memory', error.message, { param: error.param, remedy });
  }
}

function workOut(config: EngineConfig, model: ModelFacts, machine: MachineFacts): EnginePlan {
  const reasons: Reasons = {};
  const device = resolveDevice(config, model, machine, reasons);
  const memory = new MemorySum(config, model, machine, device, reasons);
  const lengths = resolveLengths(config, model, memory, reasons);
  const numBlocks = resolveBlocks(config, memory, lengths, reasons);
  return Object.freeze({
    config,
    modelPath: model.modelPath,
    servedModelNames: config.servedModelName.length > 0 ? config.servedModelName : [config.model],
    architecture: model.architecture,
    vocabSize: model.vocabSize,
    ...device,
    packedCache: resolvePackedCache(config, machine, memory.weightBytes, reasons),
    blockSize: config.blockSize,
    numBlocks,
    ...lengths,
    enablePrefixCaching: config.enablePrefixCaching,
    enableChunkedPrefill: config.enableChunkedPrefill,
    schedulingPolicy: config.schedulingPolicy,
    longPrefillTokenThreshold: config.longPrefillTokenThreshold,
    targetItlMs: resolveTargetItl(config, reasons),
    watermark: config.watermark,
    maxLogprobs: config.maxLogprobs,
    memory: {
      weightBytes: memory.weightBytes,
      kvBytes: numBlocks * memory.blockBytes,
      scratchBytes: memory.scratchBytes(lengths),
      availableBytes: memory.budgetBytes,
    },
    reasons: Object.freeze(reasons),
  });
}

type Device = Pick<
  EnginePlan,
  'backend' | 'isa' | 'threads' | 'threadPlaces' | 'weightDType' | 'quantization' | 'kvDType'
>;
type Lengths = Pick<EnginePlan, 'maxModelLen' | 'maxNumSeqs' | 'maxNumBatchedTokens'>;

function resolveDevice(config: EngineConfig, model: ModelFacts, machine: MachineFacts, reasons: Reasons): Device {
  const { backend, quantization } = config;
  const weightDType = resolveWeightDType(config, model, reasons);
  let kvDType: Device['kvDType'];
  if (config.kvCacheDtype !== 'auto') {
    kvDType = config.kvCacheDtype;
    reasons['kvDType'] = '--kv-cache-dtype';
  } else if (backend === 'reference' || weightDType === 'float32') {
    kvDType = 'float32';
    reasons['kvDType'] =
      backend === 'reference' ? 'the reference backend is the fp32 definition' : 'weights are float32';
  } else {
    kvDType = 'bfloat16';
    reasons['kvDType'] = 'half the memory and bandwidth of float32';
  }
  const threads = resolveThreads(config, machine, reasons);
  return {
    backend,
    isa: resolveIsa(config, machine, reasons),
    threads,
    threadPlaces: backend === 'cpu' ? placeThreads(machine.cpus, threads) : [],
    weightDType,
    quantization,
    kvDType,
  };
}

function resolveWeightDType(config: EngineConfig, model: ModelFacts, reasons: Reasons): Device['weightDType'] {
  reasons['weightDType'] = config.dtype === 'auto' ? 'element type of the checkpoint' : '--dtype';
  return config.dtype === 'auto' ? model.checkpointDType : config.dtype;
}

function resolvePackedCache(
  { backend, packedCache }: EngineConfig,
  machine: MachineFacts,
  weightBytes: number,
  reasons: Reasons,
): string | null {
  const decide = (folder: string | null, reason: string) => {
    reasons['packedCache'] = reason;
    return folder;
  };
  if (backend === 'reference') return decide(null, 'the reference backend does not pack');
  if (packedCache === 'off') return decide(null, '--packed-cache off');
  if (packedCache !== 'auto') return decide(packedCache, '--packed-cache');
  if (weightBytes < WORTH_KEEPING) return decide(null, `packing less than ${formatBytes(WORTH_KEEPING)} takes no time`);
  return decide(join(machine.cacheFolder, 'packed'), 'the next start maps what this one packed');
}

/** Throws `isa_unsupported`. */
export function resolveIsa(
  config: Pick<EngineConfig, 'backend' | 'isa'>,
  machine: MachineFacts,
  reasons: Reasons = {},
): string {
  if (config.backend === 'reference') {
    reasons['isa'] = 'the reference backend is plain TypeScript';
    return 'reference';
  }
  // Emulated levels are for tests that ask for them.
  const best = machine.isaLevels.find((level) => !level.endsWith('_emulated'));
  if (best === undefined) {
    throw new TokenmillError(
      'isa_unsupported',
      'This processor has none of the instruction sets that the cpu backend needs.',
      {
        remedy: 'It needs AVX2 with FMA, or NEON; --backend reference runs everywhere, slowly.',
      },
    );
  }
  if (config.isa === null) {
    reasons['isa'] = 'best level of this machine';
    return best;
  }
  if (!machine.isaLevels.includes(config.isa)) {
    throw new TokenmillError('isa_unsupported', `--isa ${config.isa} is not available on this machine.`, {
      param: '--isa',
      remedy: `Available: ${machine.isaLevels.join(', ')}.`,
    });
  }
  reasons['isa'] = '--isa';
  return config.isa;
}

/** Throws `flag_invalid` when there are not as many CPUs as `--threads` asks for. */
export function resolveThreads(
  config: Pick<EngineConfig, 'backend' | 'threads'>,
  machine: MachineFacts,
  reasons: Reasons = {},
): number {
  if (config.backend === 'reference') {
    reasons['threads'] = 'the reference backend runs on the engine thread';
    return 1;
  }
  const quota = machine.cpuQuota ?? Number.POSITIVE_INFINITY;
  const cores = countCores(machine.cpus);
  if (config.threads === null) {
    const granted = Math.max(1, Math.floor(quota));
    const limited = granted < cores;
    reasons['threads'] = limited ? `the cgroup grants ${machine.cpuQuota} CPUs` : 'physical cores this process may use';
    return Math.min(cores, granted);
  }
  const most = Math.min(machine.cpus.length, Math.max(1, Math.ceil(quota)));
  if (config.threads > most) {
    const limit = most < machine.cpus.length ? `the cgroup grants ${machine.cpuQuota}` : 'of its affinity mask';
    throw new TokenmillError(
      'flag_invalid',
      `--threads ${config.threads}: this process may use ${most} CPUs (${limit}); more threads would wait for each other.`,
      { param: '--threads', remedy: `Use --threads ${most} at most, or leave it out.` },
    );
  }
  reasons['threads'] =
    config.threads > cores ? `--threads; above ${cores}, the physical cores, it seldom helps` : '--threads';
  return config.threads;
}

/** Bytes of all linear weights as the cpu backend stores them. */
function linearBytes(model: ModelFacts, { quantization, weightDType }: Device): number {
  const { linearElements, linearRows, logitsElements, logitsRows } = model;
  const [body, head] = [storedAs(quantization, false), storedAs(quantization, true)];
  if (body === null || head === null) return linearElements * BYTES[weightDType];
  const rest = quantizedBytes(body, linearElements - logitsElements, linearRows - logitsRows);
  return rest + quantizedBytes(head, logitsElements, logitsRows);
}

/** The one sum: budget = share x total - already in use; weights + scratch + KV must stay below it. */
class MemorySum {
  readonly budgetBytes: number;
  readonly weightBytes: number;
  readonly blockBytes: number;
  private readonly config: EngineConfig;
  private readonly model: ModelFacts;
  private readonly machine: MachineFacts;

  constructor(config: EngineConfig, model: ModelFacts, machine: MachineFacts, device: Device, reasons: Reasons) {
    this.config = config;
    this.model = model;
    this.machine = machine;
    const inUse = machine.totalMemoryBytes - machine.availableMemoryBytes;
    this.budgetBytes = Math.max(0, Math.floor(config.gpuMemoryUtilization * machine.totalMemoryBytes - inUse));
    reasons['availableBytes'] =
      `${config.gpuMemoryUtilization} (--gpu-memory-utilization) x ${formatBytes(machine.totalMemoryBytes)} - ${formatBytes(inUse)} in use`;
    const linear = device.backend === 'reference' ? model.linearElements * 4 : linearBytes(model, device);
    const embedding = model.embeddingElements * (device.backend === 'reference' ? 4 : BYTES[model.checkpointDType]);
    this.weightBytes = linear + embedding + model.vectorElements * 4;
    const { layers, kvHeads, headDim } = model.kv;
    const headBytes = kvHeadBytes(device.backend === 'reference' ? 'float32' : device.kvDType, headDim);
    this.blockBytes = 2 * layers * kvHeads * headBytes * config.blockSize;
  }

  scratchBytes(lengths: Pick<Lengths, 'maxNumSeqs' | 'maxNumBatchedTokens'>): number {
    const logits = maxLogitRows(lengths) * this.model.vocabSize * 4;
    return lengths.maxNumBatchedTokens * this.model.scratchElementsPerToken * 4 + logits;
  }

  /** Blocks that fit; what an explicit size gives wins over the share. */
  blocksThatFit(lengths: Pick<Lengths, 'maxNumSeqs' | 'maxNumBatchedTokens'>): number {
    if (this.config.numGpuBlocksOverride !== null) return this.config.numGpuBlocksOverride;
    const rest = this.budgetBytes - this.weightBytes - this.scratchBytes(lengths);
    const bytes = this.config.kvCacheMemoryBytes ?? rest;
    return Math.max(0, Math.floor(bytes / this.blockBytes));
  }

  /** Blocks that all available memory would hold beside weights and scratch; may be negative. */
  blocksInMemory(lengths: Pick<Lengths, 'maxNumSeqs' | 'maxNumBatchedTokens'>): number {
    const rest = this.machine.availableMemoryBytes - this.weightBytes - this.scratchBytes(lengths);
    return Math.floor(rest / this.blockBytes);
  }

  /** Refuses what cannot be held even by all available memory. */
  check(lengths: Lengths, numBlocks: number): void {
    if (numBlocks <= this.blocksInMemory(lengths)) return;
    const parts = `weights ${formatBytes(this.weightBytes)} + scratch ${formatBytes(this.scratchBytes(lengths))} + KV cache ${formatBytes(numBlocks * this.blockBytes)}`;
    throw new TokenmillError(
      'out_of_memory',
      `Not enough memory: ${parts} do not fit into the ${formatBytes(this.machine.availableMemoryBytes)} available.`,
    );
  }
}

type Patch = { [K in keyof EngineConfig]?: EngineConfig[K] };

/** The first change of flags that makes it fit: each is tried by resolving again, so that none is a guess. */
function findCure(config: EngineConfig, model: ModelFacts, machine: MachineFacts): string {
  for (const patch of patches(config, model, machine)) {
    try {
      workOut({ ...config, ...patch }, model, machine);
    } catch {
      continue;
    }
    const flags = Object.entries(patch).map(
      ([key, value]) => `${FLAGS[key as keyof EngineConfig].cli} ${String(value)}`,
    );
    return `${flags.join(' ')} would fit.`;
  }
  return 'Use a smaller model or a machine with more memory.';
}

/** Changes in the order in which they take away least of what was asked for. */
function* patches(config: EngineConfig, model: ModelFacts, machine: MachineFacts): Generator<Patch> {
  const memory = new MemorySum(config, model, machine, resolveDevice(config, model, machine, {}), {});
  const lengths = {
    maxNumSeqs: config.maxNumSeqs ?? DEFAULT_MAX_NUM_SEQS,
    maxNumBatchedTokens: config.maxNumBatchedTokens ?? DEFAULT_MAX_NUM_BATCHED_TOKENS,
  };
  const context = config.maxModelLen ?? model.maxPositionEmbeddings;
  const wanted = Math.ceil(context / config.blockSize);
  const room = memory.blocksInMemory(lengths);
  if (config.numGpuBlocksOverride !== null) {
    yield { numGpuBlocksOverride: wanted };
    if (room > 0) yield { numGpuBlocksOverride: room };
  } else if (config.kvCacheMemoryBytes !== null) {
    yield { kvCacheMemoryBytes: wanted * memory.blockBytes };
    if (room > 0) yield { kvCacheMemoryBytes: room * memory.blockBytes };
  }
  for (const share of [0.95, 0.99]) if (share > config.gpuMemoryUtilization) yield { gpuMemoryUtilization: share };
  const fits = memory.blocksThatFit(lengths) * config.blockSize;
  if (fits >= SMALLEST_CONTEXT) yield { maxModelLen: fits };
  if (room * config.blockSize >= SMALLEST_CONTEXT) {
    yield { kvCacheMemoryBytes: room * memory.blockBytes, maxModelLen: Math.min(context, room * config.blockSize) };
  }
  yield { maxNumBatchedTokens: 256, maxNumSeqs: 16 };
  if (config.backend === 'cpu') {
    yield { quantization: 'int8' };
    yield { quantization: 'int8', gpuMemoryUtilization: 0.99 };
  }
}

function resolveLengths(config: EngineConfig, model: ModelFacts, memory: MemorySum, reasons: Reasons): Lengths {
  const maxNumSeqs = config.maxNumSeqs ?? DEFAULT_MAX_NUM_SEQS;
  reasons['maxNumSeqs'] = config.maxNumSeqs === null ? 'default of the CPU server' : '--max-num-seqs';
  const lengths: Mutable<Lengths> = { maxModelLen: 0, maxNumSeqs, maxNumBatchedTokens: DEFAULT_MAX_NUM_BATCHED_TOKENS };
  lengths.maxNumBatchedTokens = config.maxNumBatchedTokens ?? DEFAULT_MAX_NUM_BATCHED_TOKENS;
  reasons['maxNumBatchedTokens'] =
    config.maxNumBatchedTokens === null ? 'default of the CPU server' : '--max-num-batched-tokens';
  const longest = config.maxModelLen ?? model.maxPositionEmbeddings;
  if (longest > model.maxPositionEmbeddings) {
    throw new TokenmillError(
      'flag_invalid',
      `--max-model-len ${longest} is longer than the model's ${model.maxPositionEmbeddings} positions.`,
      {
        param: '--max-model-len',
        remedy: `Use ${model.maxPositionEmbeddings} or less, or extend the model with --hf-overrides rope_parameters.`,
      },
    );
  }
  if (!config.enableChunkedPrefill && config.maxNumBatchedTokens === null) {
    lengths.maxNumBatchedTokens = Math.max(lengths.maxNumBatchedTokens, longest);
    reasons['maxNumBatchedTokens'] = 'a whole prompt, because chunked prefill is off';
  }
  const tokensThatFit = memory.blocksThatFit(lengths) * config.blockSize;
  lengths.maxModelLen = longest;
  reasons['maxModelLen'] = config.maxModelLen === null ? "the model's positions" : '--max-model-len';
  if (tokensThatFit < longest) shortenToMemory(config, memory, lengths, tokensThatFit, reasons);
  clampBatch(config, lengths, reasons);
  return lengths;
}

/** The context does not fit into the KV cache: shorten it when that is ours to choose, refuse when it was asked for. */
function shortenToMemory(
  config: EngineConfig,
  memory: MemorySum,
  lengths: Mutable<Lengths>,
  tokensThatFit: number,
  reasons: Reasons,
): void {
  const longest = lengths.maxModelLen;
  if (config.maxModelLen === null && tokensThatFit >= SMALLEST_CONTEXT) {
    lengths.maxModelLen = tokensThatFit;
    reasons['maxModelLen'] = `the largest that fits in the KV cache (the model would allow ${longest})`;
    return;
  }
  const needed = Math.ceil(longest / config.blockSize) * memory.blockBytes;
  throw new TokenmillError(
    'out_of_memory',
    `A context of ${longest} tokens needs ${formatBytes(needed)} of KV cache; weights take ${formatBytes(memory.weightBytes)} and scratch ${formatBytes(memory.scratchBytes(lengths))} of ${formatBytes(memory.budgetBytes)}, and the cache holds ${tokensThatFit} tokens.`,
    { param: '--max-model-len' },
  );
}

function clampBatch(config: EngineConfig, lengths: Mutable<Lengths>, reasons: Reasons): void {
  const most = lengths.maxNumSeqs * lengths.maxModelLen;
  if (lengths.maxNumBatchedTokens > most) {
    lengths.maxNumBatchedTokens = most;
    reasons['maxNumBatchedTokens'] = 'no more than max_num_seqs x max_model_len';
  }
  if (lengths.maxNumBatchedTokens < lengths.maxNumSeqs) {
    if (config.maxNumBatchedTokens !== null && config.maxNumSeqs !== null) {
      throw new TokenmillError(
        'flag_invalid',
        `--max-num-batched-tokens ${lengths.maxNumBatchedTokens} is smaller than --max-num-seqs ${lengths.maxNumSeqs}: not every sequence could get a token in a step.`,
        { param: '--max-num-batched-tokens', remedy: `Use at least ${lengths.maxNumSeqs}.` },
      );
    }
    lengths.maxNumSeqs = lengths.maxNumBatchedTokens;
    reasons['maxNumSeqs'] = 'no more than max_num_batched_tokens';
  }
  if (!config.enableChunkedPrefill && lengths.maxNumBatchedTokens < lengths.maxModelLen) {
    throw new TokenmillError(
      'flag_invalid',
      `--max-num-batched-tokens ${lengths.maxNumBatchedTokens} is smaller than the context of ${lengths.maxModelLen} while chunked prefill is off.`,
      {
        param: '--max-num-batched-tokens',
        remedy: `Use at least ${lengths.maxModelLen}, or leave chunked prefill on.`,
      },
    );
  }
}

function resolveTargetItl(config: EngineConfig, reasons: Reasons): number {
  const { targetItlMs, enableChunkedPrefill } = config;
  if (!enableChunkedPrefill && targetItlMs !== null && targetItlMs > 0) {
    throw new TokenmillError('flag_invalid', '--target-itl-ms splits prompts, which chunked prefill off forbids.', {
      param: '--target-itl-ms',
      remedy: 'Use --target-itl-ms 0 to switch it off, or leave chunked prefill on.',
    });
  }
  reasons['targetItlMs'] =
    targetItlMs !== null
      ? '--target-itl-ms'
      : enableChunkedPrefill
        ? 'faster than people read; prompts wait for it while others decode'
        : 'chunked prefill is off';
  return targetItlMs ?? (enableChunkedPrefill ? DEFAULT_TARGET_ITL_MS : 0);
}

function resolveBlocks(config: EngineConfig, memory: MemorySum, lengths: Lengths, reasons: Reasons): number {
  const fit = memory.blocksThatFit(lengths);
  // More than every sequence at full length can never be in use at once.
  const useful = lengths.maxNumSeqs * Math.ceil(lengths.maxModelLen / config.blockSize);
  let numBlocks = fit;
  if (config.numGpuBlocksOverride !== null) reasons['numBlocks'] = '--num-gpu-blocks-override';
  else if (config.kvCacheMemoryBytes !== null) reasons['numBlocks'] = '--kv-cache-memory-bytes';
  else if (useful < fit) {
    numBlocks = useful;
    reasons['numBlocks'] = 'every sequence at full length; more could never be in use';
  } else reasons['numBlocks'] = 'what memory holds beside weights and scratch';
  memory.check(lengths, numBlocks);
  return numBlocks;
}
