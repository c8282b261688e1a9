/**
 * A model folder with golden files (golden.json and golden.st: prompts with the logits and greedy tokens of another
 * implementation) against a backend: errors per prompt, and the first op that differs. `tokenmill verify` and the golden
 * tests stand on this.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { Backend, LoadedModel, Quantization, TensorSource, WeightDType } from '../backends/backend.ts';
import { TokenmillError } from '../base/errors.ts';
import { isQuantizedKv, type KvDType } from '../base/kv_dtypes.ts';
import { show } from '../base/show.ts';
import { type JsonObject, loadModelConfig, type ModelConfig, recordProgram } from '../models/index.ts';
import { readJsonFile } from '../models/json_file.ts';
import type { StepInputs } from '../ops/define_op.ts';
import { fuseProgram } from '../program/fuse.ts';
import type { Program } from '../program/program.ts';
import { checkWeights } from '../weights/check_weights.ts';
import { readTensor } from '../weights/read_tensor.ts';
import { readCheckpoint, readSafetensors } from '../weights/safetensors.ts';
import { type FirstDifference, firstDifference } from './verify_trace.ts';

export interface VerifyOptions {
  readonly folder: string;
  readonly backend: Backend;
  /** Defines what quantised weights and a quantised KV cache should compute, and is the other side of a trace. */
  readonly reference: Backend;
  readonly isa?: string;
  readonly weightDType: WeightDType;
  readonly quantization: Quantization;
  readonly kvDType: KvDType;
  readonly threads: number;
  /** Default: what the checkpoint is made for. */
  readonly maxModelLen?: number;
  /** Default `config.json`. */
  readonly configFile?: string;
  readonly trace?: boolean;
}

export interface PromptReport {
  readonly index: number;
  readonly length: number;
  /** Largest absolute logit error over the stored positions. */
  readonly maxAbsError: number;
  /** KL(expected || actual) in nats, over the stored positions. */
  readonly meanKl: number;
  readonly maxKl: number;
  /** Share of positions whose most likely token agrees. */
  readonly top1Agreement: number;
  readonly greedyTokens: number;
  /** Greedy steps, each after the expected tokens, whose choice differs by more than the error explains. */
  readonly greedyMismatches: number;
}

export interface VerifyReport {
  readonly name: string;
  readonly backend: string;
  readonly isa: string;
  readonly mode: string;
  readonly prompts: readonly PromptReport[];
  readonly maxAbsError: number;
  readonly meanKl: number;
  readonly maxKl: number;
  readonly top1Agreement: number;
  /** When weights or KV are quantised: the same three against the reference backend with the same; null otherwise. */
  readonly againstReference: null | {
    readonly maxAbsError: number;
    readonly meanKl: number;
    readonly maxKl: number;
  };
  /** What was exceeded; empty when the model passes. */
  readonly failures: readonly string[];
  readonly passed: boolean;
  readonly firstDifference: FirstDifference | null;
}

/** Absolute logit error allowed in fp32: the golden files' own bound for logits with a deviation of 2.5. */
const MAX_ABS_ERROR = 2e-4;
const BLOCK_SIZE = 16;

interface GoldenPrompt {
  readonly ids: readonly number[];
  readonly positions: readonly number[];
  readonly greedy: readonly number[];
  readonly expected: Float32Array;
}

interface Golden {
  readonly name: string;
  readonly prompts: readonly GoldenPrompt[];
  /** What rounding everything to bf16 does to this model; null when the file does not say. */
  readonly bf16: null | { readonly meanKl: number; readonly maxKl: number };
}

interface Loaded {
  readonly model: LoadedModel;
  readonly program: Program;
}

