/**
 * Flags + model + machine -> EnginePlan. Pure. Every value carries its reason; memory is one visible sum; what does not fit
 * is refused with the flag and a value that would work.
 */
import { TokenmillError } from '../base/errors.ts';
import type { MachineFacts, ModelFacts } from './facts.ts';
import type { EngineConfig } from './flags.ts';
import { formatBytes } from './format.ts';
import { type EnginePlan, maxLogitRows } from './plan.ts';

/** Defaults of vLLM's server on CPU (one rank). */
const DEFAULT_MAX_NUM_SEQS = 128;
const DEFAULT_MAX_NUM_BATCHED_TOKENS = 2048;
/** Below this a model is of no use; what cannot hold it is refused. */
const SMALLEST_CONTEXT = 16;

const BYTES = { float32: 4, bfloat16: 2, float16: 2 } as const;

type Mutable<T> = { -readonly [K in keyof T]: T[K] };
type Reasons = Record<string, string>;

export function resolve(config: EngineConfig, model: ModelFacts, machine: MachineFacts): EnginePlan {
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
    blockSize: config.blockSize,
    numBlocks,
    ...lengths,
    enablePrefixCaching: config.enablePrefixCaching,
    enableChunkedPrefill: config.enableChunkedPrefill,
    schedulingPolicy: config.schedulingPolicy,
    longPrefillTokenThreshold: config.longPrefillTokenThreshold,
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

type Device = Pick<EnginePlan, 'backend' | 'isa' | 'threads' | 'weightDType' | 'quantization' | 'kvDType'>;
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
  return {
    backend,
    isa: resolveIsa(config, machine, reasons),
    threads: resolveThreads(config, machine, reasons),
    weightDType,
    quantization,
    kvDType,
  };
}

function resolveWeightDType(config: EngineConfig, model: ModelFacts, reasons: Reasons): Device['weightDType'] {
  reasons['weightDType'] = config.dtype === 'auto' ? 'element type of the checkpoint' : '--dtype';
  return config.dtype === 'auto' ? model.checkpointDType : config.dtype;
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

export function resolveThreads(
  config: Pick<EngineConfig, 'backend' | 'threads'>,
  machine: MachineFacts,
  reasons: Reasons = {},
): number {
  if (config.backend === 'reference') {
    reasons['threads'] = 'the reference backend runs on the engine thread';
    return 1;
  }
  if (config.threads !== null) {
    reasons['threads'] = '--threads';
    return config.threads;
  }
  const quota = machine.cpuQuota === null ? Number.POSITIVE_INFINITY : Math.max(1, Math.floor(machine.cpuQuota));
  const threads = Math.max(1, Math.min(machine.physicalCores, quota));
  reasons['threads'] =
    quota < machine.physicalCores
      ? `the cgroup grants ${machine.cpuQuota} CPUs`
      : 'physical cores this process may use';
  return threads;
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
    const linear =
      device.backend === 'reference'
        ? model.linearElements * 4
        : device.quantization === 'int8'
          ? model.linearElements + model.linearRows * 4
          : model.linearElements * BYTES[device.weightDType];
    const embedding = model.embeddingElements * (device.backend === 'reference' ? 4 : BYTES[model.checkpointDType]);
    this.weightBytes = linear + embedding + model.vectorElements * 4;
    const { layers, kvHeads, headDim } = model.kv;
    const kvElementBytes = device.backend === 'reference' ? 4 : BYTES[device.kvDType];
    this.blockBytes = 2 * layers * kvHeads * headDim * kvElementBytes * config.blockSize;
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

  /** Refuses what cannot be held even by all available memory, naming a value that would work. */
  check(lengths: Lengths, numBlocks: number): void {
    const needed = this.weightBytes + this.scratchBytes(lengths) + numBlocks * this.blockBytes;
    if (needed <= this.machine.availableMemoryBytes) return;
    const rest = this.machine.availableMemoryBytes - this.weightBytes - this.scratchBytes(lengths);
    const least = Math.ceil(lengths.maxModelLen / this.config.blockSize) * this.blockBytes;
    const sum = `weights ${formatBytes(this.weightBytes)} + scratch ${formatBytes(this.scratchBytes(lengths))} + KV cache ${formatBytes(numBlocks * this.blockBytes)} do not fit into the ${formatBytes(this.machine.availableMemoryBytes)} available`;
    throw new TokenmillError('out_of_memory', `Not enough memory: ${sum}.`, { remedy: this.cure(rest, least) });
  }

  cure(rest: number, least: number): string {
    if (rest >= least)
      return `--kv-cache-memory-bytes ${Math.floor(rest / this.blockBytes) * this.blockBytes} would fit.`;
    const tokens = Math.floor(rest / this.blockBytes) * this.config.blockSize;
    if (tokens >= SMALLEST_CONTEXT) {
      return `--kv-cache-memory-bytes ${(tokens / this.config.blockSize) * this.blockBytes} --max-model-len ${tokens} would fit.`;
    }
    if (this.config.backend === 'cpu' && this.config.quantization === 'none') {
      const int8 = this.model.linearElements + this.model.linearRows * 4;
      if (
        int8 + this.model.embeddingElements * BYTES[this.model.checkpointDType] <
        this.machine.availableMemoryBytes * 0.9
      ) {
        return `--quantization int8 makes the weights about ${formatBytes(int8)}; or use a machine with more memory.`;
      }
    }
    return 'Use a smaller model or a machine with more memory.';
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
  const fits = tokensThatFit >= SMALLEST_CONTEXT;
  const fixedSize = config.numGpuBlocksOverride !== null || config.kvCacheMemoryBytes !== null;
  const rest = memory.budgetBytes - memory.weightBytes - memory.scratchBytes(lengths);
  const remedy = fits
    ? `--max-model-len ${tokensThatFit} would fit.`
    : fixedSize
      ? `--kv-cache-memory-bytes ${needed} would hold it.`
      : memory.cure(rest, needed);
  throw new TokenmillError(
    'out_of_memory',
    `A context of ${longest} tokens needs ${formatBytes(needed)} of KV cache; weights take ${formatBytes(memory.weightBytes)} and scratch ${formatBytes(memory.scratchBytes(lengths))} of ${formatBytes(memory.budgetBytes)}, and the cache holds ${tokensThatFit} tokens.`,
    { param: '--max-model-len', remedy },
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
