/** A Program as arrays of numbers, which is how the addon takes it. */
import { assert } from '../../base/assert.ts';
import { OP_NAMES, opByName } from '../../ops/index.ts';
import type { MemoryPlan } from '../../program/memory_plan.ts';
import type { OpCall, Program, ProgramValue } from '../../program/program.ts';
import { STEP_INPUTS } from './render_ops_header.ts';

const KINDS = ['step_input', 'weight', 'temporary'] as const;
const ROWS = ['T', 'S', 'R'] as const;

/** Per value: kind, step input, rows, width, offset; the last three are those of temporaries. */
export function flattenValues(program: Program, plan: MemoryPlan): Float64Array {
  return Float64Array.from(program.values.flatMap((value, id) => flattenValue(value, plan.offsets[id] as number)));
}

function flattenValue(value: ProgramValue, offset: number): number[] {
  const kind = KINDS.indexOf(value.kind);
  if (value.kind === 'step_input') {
    const input = (STEP_INPUTS as readonly string[]).indexOf(value.name);
    assert(input >= 0, `step input ${value.name} is known`);
    return [kind, input, 0, 0, 0];
  }
  if (value.kind === 'weight') return [kind, 0, 0, 0, 0];
  const [rows, width] = value.shape;
  assert(value.shape.length === 2 && typeof width === 'number', `${value.name} is a matrix of known width`);
  const rowsIndex = (ROWS as readonly unknown[]).indexOf(rows);
  assert(rowsIndex >= 0 && offset >= 0, `${value.name} has T, S or R rows and a place`);
  return [kind, 0, rowsIndex, width, offset];
}

/** Per call: op, counted inputs, counted outputs, counted attributes in the order of the op table. */
export function flattenCalls(calls: readonly OpCall[]): Float64Array {
  return Float64Array.from(calls.flatMap(flattenCall));
}

function flattenCall(call: OpCall): number[] {
  const op = (OP_NAMES as readonly string[]).indexOf(call.op);
  assert(op >= 0, `op ${call.op} is known`);
  const attrs = Object.keys(opByName(call.op).attrs).map((name) => {
    const value = call.attrs[name];
    assert(value !== undefined, `${call.op} has attribute ${name}`);
    return value;
  });
  return [op, call.inputs.length, ...call.inputs, call.outputs.length, ...call.outputs, attrs.length, ...attrs];
}