/** Runs every prompt of the folder. Throws when files are missing or invalid; a disagreement is a report, not an error. */
export function verifyFolder(options: VerifyOptions): VerifyReport {
  const config = loadModelConfig(readJsonFile(join(options.folder, options.configFile ?? 'config.json')));
  const maxModelLen = options.maxModelLen ?? config.maxModelLen;
  const recorded = recordProgram(config, { maxModelLen });
  // What is served, or, to name an op as the model has it, what was recorded: the bits are the same.
  const program = options.trace ? recorded : fuseProgram(recorded);
  const tensors = readCheckpoint(options.folder);
  checkWeights(program, tensors);
  const golden = readGolden(options.folder, config, maxModelLen);
  const loaded = { program, model: load(options.backend, options, program, tensors, golden) };
  const compares = isQuantized(options) && options.backend !== options.reference;
  const reference =
    compares || options.trace ? { program, model: load(options.reference, options, program, tensors, golden) } : null;
  try {
    const results = golden.prompts.map((prompt) => ({ prompt, actual: promptLogits(loaded, prompt) }));
    const errors = compareAll(
      results.map(({ prompt, actual }) => [prompt.expected, actual]),
      program.vocabSize,
    );
    const prompts = results.map(({ prompt }, index) => ({
      index,
      length: prompt.ids.length,
      ...compareAll([[prompt.expected, (results[index] as (typeof results)[number]).actual]], program.vocabSize),
      greedyTokens: prompt.greedy.length,
      greedyMismatches: greedyMismatches(loaded, prompt, errors.maxAbsError),
    }));
    const againstReference =
      compares && reference
        ? compareAll(
            results.map(({ prompt, actual }) => [promptLogits(reference, prompt), actual]),
            program.vocabSize,
          )
        : null;
    const failures = judge(options, loaded.model.isa, golden, { ...errors, prompts, againstReference });
    return {
      name: golden.name,
      backend: options.backend.name,
      isa: loaded.model.isa,
      mode: modeOf(options),
      prompts,
      ...errors,
      againstReference,
      failures,
      passed: failures.length === 0,
      firstDifference: options.trace && reference ? traceAll(reference, loaded, golden, options) : null,
    };
  } finally {
    loaded.model.close();
    reference?.model.close();
  }
}

function isQuantized({ quantization, kvDType }: VerifyOptions): boolean {
  return quantization !== 'none' || isQuantizedKv(kvDType);
}

function modeOf({ weightDType, quantization, kvDType }: VerifyOptions): string {
  return `${quantization === 'none' ? weightDType : quantization} weights, ${kvDType} KV`;
}

function load(
  backend: Backend,
  options: VerifyOptions,
  program: Program,
  tensors: ReadonlyMap<string, TensorSource>,
  golden: Golden,
): LoadedModel {
  const longest = Math.max(...golden.prompts.map((prompt) => prompt.ids.length));
  const tokens = Math.max(...golden.prompts.map((prompt) => prompt.ids.length + prompt.greedy.length));
  return backend.load({
    program,
    tensors,
    weightDType: options.weightDType,
    quantization: options.quantization,
    kvDType: options.kvDType,
    blockSize: BLOCK_SIZE,
    numBlocks: Math.ceil(tokens / BLOCK_SIZE) + 1,
    maxNumBatchedTokens: longest,
    maxNumSeqs: 1,
    maxLogitRows: longest,
    threads: options.threads,
    ...(options.isa === undefined ? {} : { isa: options.isa }),
  });
}

/** Blocks in descending order, so that a kernel that takes slots for positions is found out. */
function stepInputs(
  ids: readonly number[],
  from: number,
  to: number,
  rows: readonly number[],
  blocks: number,
): StepInputs {
  const count = to - from;
  const blockTables = Int32Array.from({ length: blocks }, (_, i) => blocks - 1 - i);
  const positions = Int32Array.from({ length: count }, (_, i) => from + i);
  return {
    sizes: { T: count, S: 1, R: rows.length },
    tokenIds: Int32Array.from(ids.slice(from, to)),
    positions,
    slotMapping: positions.map(
      (p) => (blockTables[Math.floor(p / BLOCK_SIZE)] as number) * BLOCK_SIZE + (p % BLOCK_SIZE),
    ),
    queryStarts: Int32Array.of(0, count),
    seqLens: Int32Array.of(to),
    blockTables,
    maxBlocksPerSeq: blocks,
    logitRows: Int32Array.from(rows),
  };
}

function blocksOf(prompt: GoldenPrompt): number {
  return Math.ceil((prompt.ids.length + prompt.greedy.length) / BLOCK_SIZE);
}

function promptStep(prompt: GoldenPrompt): StepInputs {
  return stepInputs(prompt.ids, 0, prompt.ids.length, prompt.positions, blocksOf(prompt));
}

/** [positions, vocab] of a prompt in one step. */
function promptLogits({ model, program }: Loaded, prompt: GoldenPrompt): Float32Array {
  model.run(promptStep(prompt));
  const actual = new Float32Array(prompt.positions.length * program.vocabSize);
  for (let r = 0; r < prompt.positions.length; r++) actual.set(model.logits.row(r), r * program.vocabSize);
  return actual;
}

