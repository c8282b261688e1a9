/**
 * What a backend is to everybody above it. It takes a Program and weights, owns KV and weight memory, and runs one step a
 * call. Nothing above `src/backends` knows which one runs.
 */
import type { KvDType } from '../base/kv_dtypes.ts';
import type { Quantization } from '../base/quantization.ts';
import type { OperandData, StepInputs, StepSizes } from '../ops/define_op.ts';
import type { Program } from '../program/program.ts';

export type CheckpointDType =
  | 'F64'
  | 'F32'
  | 'F16'
  | 'BF16'
  | 'F8_E4M3'
  | 'F8_E5M2'
  | 'I64'
  | 'I32'
  | 'I16'
  | 'I8'
  | 'U8'
  | 'BOOL';

/** One tensor of a checkpoint, still on disk. Offsets were checked against the file's size by the reader. */
export interface TensorSource {
  readonly name: string;
  readonly dtype: CheckpointDType;
  readonly shape: readonly number[];
  readonly path: string;
  /** Byte offset of the first element in the file. */
  readonly offset: number;
  readonly byteLength: number;
}

export type WeightDType = 'float32' | 'bfloat16' | 'float16';
export type { Quantization };

/**
 * Where a backend keeps packed weights between starts. What a file holds is the backend's; names, room and age are the
 * store's.
 */
export interface PackedStore {
  /** Stands for the content of a weight file: the same for the same bytes, another for others. */
  identify(path: string): string;
  /** The file of a key, whether or not it exists. */
  pathOf(key: string): string;
  /** Notes that the file of a key is used now, so that others are deleted before it. */
  touch(key: string): void;
  /**
   * Makes room for the file of a key: the path to write to before it is renamed to `pathOf(key)`, or null when somebody else
   * is writing it. Throws when there is no room.
   */
  reserve(key: string, bytes: number): string | null;
}

/** A file of packed weights, as a start with these options would find it. */
export interface PackedFile {
  readonly path: string;
  readonly bytes: number;
  readonly state: 'present' | 'missing' | 'damaged';
}

/** What a load did with the packed store; the note is for whoever started the model. */
export interface PackedUse {
  readonly state: 'mapped' | 'writing' | 'unused';
  readonly note: string | null;
}

/** What decides the bytes of packed weights. */
export interface PackOptions {
  readonly program: Program;
  /** Checkpoint tensors by name; shapes were already checked against the program. */
  readonly tensors: ReadonlyMap<string, TensorSource>;
  /** Storage type of linear weights that are not quantised. */
  readonly weightDType: WeightDType;
  /** Of linear weights, with int8 activations made on the fly; see base/quantization.ts. */
  readonly quantization: Quantization;
  /** Absent: packed weights are not kept. */
  readonly packedStore?: PackedStore;
}

export interface ThreadPlace {
  /** It may run on each of them; empty = anywhere. */
  readonly cpus: readonly number[];
  /** NUMA node whose memory is near. */
  readonly node: number;
}

export interface LoadOptions extends PackOptions {
  readonly kvDType: KvDType;
  readonly blockSize: number;
  readonly numBlocks: number;
  readonly maxNumBatchedTokens: number;
  readonly maxNumSeqs: number;
  /** Most logit rows of one step (decode rows plus prompt_logprobs rows). */
  readonly maxLogitRows: number;
  readonly threads: number;
  /** Where each thread runs; absent = where the system likes. */
  readonly threadPlaces?: readonly ThreadPlace[];
  /** The calling thread is there for this model alone, so that it may be bound to its place as the others are. */
  readonly ownsThread?: boolean;
  /** Forced ISA level, for tests and `TOKENMILL_ISA`. */
  readonly isa?: string;
  /** Called as weights are packed. */
  readonly onProgress?: (done: number, total: number) => void;
}

/**
 * Row operations the sampler needs, over the logits of the last step. Rows are indices 0..R-1. All are deterministic and
 * each row is independent of the others (P1).
 */
