/** The ops of a model at the sizes it really has, as runs for a backend: each different op call once. */
import type { OpRun, Quantization, WeightDType } from '../../backends/backend.ts';
import { assert } from '../../base/assert.ts';
import { type KvDType, kvHeadBytes } from '../../base/kv_dtypes.ts';
import { quantizedBytes, storedAs } from '../../base/quantization.ts';
import { Rng } from '../../base/rng.ts';
import type { Dim, OperandData, OpSpec, StepInputs } from '../../ops/define_op.ts';
import { opByName } from '../../ops/index.ts';
import type { OpCall, Program, ProgramValue } from '../../program/program.ts';

/** One step's form. */
export interface StepShape {
  readonly sequences: number;
  /** Of each sequence in this step. */
  readonly tokens: number;
  /** In the KV cache before the step, of each sequence. */
  readonly context: number;
}

export interface KernelOptions {
  readonly weightDType: WeightDType;
  readonly quantization: Quantization;
  readonly kvDType: KvDType;
  readonly blockSize: number;
  readonly threads: number;
  readonly repeat: number;
  readonly isa?: string;
}

export interface KernelRun {
  /** E.g. `linear [8, 2048] x [3072, 2048]`. */
  readonly label: string;
  readonly run: OpRun;
  readonly cost: { readonly bytes: number; readonly flops: number };
}

/** Larger weights are cut along dimension 0: vocabularies would need gigabytes of fp32 and show the same rates. */
const MAX_WEIGHT_ELEMENTS = 32 << 20;

/** Sequences of equal length in consecutive blocks; logits for the last token of each. */
export function makeStep({ sequences, tokens, context }: StepShape, blockSize: number): StepInputs {
  const length = context + tokens;
  const maxBlocksPerSeq = Math.ceil(length / blockSize);
  const each = <T>(make: (sequence: number, token: number) => T) =>
    Array.from({ length: sequences * tokens }, (_, at) => make(Math.floor(at / tokens), at % tokens));
  return {
    sizes: { T: sequences * tokens, S: sequences, R: sequences },
    tokenIds: new Int32Array(sequences * tokens),
    positions: Int32Array.from(each((_, token) => context + token)),
    slotMapping: Int32Array.from(each((sequence, token) => sequence * maxBlocksPerSeq * blockSize + context + token)),
    queryStarts: Int32Array.from({ length: sequences + 1 }, (_, sequence) => sequence * tokens),
    seqLens: new Int32Array(sequences).fill(length),
    blockTables: Int32Array.from({ length: sequences * maxBlocksPerSeq }, (_, block) => block),
    maxBlocksPerSeq,
    logitRows: Int32Array.from({ length: sequences }, (_, sequence) => (sequence + 1) * tokens - 1),
  };
}

/** Cheap values around zero: filling a hundred megabytes must not take longer than measuring. */
function fill(length: number, rng: Rng): Float32Array {
  const values = new Float32Array(length);
  const pattern = Math.min(length, 4093);
  for (let i = 0; i < pattern; i++) values[i] = rng.next() - 0.5;
  for (let filled = pattern; filled < length; filled *= 2) values.copyWithin(filled, 0, filled);
  return values;
}

function cutShape(value: ProgramValue, sizes: StepInputs['sizes']): number[] {
  const shape = value.shape.map((dim: Dim) => (typeof dim === 'number' ? dim : sizes[dim]));
  const elements = shape.reduce((a, b) => a * b, 1);
  const first = shape[0] as number;
  if (value.kind === 'weight' && elements > MAX_WEIGHT_ELEMENTS) {
    shape[0] = Math.max(1, Math.floor(MAX_WEIGHT_ELEMENTS / (elements / first)));
  }
  return shape;
}

/** Letters of the op's operands bound to the run's shapes, with the attributes and what `cost` may ask for. */
function costSizes(op: OpSpec, run: OpRun, shape: StepShape): Record<string, number> {
  const sizes: Record<string, number> = { ...run.attrs, ...run.sizes };
  for (const [index, { dims }] of Object.values(op.inputs).entries()) {
    for (const [axis, dim] of dims.entries()) sizes[dim] = run.inputShapes[index]?.[axis] ?? sizes[dim] ?? 0;
  }
  // Query i of a chunk sees i + 1 keys of it: half on average.
  sizes['context'] = shape.context + (shape.tokens + 1) / 2;
  const type = storedAs(run.quantization, false);
  sizes['weightBytes'] = type === null ? (run.weightDType === 'float32' ? 4 : 2) : quantizedBytes(type, 1, 0);
  if (run.kv) sizes['kvBytes'] = kvHeadBytes(run.kv.dtype, run.kv.headDim) / run.kv.headDim;
  return sizes;
}

