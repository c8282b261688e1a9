/** Seeded random operands for one row of an op's `cases`. */
import type { OpRun, Quantization, WeightDType } from '../../src/backends/backend.ts';
import { assert } from '../../src/base/assert.ts';
import type { KvDType } from '../../src/base/kv_dtypes.ts';
import { QUANTIZATIONS } from '../../src/base/quantization.ts';
import { Rng } from '../../src/base/rng.ts';
import type { OperandData, OperandSpec, OpSpec, StepInputs } from '../../src/ops/define_op.ts';

export type Sizes = Readonly<Record<string, number>>;

/** What a tolerance is keyed by: how linear weights are stored, or the KV type for ops that use the cache. */
export interface Storage {
  readonly weightDType: WeightDType;
  readonly quantization: Quantization;
  readonly kvDType: KvDType;
}

export function storageOf(op: OpSpec, key: string): Storage {
  const plain = { weightDType: 'float32', quantization: 'none', kvDType: 'float32' } as const;
  if (op.usesKv) return { ...plain, kvDType: key as KvDType };
  const quantization = QUANTIZATIONS.find((name) => name === key);
  return quantization ? { ...plain, quantization } : { ...plain, weightDType: key as WeightDType };
}

export function makeRun(op: OpSpec, sizes: Sizes, storage: Storage, seed: number): OpRun {
  const rng = new Rng(seed);
  const T = sizes['T'] ?? 1;
  const step = makeStep(rng, { T, S: sizes['S'] ?? 1, R: sizes['R'] ?? 1 }, sizes);
  const inputs: (OperandData | null)[] = [];
  const inputShapes: (readonly number[] | null)[] = [];
  for (const [name, spec] of Object.entries(op.inputs)) {
    const absent = spec.optional && !sizes[name];
    const shape = shapeOf(spec, sizes);
    inputShapes.push(absent ? null : shape);
    inputs.push(absent ? null : operand(rng, name, spec, shape, sizes, step));
  }
  const attrs = Object.fromEntries(Object.keys(op.attrs).map((name) => [name, sizes[name] as number]));
  return {
    op: op.name,
    attrs,
    sizes: step.sizes,
    inputs,
    inputShapes,
    outputShapes: Object.values(op.outputs).map((spec) => shapeOf(spec, sizes)),
    weightDType: storage.weightDType,
    quantization: storage.quantization,
    kv: op.usesKv ? makeKv(rng, step, sizes, storage.kvDType) : null,
    threads: 2,
    repeat: 0,
  };
}

function shapeOf(spec: OperandSpec, sizes: Sizes): number[] {
  return spec.dims.map((dim) => {
    const size = sizes[dim];
    assert(size !== undefined, `case lacks ${dim}`);
    return size;
  });
}

function operand(
  rng: Rng,
  name: string,
  spec: OperandSpec,
  shape: number[],
  sizes: Sizes,
  step: StepInputs,
): OperandData {
  const length = shape.reduce((a, b) => a * b, 1);
  switch (name) {
    case 'tokenIds':
      return Int32Array.from({ length }, () => rng.int(0, (sizes['V'] as number) - 1));
    case 'positions':
      // Ops that know sequences need the positions of the step's.
      if (sizes['context'] !== undefined) return step.positions;
      return Int32Array.from({ length }, () => rng.int(0, (sizes['P'] as number) - 1));
    case 'slotMapping':
      return step.slotMapping;
    case 'logitRows':
      return step.logitRows;
    case 'slopes':
      return Float32Array.from({ length }, () => 0.1 * rng.next());
    default:
      assert(spec.dtype === 'f32', `operand ${name} has no generator`);
      return Float32Array.from({ length }, () => rng.normal());
  }
}

/**
 * S sequences sharing T query tokens, the last tokens of contexts up to `context` long, in blocks scattered over a cache
 * that is a little too large.
 */
export function makeStep(rng: Rng, { T, S, R }: StepInputs['sizes'], sizes: Sizes): StepInputs {
  const context = sizes['context'] ?? T;
  const blockSize = sizes['blockSize'] ?? 16;
  const counts = Array.from({ length: S }, () => 1);
  for (let spare = T - S; spare > 0; spare--) {
    const open = [...counts.keys()].filter((s) => (counts[s] as number) < context);
    const s = rng.pick(open);
    counts[s] = (counts[s] as number) + 1;
  }
  const seqLens = Int32Array.from(counts, (count, s) => (s === 0 ? context : rng.int(count, context)));
  const maxBlocksPerSeq = Math.ceil(context / blockSize) + 1;
  const blockTables = shuffled(rng, S * maxBlocksPerSeq + 2).slice(0, S * maxBlocksPerSeq);
  const queryStarts = new Int32Array(S + 1);
  const positions = new Int32Array(T);
  const slotMapping = new Int32Array(T);
  let t = 0;
  for (let s = 0; s < S; s++) {
    queryStarts[s] = t;
    for (let i = 0; i < (counts[s] as number); i++, t++) {
      const position = (seqLens[s] as number) - (counts[s] as number) + i;
      const block = blockTables[s * maxBlocksPerSeq + Math.floor(position / blockSize)] as number;
      positions[t] = position;
      slotMapping[t] = block * blockSize + (position % blockSize);
    }
  }
  queryStarts[S] = T;
  const logitRows = shuffled(rng, T).slice(0, R).sort();
  return {
    sizes: { T, S, R },
    tokenIds: new Int32Array(T),
    positions,
    slotMapping,
    queryStarts,
    seqLens,
    blockTables,
    maxBlocksPerSeq,
    logitRows,
  };
}

/** A cache whose slots outside the sequences hold NaN: a kernel that lets one in is found out. */
function makeKv(rng: Rng, step: StepInputs, sizes: Sizes, dtype: KvDType): OpRun['kv'] {
  const [blockSize, kvHeads, headDim] = [sizes['blockSize'], sizes['kvHeads'], sizes['headDim']] as number[] as [
    number,
    number,
    number,
  ];
  const width = kvHeads * headDim;
  const blocks = Math.max(...step.blockTables) + 3;
  const keys = new Float32Array(blocks * blockSize * width).fill(Number.NaN);
  const values = keys.slice();
  for (let s = 0; s < step.sizes.S; s++) {
    for (let position = 0; position < (step.seqLens[s] as number); position++) {
      const block = step.blockTables[s * step.maxBlocksPerSeq + Math.floor(position / blockSize)] as number;
      const row = (block * blockSize + (position % blockSize)) * width;
      for (let i = row; i < row + width; i++) {
        keys[i] = rng.normal();
        values[i] = rng.normal();
      }
    }
  }
  return { dtype, blockSize, kvHeads, headDim, keys, values, step };
}

function shuffled(rng: Rng, count: number): Int32Array {
  const list = Int32Array.from({ length: count }, (_, i) => i);
  for (let i = count - 1; i > 0; i--) {
    const j = rng.int(0, i);
    [list[i], list[j]] = [list[j] as number, list[i] as number];
  }
  return list;
}