/** One token a step through the KV cache, after the expected tokens whatever the model itself would have chosen. */
function greedyMismatches({ model }: Loaded, prompt: GoldenPrompt, error: number): number {
  const ids = [...prompt.ids, ...prompt.greedy];
  let from = 0;
  let mismatches = 0;
  for (let to = prompt.ids.length; to < ids.length; to++) {
    model.run(stepInputs(ids, from, to, [to - from - 1], blocksOf(prompt)));
    const row = model.logits.row(0);
    const gap = (row[model.logits.argmax(0)] as number) - (row[ids[to] as number] as number);
    // Two logits may each be off by the error; NaN must count as a mismatch.
    if (!(gap <= 2 * error)) mismatches++;
    from = to;
  }
  return mismatches;
}

interface Errors {
  readonly maxAbsError: number;
  readonly meanKl: number;
  readonly maxKl: number;
  readonly top1Agreement: number;
}

/** Over all rows of all pairs (expected, actual). NaN anywhere makes the errors NaN. */
function compareAll(pairs: readonly (readonly [Float32Array, Float32Array])[], vocab: number): Errors {
  let [maxAbsError, sumKl, maxKl, agreed, rows] = [0, 0, 0, 0, 0];
  for (const [expected, actual] of pairs) {
    for (let start = 0; start < expected.length; start += vocab, rows++) {
      const [e, a] = [expected.subarray(start, start + vocab), actual.subarray(start, start + vocab)];
      const kl = divergence(e, a);
      sumKl += kl;
      maxKl = Math.max(maxKl, kl);
      for (let i = 0; i < vocab; i++)
        maxAbsError = Math.max(maxAbsError, Math.abs((e[i] as number) - (a[i] as number)));
      if (largest(e) === largest(a)) agreed++;
    }
  }
  return { maxAbsError, meanKl: sumKl / rows, maxKl, top1Agreement: agreed / rows };
}

/** KL of the softmax of two rows, in nats. */
function divergence(expected: Float32Array, actual: Float32Array): number {
  const [shiftE, shiftA] = [logSumExp(expected), logSumExp(actual)];
  let sum = 0;
  for (let i = 0; i < expected.length; i++) {
    const logP = (expected[i] as number) - shiftE;
    sum += Math.exp(logP) * (logP - ((actual[i] as number) - shiftA));
  }
  return sum;
}

function logSumExp(row: Float32Array): number {
  const max = row[largest(row)] as number;
  return max + Math.log(row.reduce((sum, logit) => sum + Math.exp(logit - max), 0));
}

function largest(row: Float32Array): number {
  let best = 0;
  for (let i = 1; i < row.length; i++) if ((row[i] as number) > (row[best] as number)) best = i;
  return best;
}

type Judged = Errors & Pick<VerifyReport, 'prompts' | 'againstReference'>;

/** Levels whose bf16 instructions take activations in bf16: all of them in linears, AMX also queries and weights of attention. */
const ROUNDS_ACTIVATIONS = /^(avx512_bf16|amx|neon_i8mm)/;
const ROUNDS_ATTENTION = /^amx/;

/** What exceeds the tolerance of the mode; the bounds are those of the golden files' README. */
function judge(options: VerifyOptions, isa: string, { bf16 }: Golden, measured: Judged): string[] {
  const failures: string[] = [];
  const atMost = (what: string, value: number, bound: number) => {
    if (!(value <= bound)) failures.push(`${what} is ${value.toPrecision(3)}, allowed ${bound.toPrecision(3)}`);
  };
  const quantized = isQuantized(options);
  const exact = !quantized && options.weightDType === 'float32' && options.kvDType === 'float32';
  const rounded = quantized ? measured.againstReference : measured;
  if (exact) {
    atMost('max abs logit error', measured.maxAbsError, MAX_ABS_ERROR);
  } else if (bf16 !== null && rounded !== null) {
    const what = quantized ? ' against the reference backend' : '';
    // Where activations are rounded to bf16 too, a last bit decides between distant neighbours in fp8: a part of what that
    // rounding itself costs, up to 0.39 of its mean and 0.59 of its largest KL on the golden models.
    const coarse =
      options.kvDType.startsWith('fp8') && options.weightDType === 'bfloat16' && ROUNDS_ACTIVATIONS.test(isa);
    const flips = coarse ? measured : { meanKl: 0, maxKl: 0 };
    // The reference keeps queries and weights of attention in fp32. Where they are rounded to bf16, int8 roundings after them flip: up to
    // 2.9 times what rounding to bf16 costs, on the golden models; the distance to fp32 logits stays what it was.
    const times = quantized && options.kvDType === 'bfloat16' && ROUNDS_ATTENTION.test(isa) ? 4 : 2;
    atMost(`mean KL${what}`, rounded.meanKl, Math.max(times * bf16.meanKl, flips.meanKl / 2));
    atMost(`max KL${what}`, rounded.maxKl, Math.max(4 * bf16.maxKl, flips.maxKl));
  }
  for (const prompt of measured.prompts) {
    atMost(`greedy mismatches of prompt ${prompt.index}`, prompt.greedyMismatches, 0);
  }
  return failures;
}