function operand(
  value: ProgramValue,
  shape: readonly number[],
  step: StepInputs,
  vocab: number,
  rng: Rng,
): OperandData {
  const length = shape.reduce((a, b) => a * b, 1);
  switch (value.kind === 'step_input' ? value.name : '') {
    case 'tokenIds':
      return Int32Array.from({ length }, () => rng.int(0, vocab - 1));
    case 'positions':
      return step.positions;
    case 'slotMapping':
      return step.slotMapping;
    case 'logitRows':
      return step.logitRows;
    default:
      assert(value.dtype === 'f32', `no values for ${value.name}`);
      return fill(length, rng);
  }
}

/** The step's sizes as this call sees them: the rows an op calls T are the logit rows for the linear behind the last norm. */
function callSizes(op: OpSpec, step: StepInputs, inputShapes: OpRun['inputShapes']): StepInputs['sizes'] {
  const sizes = { ...step.sizes };
  for (const [at, { kind, dims }] of Object.values(op.inputs).entries()) {
    const rows = inputShapes[at]?.[0];
    if (kind === 'value' && rows !== undefined) sizes[dims[0] as keyof StepInputs['sizes']] = rows;
  }
  return sizes;
}

function makeRun(program: Program, call: OpCall, shape: StepShape, options: KernelOptions): KernelRun {
  const op = opByName(call.op);
  const rng = new Rng(1);
  const step = makeStep(shape, options.blockSize);
  const values = call.inputs.map((id) => (id === -1 ? null : (program.values[id] as ProgramValue)));
  const inputShapes = values.map((value) => (value === null ? null : cutShape(value, step.sizes)));
  const matrix = Object.values(op.inputs).findIndex(({ packed }) => packed);
  const rows = inputShapes[1]?.[0] ?? 0;
  const outputShapes = call.outputs.map((id) => cutShape(program.values[id] as ProgramValue, step.sizes));
  // A linear whose weight was cut has as many outputs as the weight has rows left.
  if (matrix >= 0) for (const output of outputShapes) output[1] = inputShapes[matrix]?.[0] as number;
  const { kvHeads, headDim } = program.kv;
  const slots = shape.sequences * step.maxBlocksPerSeq * options.blockSize * kvHeads * headDim;
  const run: OpRun = {
    op: call.op,
    attrs: 'layer' in call.attrs ? { ...call.attrs, layer: 0 } : call.attrs,
    sizes: callSizes(op, step, inputShapes),
    inputs: values.map((value, at) =>
      value === null ? null : operand(value, inputShapes[at] as number[], step, rows, rng),
    ),
    inputShapes,
    outputShapes,
    weightDType: options.weightDType,
    quantization: options.quantization,
    kv: op.usesKv
      ? {
          dtype: options.kvDType,
          blockSize: options.blockSize,
          kvHeads,
          headDim,
          keys: fill(slots, rng),
          values: fill(slots, rng),
          step,
        }
      : null,
    threads: options.threads,
    repeat: options.repeat,
    ...(options.isa === undefined ? {} : { isa: options.isa }),
  };
  const shown = inputShapes.filter((input, at) => input !== null && values[at]?.kind !== 'step_input');
  const context = op.usesKv && shape.context > 0 ? ` context ${shape.context}` : '';
  return {
    label: `${call.op} ${shown.map((dims) => `[${dims?.join(', ')}]`).join(' x ')}${context}`,
    run,
    cost: op.cost(costSizes(op, run, shape)),
  };
}

/** Each different call of the program, in its order. Lazily: the operands of one run at a time fit into memory. */
export function* kernelRuns(program: Program, shape: StepShape, options: KernelOptions): Generator<KernelRun> {
  const seen = new Set<string>();
  for (const call of program.calls) {
    const { layer: _layer, ...attrs } = call.attrs;
    const shapes = [...call.inputs, ...call.outputs].map((id) => (id === -1 ? null : program.values[id]?.shape));
    const key = JSON.stringify([call.op, attrs, shapes]);
    if (seen.has(key)) continue;
    seen.add(key);
    yield makeRun(program, call, shape, options);
  }
}
