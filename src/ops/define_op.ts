/**
 * The op table's row type. An op is named once, here: from the row come the typed builder method, the native ids and
 * argument order (native/generated/ops.h), docs/ops.md, and the parity test over every backend and ISA level.
 */

/** A symbolic size: T tokens of a step, S sequences, R logit rows; or a fixed one. */
export type SymbolicDim = 'T' | 'S' | 'R';
export type Dim = number | SymbolicDim;
export type DType = 'f32' | 'i32';

/** How an operand reaches an op. `weight`s are packed by the backend; `optional` operands may be absent (-1). */
export interface OperandSpec {
  readonly kind: 'value' | 'weight' | 'step_input';
  readonly dtype: DType;
  /** Letters are bound per call ('K', 'N', 'D' ...); T, S, R are the step's. Checked by the builder. */
  readonly dims: readonly string[];
  readonly optional?: true;
  /** The matrix of a linear: stored in the type of `tolerance`'s key. */
  readonly packed?: true;
}

export interface AttrSpec {
  readonly type: 'int' | 'float';
  readonly doc: string;
}

/** Concrete sizes of one step. */
export interface StepSizes {
  readonly T: number;
  readonly S: number;
  readonly R: number;
}

/** Operand data as the reference sees it: always dequantised fp32 (or i32), row-major. */
export type OperandData = Float32Array | Int32Array;

/** A `packed` weight [outputs, inputs] as the reference sees it: what it does, whatever type it is stored in. */
export interface LinearOperand {
  /** y [rows, outputs] = x [rows, inputs] weight^T + bias [outputs]. */
  multiply(x: Float32Array, bias: Float32Array | null, y: Float32Array): void;
}

export interface ReferenceCall {
  /** In the order of `inputs`; null for an absent optional operand. */
  readonly inputs: readonly (OperandData | LinearOperand | null)[];
  readonly outputs: readonly OperandData[];
  readonly attrs: Readonly<Record<string, number>>;
  readonly sizes: StepSizes;
  /** KV state and step tables, for the ops that declare `usesKv`. */
  readonly kv: ReferenceKv | null;
  /** Concrete last dimension of each input and output (rows are T, S or R). */
  readonly inputShapes: readonly (readonly number[] | null)[];
  readonly outputShapes: readonly (readonly number[])[];
}

/** The reference KV cache: per layer `[slots, kvHeads * headDim]` fp32, slot = block * blockSize + offset. */
export interface ReferenceKv {
  readonly blockSize: number;
  readonly keys: readonly Float32Array[];
  readonly values: readonly Float32Array[];
  /** To the cache's type, in place: [tokens, kvHeads * headDim]; rounding twice changes nothing. */
  readonly round: (values: Float32Array) => Float32Array;
  readonly step: StepInputs;
}

/**
 * Everything a step needs, as typed arrays; block ids are the only handle to KV memory.
 * T tokens of S sequences, tokens of one sequence contiguous and in order.
 */
export interface StepInputs {
  readonly sizes: StepSizes;
  /** [T] */
  readonly tokenIds: Int32Array;
  /** [T] absolute position of each token in its sequence */
  readonly positions: Int32Array;
  /** [T] KV slot of each token: block * blockSize + offset */
  readonly slotMapping: Int32Array;
  /** [S + 1] first token of each sequence in T */
  readonly queryStarts: Int32Array;
  /** [S] context length of each sequence including this step's tokens */
  readonly seqLens: Int32Array;
  /** [S, maxBlocksPerSeq] */
  readonly blockTables: Int32Array;
  readonly maxBlocksPerSeq: number;
  /** [R] index into T of the tokens whose logits are wanted */
  readonly logitRows: Int32Array;
}

export interface OpSpec {
  readonly name: string;
  readonly doc: string;
  readonly inputs: Readonly<Record<string, OperandSpec>>;
  readonly outputs: Readonly<Record<string, OperandSpec>>;
  readonly attrs: Readonly<Record<string, AttrSpec>>;
  /** Reads or writes the KV cache (attr `layer`). */
  readonly usesKv?: true;
  /** Output 0 may share the buffer of input 0 when that input dies here. */
  readonly inplace?: true;
  /** A rule over letters and attrs that dims alone cannot say; returns what is wrong, or null. */
  readonly check?: (sizes: Readonly<Record<string, number>>) => string | null;
  /** The definition: slow and plain. */
  readonly reference: (call: ReferenceCall) => void;
  /**
   * Bytes moved and floating-point operations done, for benchmarks against the roof. `sizes` as in `cases`;
   * `weightBytes` (default 4) is the storage of one linear weight, `kvBytes` (default 4) that of one KV element.
   */
  readonly cost: (sizes: Readonly<Record<string, number>>) => { bytes: number; flops: number };
  /** Sizes for parity tests: odd ones so that tails run. Letters as in `dims`, plus attrs. */
  readonly cases: readonly Readonly<Record<string, number>>[];
  /** Largest normalised mean square error a backend may show, per weight dtype; a looser one carries its reason. */
  readonly tolerance: Readonly<Record<string, number>>;
}

export function defineOp<const T extends OpSpec>(spec: T): T {
  return spec;
}
