/** The definition of a backend: every op by its plain `reference`, everything fp32 in JavaScript, one op after the other. */
import { assert } from '../../base/assert.ts';
import { TokenmillError } from '../../base/errors.ts';
import type { KvDType } from '../../base/kv_dtypes.ts';
import { groupOf, type QuantizedType, storedAs } from '../../base/quantization.ts';
import type { LinearOperand, OperandData, ReferenceKv, StepInputs } from '../../ops/define_op.ts';
import { denseWeight } from '../../ops/dense_weight.ts';
import { opByName } from '../../ops/index.ts';
import { elementCount } from '../../program/memory_plan.ts';
import { makesLogits, type OpCall, type Program, type ValueId, type WeightDecl } from '../../program/program.ts';
import { roundTo } from '../../quant/dtypes.ts';
import { encodeInt4Weight, int4Linear } from '../../quant/int4_group.ts';
import { encodeInt8Weight, int8Linear } from '../../quant/int8_channel.ts';
import { roundKv } from '../../quant/kv_cache.ts';
import type { Backend, LoadedModel, LoadOptions, OpRun, OpRunResult, RowDraws } from '../backend.ts';
import { drawRows, ReferenceLogitRows } from './logit_rows.ts';
import { readWeight } from './read_weight.ts';

export function createReferenceBackend(): Backend {
  return {
    name: 'reference',
    isaLevels: ['reference'],
    runOp,
    load: (options) => new ReferenceModel(options),
    findPacked: () => null,
  };
}

/** A linear's matrix in the type it is stored in. */
interface LinearWeight extends LinearOperand {
  readonly bytes: number;
}

type Weight = Float32Array | LinearWeight;

type KvCache = Omit<ReferenceKv, 'step'>;

function rounding(dtype: KvDType, headDim: number): KvCache['round'] {
  return (values) => roundKv(dtype, values, headDim);
}

class ReferenceModel implements LoadedModel {
  readonly backend = 'reference';
  readonly packed = { state: 'unused', note: null } as const;
  readonly isa = 'reference';
  readonly memory: LoadedModel['memory'];
  readonly logits: ReferenceLogitRows;
  private readonly program: Program;
  private readonly limits: LoadOptions;
  private readonly weights: ReadonlyMap<ValueId, Weight>;
  private readonly kv: KvCache;
  private readonly logitData: Float32Array;
  private marks: Float64Array | null = null;

  constructor(options: LoadOptions) {
    const { program, numBlocks, blockSize } = options;
    this.program = program;
    this.limits = options;
    this.weights = loadWeights(options);
    const { layers, kvHeads, headDim } = program.kv;
    const cache = () =>
      Array.from({ length: layers }, () => new Float32Array(numBlocks * blockSize * kvHeads * headDim));
    this.kv = { blockSize, keys: cache(), values: cache(), round: rounding(options.kvDType, headDim) };
    this.logitData = new Float32Array(options.maxLogitRows * program.vocabSize);
    this.logits = new ReferenceLogitRows(this.logitData, program.vocabSize);
    let weightBytes = 0;
    for (const weight of this.weights.values()) {
      weightBytes += weight instanceof Float32Array ? weight.byteLength : weight.bytes;
    }
    const kvBytes = 2 * layers * numBlocks * blockSize * kvHeads * headDim * 4;
    this.memory = { weightBytes, kvBytes, scratchBytes: this.logitData.byteLength };
  }

  run(step: StepInputs, draws?: RowDraws): void {
    const startMs = performance.now();
    this.trace(step, (index) => {
      if (this.marks !== null) this.marks[index + 1] = performance.now() - startMs;
    });
    if (draws !== undefined) drawRows(this.logits, draws);
  }

  profile(): Float64Array {
    this.marks = new Float64Array(this.program.calls.length + 1);
    return this.marks;
  }

  trace(step: StepInputs, visit: (callIndex: number, outputs: readonly Float32Array[]) => void): void {
    const { T, S, R } = step.sizes;
    const { maxNumBatchedTokens, maxNumSeqs, maxLogitRows } = this.limits;
    assert(T <= maxNumBatchedTokens && S <= maxNumSeqs && R <= maxLogitRows, 'the step exceeds the loaded limits');
    const temporaries = new Map<ValueId, Float32Array>();
    for (const [index, call] of this.program.calls.entries()) {
      visit(index, this.runCall(call, step, temporaries));
    }
    this.logitData.set(temporaries.get(this.program.logits) as Float32Array);
  }

  close(): void {}

