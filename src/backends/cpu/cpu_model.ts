import { assert } from '../../base/assert.ts';
import { TokenmillError } from '../../base/errors.ts';
import type { StepInputs } from '../../ops/define_op.ts';
import { elementCount, planMemory } from '../../program/memory_plan.ts';
import type { Program, ValueId, WeightDecl } from '../../program/program.ts';
import type {
  CheckpointDType,
  LoadedModel,
  LoadOptions,
  PackedUse,
  RowDraws,
  TensorSource,
  WeightDType,
} from '../backend.ts';
import { CpuLogitRows } from './cpu_logit_rows.ts';
import { loadNative, type NativeModel, type NativeStep, type NativeTensor, native } from './native_binding.ts';
import { flattenCalls, flattenValues } from './native_program.ts';
import { isPacked, linearType, mapPacked, planPacked, savePacked } from './packed_weights.ts';

/** Rows of a computed table that are made at once. */
const TABLE_ROWS = 4096;

/** A program and its weights in native memory. */
export class CpuModel implements LoadedModel {
  readonly backend = 'cpu';
  readonly isa: string;
  readonly memory: LoadedModel['memory'];
  readonly packed: PackedUse;
  readonly logits: CpuLogitRows;
  private readonly program: Program;
  private readonly model: NativeModel;
  /** Rows of computed tables that are there; the whole table would take longer than mapping the weights. */
  private tableRows = 0;
  /** What native memory knows of already, and how many tokens the next run draws. */
  private step: StepInputs | null = null;
  private draws: RowDraws | null = null;
  private drawCount = 0;
  private readonly runBound = (): void => this.model.run(this.drawCount);

  /** `isa` is one that this processor has. Throws TokenmillError when memory or the weight files do not suffice. */
  constructor(options: LoadOptions, isa: string) {
    this.isa = isa;
    this.program = options.program;
    this.model = createNativeModel(options, isa);
    try {
      const plan = planPacked(options);
      const mapped = plan !== null && mapPacked(this.model, plan, options);
      loadWeights(this.model, options, mapped);
      native(() => this.model.finishLoading());
      if (mapped) this.packed = { state: 'mapped', note: null };
      else this.packed = plan === null ? { state: 'unused', note: null } : savePacked(this.model, plan, options);
    } catch (error) {
      this.model.close();
      throw error;
    }
    this.memory = native(() => this.model.memory());
    this.logits = new CpuLogitRows(this.model, options.program.vocabSize);
  }

  run(step: StepInputs, draws?: RowDraws): void {
    if (step !== this.step) this.bindStep(step);
    this.growTables(step);
    if (draws !== undefined && draws !== this.draws) this.bindDraws(draws);
    this.drawCount = draws?.count ?? 0;
    native(this.runBound);
  }

  profile(): Float64Array {
    const marks = new Float64Array(this.program.calls.length + 1);
    native(() => this.model.profile(marks));
    return marks;
  }

  trace(step: StepInputs, visit: (callIndex: number, outputs: readonly Float32Array[]) => void): void {
    this.bindStep(step);
    this.growTables(step);
    for (const [index, call] of this.program.calls.entries()) {
      native(() => this.model.runCalls(index, index + 1));
      visit(
        index,
        call.outputs.map((id) => this.read(id, step)),
      );
    }
  }

  close(): void {
    native(() => this.model.close());
  }

  private bindStep(step: StepInputs): void {
    this.step = null;
    native(() => this.model.bindStep(...nativeStep(step)));
    this.step = step;
  }

  private bindDraws(draws: RowDraws): void {
    this.draws = null;
    native(() => this.model.bindDraws(draws.rows, draws.numbers, draws.tokenIds));
    this.draws = draws;
  }

  /** Computes the table rows that this step's positions are the first to need. */
  private growTables({ sizes, positions }: StepInputs): void {
    let end = 0;
    for (let t = 0; t < sizes.T; t++) end = Math.max(end, (positions[t] as number) + 1);
    if (end <= this.tableRows) return;
    const begin = this.tableRows;
    this.tableRows = Math.ceil(end / TABLE_ROWS) * TABLE_ROWS;
    for (const { value, shape, computeRows } of this.program.weights) {
      const last = Math.min(this.tableRows, shape[0] as number);
      if (computeRows === undefined || begin >= last) continue;
      native(() => this.model.writeTable(value, begin, computeRows(begin, last)));
    }
  }

