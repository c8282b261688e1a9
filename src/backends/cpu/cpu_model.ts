import { assert } from '../../base/assert.ts';
import { TokenmillError } from '../../base/errors.ts';
import { storedAs } from '../../base/quantization.ts';
import type { StepInputs } from '../../ops/define_op.ts';
import { elementCount, planMemory } from '../../program/memory_plan.ts';
import { makesLogits, type Program, type ValueId, type WeightDecl } from '../../program/program.ts';
import type { CheckpointDType, LoadedModel, LoadOptions, TensorSource, WeightDType } from '../backend.ts';
import { CpuLogitRows } from './cpu_logit_rows.ts';
import { loadNative, type NativeModel, type NativeStep, type NativeTensor, native } from './native_binding.ts';
import { flattenCalls, flattenValues } from './native_program.ts';

/** A program and its weights in native memory. */
export class CpuModel implements LoadedModel {
  readonly backend = 'cpu';
  readonly isa: string;
  readonly memory: LoadedModel['memory'];
  readonly logits: CpuLogitRows;
  private readonly program: Program;
  private readonly model: NativeModel;

  /** `isa` is one that this processor has. Throws TokenmillError when memory or the weight files do not suffice. */
  constructor(options: LoadOptions, isa: string) {
    this.isa = isa;
    this.program = options.program;
    this.model = createNativeModel(options, isa);
    try {
      loadWeights(this.model, options);
      native(() => this.model.finishLoading());
    } catch (error) {
      this.model.close();
      throw error;
    }
    this.memory = native(() => this.model.memory());
    this.logits = new CpuLogitRows(this.model, options.program.vocabSize);
  }

  run(step: StepInputs): void {
    native(() => this.model.run(...nativeStep(step)));
  }

  profile(): Float64Array {
    const marks = new Float64Array(this.program.calls.length + 1);
    native(() => this.model.profile(marks));
    return marks;
  }

  trace(step: StepInputs, visit: (callIndex: number, outputs: readonly Float32Array[]) => void): void {
    for (const [index, call] of this.program.calls.entries()) {
      native(() => this.model.run(...nativeStep(step), index, index + 1));
      visit(
        index,
        call.outputs.map((id) => this.read(id, step)),
      );
    }
  }

  close(): void {
    native(() => this.model.close());
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
        pin: true,
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

function loadWeights(model: NativeModel, options: LoadOptions): void {
  const { weights } = options.program;
  for (const [done, decl] of weights.entries()) {
    native(() => loadWeight(model, decl, options));
    options.onProgress?.(done + 1, weights.length);
  }
}

function loadWeight(model: NativeModel, decl: WeightDecl, options: LoadOptions): void {
  const [rows, width = 1] = decl.shape as readonly [number, number?];
  const type = storedAs(options.quantization, makesLogits(options.program, decl.value)) ?? options.weightDType;
  if (decl.constant !== undefined) {
    if (decl.role === 'linear') model.setLinear(decl.value, decl.constant, rows, width, type);
    else model.setDense(decl.value, decl.constant, rows, width);
    return;
  }
  const tensors = decl.tensors.map((name) => nativeTensor(name, options.tensors.get(name)));
  const [first] = tensors;
  assert(first !== undefined, `weight ${decl.name} has tensors`);
  if (decl.role === 'linear') model.loadLinear(decl.value, tensors, width, type);
  // Rows are read where they lie, when their elements are aligned there.
  else if (decl.role === 'embedding' && tensors.length === 1 && first.offset % 4 === 0) {
    model.loadMapped(decl.value, first, width);
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