export interface LogitRows {
  readonly vocabSize: number;
  /** View of row r, [vocab], writable: penalties and masks are edits of this view. Valid until the next `run`. */
  row(r: number): Float32Array;
  /** log(sum(exp(row))), accumulated in fp64. */
  logSumExp(r: number): number;
  /** Index of the largest logit; the lowest index wins a tie. */
  argmax(r: number): number;
  /** The k largest (id, logit), largest first, ties by lower id; -Infinity entries are left out. */
  topK(r: number, k: number): { ids: Int32Array; logits: Float32Array };
  /** 1-based rank of `id`: 1 + number of logits strictly larger. */
  rank(r: number, id: number): number;
  /** Restrict (min_p, top_k, top_p after temperature, in that order: reference section 3.2) and draw with `u` in [0, 1). */
  sample(r: number, params: DrawParams): number;
  /** As `sample` without the draw: writes the processed log-probabilities into row r, -Infinity where removed. */
  process(r: number, params: Omit<DrawParams, 'u'>): void;
}

/**
 * Tokens to be drawn from the logits of a step as they are, each row exactly as `argmax` or `sample` would draw alone. The
 * arrays may be longer; backends hold them.
 */
export interface RowDraws {
  readonly count: number;
  readonly rows: Int32Array;
  /** Five a row: temperature (0 = the largest logit), topK, topP, minP, u; as in {@link DrawParams}. */
  readonly numbers: Float64Array;
  /** Written; -1 where the row's largest, or the drawn, logit is not a finite number. */
  readonly tokenIds: Int32Array;
}

export interface DrawParams {
  readonly temperature: number;
  /** 0 = off */
  readonly topK: number;
  readonly topP: number;
  readonly minP: number;
  readonly u: number;
}

export interface LoadedModel {
  readonly backend: string;
  /** ISA level in use, e.g. `avx2`, `avx512_bf16`, `amx`, `neon_i8mm`; `reference` for the reference backend. */
  readonly isa: string;
  readonly memory: { readonly weightBytes: number; readonly kvBytes: number; readonly scratchBytes: number };
  readonly packed: PackedUse;
  /**
   * Runs the whole program on one step, then draws; synchronous; logits are then readable through `logits`. What does not
   * change from one run to the next is best given as the same object: the cpu backend looks at it once.
   */
  run(step: StepInputs, draws?: RowDraws): void;
  readonly logits: LogitRows;
  /** From now on each run writes here when call i - 1 had ended, ms since the run began: [calls + 1], the first is 0. */
  profile(): Float64Array;
  /** Runs the program op by op and hands out every output; for `verify --trace` and parity tests. */
  trace(step: StepInputs, visit: (callIndex: number, outputs: readonly Float32Array[]) => void): void;
  close(): void;
}

/** One op alone, for parity tests and `bench kernels`: the same kernels, fed by hand. */
export interface OpRun {
  readonly op: string;
  readonly attrs: Readonly<Record<string, number>>;
  readonly sizes: StepSizes;
  /** In the op table's order, row-major fp32 or i32 (weights too: they are packed here); null where absent. */
  readonly inputs: readonly (OperandData | null)[];
  readonly inputShapes: readonly (readonly number[] | null)[];
  readonly outputShapes: readonly (readonly number[])[];
  readonly weightDType: WeightDType;
  readonly quantization: Quantization;
  /** For ops that use KV: one layer's cache before the op, `[slots, kvHeads * headDim]`, and the step's tables. */
  readonly kv: null | {
    readonly dtype: KvDType;
    readonly blockSize: number;
    readonly kvHeads: number;
    readonly headDim: number;
    readonly keys: Float32Array;
    readonly values: Float32Array;
    readonly step: StepInputs;
  };
  readonly isa?: string;
  readonly threads: number;
  /** Timed repetitions after the first; 0 = run once. */
  readonly repeat: number;
}

export interface OpRunResult {
  readonly outputs: readonly Float32Array[];
  /** The layer's cache after the op, as fp32; null without KV. */
  readonly kv: null | { readonly keys: Float32Array; readonly values: Float32Array };
  /** Median seconds of the timed repetitions; 0 when none. */
  readonly seconds: number;
}

export interface Backend {
  readonly name: 'reference' | 'cpu';
  /** ISA levels that can run here, best first; tests loop over them. */
  readonly isaLevels: readonly string[];
  runOp(run: OpRun): OpRunResult;
  load(options: LoadOptions): LoadedModel;
  /** The file that `load` would map or write; null without a store, or when the backend keeps none. */
  findPacked(options: PackOptions): PackedFile | null;
}