  private read(id: ValueId, { sizes }: StepInputs): Float32Array {
    const { shape } = this.program.values[id] as Program['values'][number];
    const out = new Float32Array(elementCount(shape, sizes));
    native(() => this.model.readValue(id, out.length / (shape[1] as number), out));
    return out;
  }
}

export function nativeStep(step: StepInputs): NativeStep {
  const { T, S, R } = step.sizes;
  const { tokenIds, positions, slotMapping, queryStarts, seqLens, blockTables, maxBlocksPerSeq, logitRows } = step;
  return [T, S, R, maxBlocksPerSeq, tokenIds, positions, slotMapping, queryStarts, seqLens, blockTables, logitRows];
}

function createNativeModel(options: LoadOptions, isa: string): NativeModel {
  const { program, maxNumBatchedTokens, maxNumSeqs, maxLogitRows, blockSize, numBlocks } = options;
  const plan = planMemory(program, { T: maxNumBatchedTokens, S: maxNumSeqs, R: maxLogitRows });
  const { Model } = loadNative();
  return native(
    () =>
      new Model({
        isa,
        threads: options.threads,
        places: options.threadPlaces ?? [],
        ownsThread: options.ownsThread ?? false,
        values: flattenValues(program, plan),
        calls: flattenCalls(program.calls),
        logits: program.logits,
        vocab: program.vocabSize,
        arenaBytes: plan.bytes,
        kv: { ...program.kv, dtype: options.kvDType, blockSize, numBlocks },
        limits: { tokens: maxNumBatchedTokens, sequences: maxNumSeqs, logitRows: maxLogitRows },
      }),
  );
}

/** `mapped`: the linears are there, and all tensors were checked when they were packed. */
function loadWeights(model: NativeModel, options: LoadOptions, mapped: boolean): void {
  const { weights } = options.program;
  // Packing a tensor finds out whether all of it is finite.
  const packing = new Set(weights.filter(isPacked).flatMap(({ tensors }) => tensors));
  for (const [done, decl] of weights.entries()) {
    const checked = mapped || decl.tensors.every((name) => packing.has(name));
    if (!mapped || !isPacked(decl)) native(() => loadWeight(model, decl, options, checked));
    options.onProgress?.(done + 1, weights.length);
  }
}

function loadWeight(model: NativeModel, decl: WeightDecl, options: LoadOptions, checked: boolean): void {
  const [rows, width = 1] = decl.shape as readonly [number, number?];
  if (decl.computeRows !== undefined) {
    model.reserveTable(decl.value, rows, width);
    return;
  }
  const tensors = decl.tensors.map((name) => nativeTensor(name, options.tensors.get(name)));
  const [first] = tensors;
  assert(first !== undefined, `weight ${decl.name} has tensors`);
  if (decl.role === 'linear') model.loadLinear(decl.value, tensors, width, linearType(options, decl));
  // Rows are read where they lie, when their elements are aligned there.
  else if (decl.role === 'embedding' && tensors.length === 1 && first.offset % 4 === 0) {
    model.loadMapped(decl.value, first, width, checked);
  } else model.loadDense(decl.value, tensors, width);
}

const ELEMENT_TYPES: Partial<Record<CheckpointDType, WeightDType>> = {
  F32: 'float32',
  BF16: 'bfloat16',
  F16: 'float16',
};

function nativeTensor(name: string, tensor: TensorSource | undefined): NativeTensor {
  if (tensor === undefined) throw new TokenmillError('weights_invalid', `Tensor ${name} is missing.`);
  const dtype = ELEMENT_TYPES[tensor.dtype];
  if (dtype === undefined) {
    throw new TokenmillError('weights_invalid', `Tensor ${name} is stored as ${tensor.dtype}.`, {
      remedy: `The cpu backend reads ${Object.keys(ELEMENT_TYPES).join(', ')}.`,
    });
  }
  const { path, offset, byteLength } = tensor;
  return { name, path, offset, byteLength, dtype, rows: tensor.shape[0] as number };
}