  private runCall(call: OpCall, step: StepInputs, temporaries: Map<ValueId, Float32Array>): Float32Array[] {
    const { program } = this;
    const shapeOf = (id: ValueId): readonly number[] =>
      (program.values[id]?.shape ?? []).map((dim) => (typeof dim === 'number' ? dim : step.sizes[dim]));
    const outputs = call.outputs.map((id) => {
      const data = new Float32Array(elementCount(program.values[id]?.shape ?? [], step.sizes));
      temporaries.set(id, data);
      return data;
    });
    const op = opByName(call.op);
    op.reference({
      attrs: call.attrs,
      sizes: step.sizes,
      inputs: call.inputs.map((id) => this.operand(id, step, temporaries)),
      inputShapes: call.inputs.map((id) => (id < 0 ? null : shapeOf(id))),
      outputs,
      outputShapes: call.outputs.map(shapeOf),
      kv: op.usesKv ? { ...this.kv, step } : null,
    });
    return outputs;
  }

  private operand(
    id: ValueId,
    step: StepInputs,
    temporaries: ReadonlyMap<ValueId, Float32Array>,
  ): OperandData | LinearOperand | null {
    const value = this.program.values[id];
    if (value === undefined) return null;
    if (value.kind === 'weight') return this.weights.get(id) ?? null;
    if (value.kind === 'temporary') return temporaries.get(id) ?? null;
    return step[value.name as 'tokenIds' | 'positions' | 'slotMapping' | 'logitRows'];
  }
}

function loadWeights(options: LoadOptions): Map<ValueId, Weight> {
  const { weights } = options.program;
  const loaded = new Map<ValueId, Weight>();
  for (const [done, decl] of weights.entries()) {
    loaded.set(decl.value, loadWeight(decl, options));
    options.onProgress?.(done + 1, weights.length);
  }
  return loaded;
}

function loadWeight(decl: WeightDecl, { program, tensors, weightDType, quantization }: LoadOptions): Weight {
  if (decl.computeRows !== undefined) return decl.computeRows(0, decl.shape[0] as number);
  const data = readWeight(decl, tensors);
  refuseNonFinite(decl, data, 'The checkpoint is damaged; download it again.');
  if (decl.role !== 'linear') return data;
  const stored = storedAs(quantization, makesLogits(program, decl.value));
  const packed = packLinear(data, decl.shape[1] as number, weightDType, stored);
  // Rounded in place.
  if (stored === null) refuseNonFinite(decl, data, `Its values do not fit ${weightDType}; choose another --dtype.`);
  return packed;
}

function refuseNonFinite(decl: WeightDecl, data: Float32Array, remedy: string): void {
  const bad = data.findIndex((element) => !Number.isFinite(element));
  if (bad < 0) return;
  throw new TokenmillError('weights_invalid', `Weight ${decl.name} holds ${data[bad]} at element ${bad}.`, { remedy });
}

function packLinear(
  data: Float32Array,
  width: number,
  dtype: LoadOptions['weightDType'],
  quantized: QuantizedType | null,
): LinearWeight {
  if (quantized === null) return { ...denseWeight(roundTo(dtype, data), width), bytes: data.byteLength };
  const group = groupOf(quantized);
  if (group === null) {
    const weight = encodeInt8Weight(data, width);
    return { multiply: (x, bias, y) => int8Linear(x, weight, bias, y), bytes: bytesOf(weight) };
  }
  const weight = encodeInt4Weight(data, width, group);
  return { multiply: (x, bias, y) => int4Linear(x, weight, bias, y), bytes: bytesOf(weight) };
}

function bytesOf(weight: object): number {
  return Object.values(weight).reduce((sum, part) => sum + (ArrayBuffer.isView(part) ? part.byteLength : 0), 0);
}

function runOp(run: OpRun): OpRunResult {
  const op = opByName(run.op);
  const specs = Object.values(op.inputs);
  const outputs = run.outputShapes.map((shape) => new Float32Array(shape.reduce((a, b) => a * b, 1)));
  const inputs = run.inputs.map((data, i) => {
    if (data === null || !specs[i]?.packed) return data;
    const width = run.inputShapes[i]?.[1] as number;
    return packLinear((data as Float32Array).slice(), width, run.weightDType, storedAs(run.quantization, false));
  });
  let kv: ReferenceKv | null = null;
  if (run.kv !== null) {
    const { dtype, blockSize, headDim, step } = run.kv;
    const round = rounding(dtype, headDim);
    kv = { blockSize, keys: [round(run.kv.keys.slice())], values: [round(run.kv.values.slice())], round, step };
  }
  const times: number[] = [];
  for (let i = 0; i <= run.repeat; i++) {
    const start = performance.now();
    op.reference({ ...run, inputs, outputs, kv });
    times.push((performance.now() - start) / 1000);
  }
  const timed = times.slice(1).sort((a, b) => a - b);
  const [keys, values] = [kv?.keys[0], kv?.values[0]];
  return {
    outputs,
    kv: keys && values ? { keys, values } : null,
    seconds: timed[Math.floor(timed.length / 2)] ?? 0,
  };
}
