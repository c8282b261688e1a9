/** One op alone, as a program of one call: the kernels and the runtime are those of a whole model. */
import { assert } from '../../base/assert.ts';
import { storedAs } from '../../base/quantization.ts';
import type { OperandSpec, StepInputs } from '../../ops/define_op.ts';
import { opByName } from '../../ops/index.ts';
import { planMemory } from '../../program/memory_plan.ts';
import type { Program, ProgramValue } from '../../program/program.ts';
import type { OpRun, OpRunResult } from '../backend.ts';
import { nativeStep } from './cpu_model.ts';
import { loadNative, type NativeModel, native } from './native_binding.ts';
import { flattenCalls, flattenValues } from './native_program.ts';
import { STEP_INPUTS } from './render_ops_header.ts';

export function runOp(run: OpRun, isa: string): OpRunResult {
  const { sizes } = run;
  const program = oneCall(run);
  const plan = planMemory(withInputs(program, run), sizes);
  const numBlocks = run.kv ? run.kv.keys.length / (run.kv.blockSize * run.kv.kvHeads * run.kv.headDim) : 1;
  const { Model } = loadNative();
  const model = native(
    () =>
      new Model({
        isa,
        threads: run.threads,
        places: [],
        ownsThread: false,
        values: flattenValues(program, plan),
        calls: flattenCalls(program.calls.slice(-1)),
        logits: program.logits,
        vocab: program.vocabSize,
        arenaBytes: plan.bytes,
        kv: {
          layers: run.kv ? 1 : 0,
          kvHeads: run.kv?.kvHeads ?? 1,
          headDim: run.kv?.headDim ?? 1,
          dtype: run.kv?.dtype ?? 'float32',
          blockSize: run.kv?.blockSize ?? 16,
          numBlocks,
        },
        limits: { tokens: sizes.T, sequences: Math.max(1, sizes.S), logitRows: Math.max(1, sizes.R) },
      }),
  );
  try {
    return native(() => runLoaded(model, run));
  } finally {
    model.close();
  }
}

function inputSpecs(run: OpRun): readonly OperandSpec[] {
  return Object.values(opByName(run.op).inputs);
}

/** Values are the op's inputs, then its outputs, then one row of logits that no call writes. */
function oneCall(run: OpRun): Program {
  const names = Object.keys(opByName(run.op).inputs);
  const rowsOf = (spec: OperandSpec) => spec.dims[0] as 'T' | 'S' | 'R';
  const inputs = inputSpecs(run).map((spec, id): ProgramValue => {
    const shape = spec.kind === 'value' ? [rowsOf(spec), run.inputShapes[id]?.[1] as number] : [];
    const kind = spec.kind === 'value' ? 'temporary' : spec.kind;
    return { id, name: names[id] as string, kind, dtype: spec.dtype, shape };
  });
  const outputs = Object.values(opByName(run.op).outputs).map((spec, i): ProgramValue => {
    const shape = [rowsOf(spec), run.outputShapes[i]?.[1] as number];
    return { id: inputs.length + i, name: `y${i}`, kind: 'temporary', dtype: 'f32', shape };
  });
  const logits: ProgramValue = {
    id: inputs.length + outputs.length,
    name: 'logits',
    kind: 'temporary',
    dtype: 'f32',
    shape: ['R', 1],
  };
  const call = {
    op: run.op,
    inputs: inputs.map(({ id }) => (run.inputs[id] === null ? -1 : id)),
    outputs: outputs.map(({ id }) => id),
    attrs: run.attrs,
  };
  const kv = { layers: 1, kvHeads: 1, headDim: 1 };
  return { values: [...inputs, ...outputs, logits], calls: [call], weights: [], kv, logits: logits.id, vocabSize: 1 };
}

/** For the plan alone: calls that write what is given by hand and keep all of it to the end, so that nothing is shared. */
function withInputs(program: Program, run: OpRun): Program {
  const given = program.values.filter((value) => value.kind === 'temporary').map(({ id }) => id);
  const write = {
    op: 'embedding',
    inputs: [],
    outputs: given.filter((id) => !run.outputShapes[id - run.inputs.length]),
    attrs: {},
  };
  const keep = { op: 'embedding', inputs: given, outputs: [], attrs: {} };
  return { ...program, calls: [write, ...program.calls, keep] };
}

function runLoaded(model: NativeModel, run: OpRun): OpRunResult {
  const specs = inputSpecs(run);
  const { sizes, kv } = run;
  loadWeights(model, run);
  model.finishLoading();
  model.bindStep(...nativeStep(stepOf(run)));
  const times: number[] = [];
  for (let i = 0; i <= run.repeat; i++) {
    for (const [id, spec] of specs.entries()) {
      const data = run.inputs[id];
      if (spec.kind === 'value' && data) model.writeValue(id, sizes[spec.dims[0] as 'T'], data as Float32Array);
    }
    if (kv) model.writeKv(0, kv.keys, kv.values);
    const start = performance.now();
    model.run(0);
    times.push((performance.now() - start) / 1000);
  }
  const outputs = run.outputShapes.map(([rows = 0, width = 0], i) => {
    const out = new Float32Array(rows * width);
    model.readValue(specs.length + i, rows, out);
    return out;
  });
  const timed = times.slice(1).sort((a, b) => a - b);
  return { outputs, kv: readKv(model, kv), seconds: timed[Math.floor(timed.length / 2)] ?? 0 };
}

function readKv(model: NativeModel, kv: OpRun['kv']): OpRunResult['kv'] {
  if (kv === null) return null;
  const keys = new Float32Array(kv.keys.length);
  const values = new Float32Array(kv.values.length);
  model.readKv(0, keys, values);
  return { keys, values };
}

function loadWeights(model: NativeModel, run: OpRun): void {
  const type = storedAs(run.quantization, false) ?? run.weightDType;
  for (const [id, spec] of inputSpecs(run).entries()) {
    const data = run.inputs[id];
    if (spec.kind !== 'weight' || !data) continue;
    const [rows = 0, width = 1] = run.inputShapes[id] ?? [];
    assert(data instanceof Float32Array, 'weights are fp32');
    if (spec.packed) model.setLinear(id, data, rows, width, type);
    else model.setDense(id, data, rows, width);
  }
}

/** The step's tables, with the op's own step inputs in their place and zeros for what it does not read. */
function stepOf(run: OpRun): StepInputs {
  const { T, S, R } = run.sizes;
  const sizes = { T, S: Math.max(1, S), R };
  const queryStarts = new Int32Array(sizes.S + 1).fill(T, 1);
  const step = run.kv?.step ?? {
    tokenIds: new Int32Array(T),
    positions: new Int32Array(T),
    slotMapping: new Int32Array(T),
    queryStarts,
    seqLens: new Int32Array(sizes.S).fill(1),
    blockTables: new Int32Array(sizes.S),
    maxBlocksPerSeq: 1,
    logitRows: new Int32Array(R),
  };
  const own: Record<string, Int32Array> = {};
  for (const [id, name] of Object.keys(opByName(run.op).inputs).entries()) {
    const data = run.inputs[id];
    if ((STEP_INPUTS as readonly string[]).includes(name) && data instanceof Int32Array) own[name] = data;
  }
  return { ...step, sizes, ...own };
}
