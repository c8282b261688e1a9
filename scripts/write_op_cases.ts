/**
 * Writes every case of the op table, with random operands and what the reference backend makes of them, for the native
 * tests: node write_op_cases.js FILE. Numbers are fp64, arrays a count and their elements (fp32 or int32), all
 * little-endian, in the order that native/test/op_cases.cc reads.
 */
import { closeSync, openSync, writeSync } from 'node:fs';
import type { OpRun, OpRunResult } from '../src/backends/backend.ts';
import { createReferenceBackend } from '../src/backends/reference/reference_backend.ts';
import { KV_DTYPE_NAMES } from '../src/base/kv_dtypes.ts';
import type { OperandData } from '../src/ops/define_op.ts';
import { OP_NAMES, opByName } from '../src/ops/index.ts';
import { makeRun, storageOf } from '../test/parity/op_inputs.ts';

const WEIGHT_TYPES = ['float32', 'bfloat16', 'float16', 'int8', 'int4_g32', 'int4_g64', 'int4_g128'];

class Writer {
  private readonly file: number;

  constructor(path: string) {
    this.file = openSync(path, 'w');
  }

  numbers(...values: number[]): void {
    writeSync(this.file, Float64Array.from(values));
  }

  array(data: OperandData): void {
    this.numbers(data.length);
    writeSync(this.file, data);
  }

  close(): void {
    closeSync(this.file);
  }
}

function writeCase(out: Writer, run: OpRun, expected: OpRunResult, tolerance: number): void {
  const { T, S, R } = run.sizes;
  const type = run.quantization === 'none' ? run.weightDType : run.quantization;
  out.numbers(OP_NAMES.indexOf(run.op as (typeof OP_NAMES)[number]), T, S, R, WEIGHT_TYPES.indexOf(type), tolerance);
  const attrs = Object.keys(opByName(run.op).attrs).map((name) => run.attrs[name] as number);
  out.numbers(attrs.length, ...attrs);
  out.numbers(run.inputs.length);
  for (const [i, data] of run.inputs.entries()) {
    const [rows = 0, width = 1] = run.inputShapes[i] ?? [];
    out.numbers(data === null ? 0 : data instanceof Float32Array ? 1 : 2, rows, width);
    if (data !== null) out.array(data);
  }
  out.numbers(expected.outputs.length);
  for (const [i, data] of expected.outputs.entries()) {
    out.numbers(run.outputShapes[i]?.[1] as number);
    out.array(data);
  }
  writeKv(out, run.kv, expected.kv);
}

function writeKv(out: Writer, kv: OpRun['kv'], expected: OpRunResult['kv']): void {
  out.numbers(kv === null ? 0 : 1);
  if (kv === null || expected === null) return;
  out.numbers(KV_DTYPE_NAMES.indexOf(kv.dtype), kv.blockSize, kv.kvHeads, kv.headDim, kv.step.maxBlocksPerSeq);
  for (const data of [kv.keys, kv.values, expected.keys, expected.values]) out.array(data);
  const { positions, slotMapping, queryStarts, seqLens, blockTables } = kv.step;
  for (const data of [positions, slotMapping, queryStarts, seqLens, blockTables]) out.array(data);
}

const [, , path] = process.argv;
if (path === undefined) throw new Error('usage: write_op_cases FILE');
const out = new Writer(path);
const reference = createReferenceBackend();
for (const name of OP_NAMES) {
  const op = opByName(name);
  for (const [key, tolerance] of Object.entries(op.tolerance)) {
    for (const sizes of op.cases) {
      const run = makeRun(op, sizes, storageOf(op, key), 3);
      writeCase(out, run, reference.runOp(run), tolerance);
    }
  }
}
out.close();