function traceAll(reference: Loaded, loaded: Loaded, golden: Golden, options: VerifyOptions): FirstDifference | null {
  const exact = options.weightDType === 'float32' && options.kvDType === 'float32' && options.quantization === 'none';
  for (const prompt of golden.prompts) {
    const found = firstDifference(
      loaded.program,
      reference.model,
      loaded.model,
      promptStep(prompt),
      exact ? 1e-9 : 1e-4,
    );
    if (found !== null) return found;
  }
  return null;
}

function readGolden(folder: string, config: ModelConfig, maxModelLen: number): Golden {
  const json = readJsonFile(join(folder, 'golden.json'));
  const path = join(folder, 'golden.st');
  if (!existsSync(path)) throw new TokenmillError('model_files_missing', `${path} does not exist.`);
  if (json['kind'] !== 'lm') {
    throw new TokenmillError('unsupported_feature', `Golden files of kind ${show(json['kind'])} cannot be run.`);
  }
  const { scaling } = config.rope;
  // Tables that transformers changes with the sequence's length are fixed at load here; the files hold both readings.
  const fixed =
    scaling.type === 'dynamic' || (scaling.type === 'longrope' && maxModelLen > scaling.originalMaxPosition);
  const tensors = readSafetensors(path);
  const list = Array.isArray(json['prompts']) ? (json['prompts'] as readonly JsonObject[]) : [];
  const prompts = list.map((prompt, i) => readPrompt(prompt, i, fixed, config.vocabSize, tensors));
  if (prompts.length === 0) throw new TokenmillError('model_files_invalid', `${folder}: golden.json has no prompts.`);
  // A longer prompt cannot be run when the context was cut on purpose.
  const fitting = prompts.filter((prompt) => prompt.ids.length + prompt.greedy.length <= maxModelLen);
  return { name: String(json['name'] ?? folder), prompts: fitting, bf16: readYardstick(json) };
}

function readPrompt(
  prompt: JsonObject,
  index: number,
  fixed: boolean,
  vocabSize: number,
  tensors: ReadonlyMap<string, TensorSource>,
): GoldenPrompt {
  const suffix = fixed ? '_fixed' : '';
  const numbers = (key: string, limit: number): readonly number[] => {
    const list = prompt[key];
    if (Array.isArray(list) && list.every((item) => Number.isInteger(item) && item >= 0 && item < limit)) return list;
    throw new TokenmillError(
      'model_files_invalid',
      `golden.json: ${key} of prompt ${index} is not a list below ${limit}.`,
    );
  };
  const ids = numbers('ids', vocabSize);
  const positions = numbers(`positions${suffix}`, ids.length);
  const name = `logits${suffix}.${index}`;
  const tensor = tensors.get(name);
  if (tensor === undefined || tensor.shape.join() !== `${positions.length},${vocabSize}`) {
    throw new TokenmillError('model_files_invalid', `golden.st: ${name} must be [${positions.length}, ${vocabSize}].`);
  }
  return { ids, positions, greedy: numbers(`greedy${suffix}`, vocabSize), expected: readTensor(tensor) };
}

function readYardstick(json: JsonObject): Golden['bf16'] {
  const stats = (json['stats'] as JsonObject | undefined)?.['bf16'] as JsonObject | undefined;
  const [meanKl, maxKl] = [stats?.['mean_kl'], stats?.['max_kl']];
  return typeof meanKl === 'number' && typeof maxKl === 'number' ? { meanKl, maxKl } : null;
}
