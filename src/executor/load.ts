/** From a model folder to facts for the plan, and from a plan to a running executor: the one place that wires the rooms. */
import type { PackedFile, PackedUse, PackOptions, TensorSource, WeightDType } from '../backends/backend.ts';
import type { Spans } from '../base/spans.ts';
import type { ModelFacts } from '../config/facts.ts';
import { type EnginePlan, maxLogitRows } from '../config/plan.ts';
import type { Executor } from '../engine/executor.ts';
import { countWeights, type JsonObject, loadModelConfig, recordProgram } from '../models/index.ts';
import { callNames } from '../program/dump.ts';
import { fuseProgram } from '../program/fuse.ts';
import { planMemory } from '../program/memory_plan.ts';
import type { Program } from '../program/program.ts';
import { checkWeights, noteUnread } from '../weights/check_weights.ts';
import { PackedCache } from '../weights/packed_cache.ts';
import { readCheckpoint } from '../weights/safetensors.ts';
import { createBackend } from './backends.ts';
import { UniprocExecutor } from './uniproc_executor.ts';

/**
 * Context length of the program that facts are counted from. A longer context only adds rows to the RoPE table: less than a
 * hundredth of what the same positions take in the KV cache.
 */
const FACTS_CONTEXT = 256;
/** Tokens of the step that scratch memory is measured with; alignment is lost in it. */
const FACTS_TOKENS = 256;

const ELEMENT_TYPES: Readonly<Record<string, WeightDType>> = { F32: 'float32', BF16: 'bfloat16', F16: 'float16' };

/**
 * What `resolve()` must know of the model in `folder`. Reads config.json and the headers of the weight files, no weights.
 * Throws `model_files_missing`, `model_files_invalid`, `architecture_unknown`, `weights_invalid`, `unsupported_feature`.
 */
export function inspectModel(folder: string, overrides: JsonObject = {}): ModelFacts {
  const config = loadModelConfig(folder, overrides);
  const tensors = readCheckpoint(folder);
  const program = recordProgram(config, { maxModelLen: Math.min(FACTS_CONTEXT, config.maxModelLen) });
  checkWeights(program, tensors);
  const scratchBytes = planMemory(fuseProgram(program), { T: FACTS_TOKENS, S: 1, R: 0 }).bytes;
  return {
    modelPath: folder,
    architecture: config.architecture,
    vocabSize: config.vocabSize,
    maxPositionEmbeddings: config.maxModelLen,
    checkpointDType: checkpointType(program, tensors),
    ...countWeights(program),
    kv: program.kv,
    scratchElementsPerToken: Math.ceil(scratchBytes / 4 / FACTS_TOKENS),
  };
}

/** The element type that most weight bytes are stored in. */
function checkpointType(program: Program, tensors: ReadonlyMap<string, TensorSource>): WeightDType {
  const bytes = new Map<string, number>();
  for (const { tensors: names } of program.weights) {
    for (const name of names) {
      const tensor = tensors.get(name);
      if (tensor !== undefined) bytes.set(tensor.dtype, (bytes.get(tensor.dtype) ?? 0) + tensor.byteLength);
    }
  }
  const [most] = [...bytes].sort((a, b) => b[1] - a[1]);
  return ELEMENT_TYPES[most?.[0] ?? ''] ?? 'float32';
}

/** What decides the bytes of the plan's packed weights, and where they are kept. */
function packOptions(plan: EnginePlan): PackOptions {
  const overrides = (plan.config.hfOverrides ?? {}) as JsonObject;
  const program = recordProgram(loadModelConfig(plan.modelPath, overrides), { maxModelLen: plan.maxModelLen });
  const tensors = readCheckpoint(plan.modelPath);
  checkWeights(program, tensors);
  const { weightDType, quantization, packedCache: folder } = plan;
  const maxBytes = plan.config.packedCacheMaxBytes;
  const packedStore = folder === null ? {} : { packedStore: new PackedCache({ folder, maxBytes }) };
  return { program: fuseProgram(program), tensors, weightDType, quantization, ...packedStore };
}

/** The file of packed weights that loading the plan would map or write; null when none is kept. */
export function inspectPacked(plan: EnginePlan): PackedFile | null {
  return createBackend(plan.backend).findPacked(packOptions(plan));
}

export interface LoadCallbacks {
  /** Called as weights are packed, with counts of weights. */
  readonly onProgress?: (done: number, total: number) => void;
  /** Called once, with what became of the packed weights. */
  readonly onPacked?: (use: PackedUse) => void;
  /** Called with a line for the log about what the checkpoint holds and nothing reads. */
  readonly onUnread?: (note: string) => void;
  /** Is told how long each part of a step takes. */
  readonly spans?: Spans;
  /** The calling thread is there for this model alone. */
  readonly ownsThread?: boolean;
}

/** Loads the plan's model. Throws what {@link inspectModel} throws, `native_missing`, `isa_unsupported`, `out_of_memory`. */
export function loadExecutor(plan: EnginePlan, callbacks: LoadCallbacks = {}): Executor {
  const limits = {
    blockSize: plan.blockSize,
    maxNumBatchedTokens: plan.maxNumBatchedTokens,
    maxNumSeqs: plan.maxNumSeqs,
    maxLogitRows: maxLogitRows(plan),
  };
  const options = packOptions(plan);
  const note = noteUnread(options.program, options.tensors, plan.kvDType);
  if (note !== null) callbacks.onUnread?.(note);
  const model = createBackend(plan.backend).load({
    ...options,
    kvDType: plan.kvDType,
    numBlocks: plan.numBlocks,
    threads: plan.threads,
    threadPlaces: plan.threadPlaces,
    ownsThread: callbacks.ownsThread ?? false,
    ...limits,
    ...(plan.backend === 'cpu' ? { isa: plan.isa } : {}),
    ...(callbacks.onProgress === undefined ? {} : { onProgress: callbacks.onProgress }),
  });
  callbacks.onPacked?.(model.packed);
  const { spans } = callbacks;
  return new UniprocExecutor(
    model,
    limits,
    spans === undefined ? null : { spans, callNames: callNames(options.program) },
  );
}
