/** Short constructors for operand rows, and typed access to a reference call's operands. */
import { assert } from '../base/assert.ts';
import type { LinearOperand, ReferenceCall, ReferenceKv } from './define_op.ts';

export const value = <const D extends readonly string[]>(...dims: D) =>
  ({ kind: 'value', dtype: 'f32', dims }) as const;

export const weight = <const D extends readonly string[]>(...dims: D) =>
  ({ kind: 'weight', dtype: 'f32', dims }) as const;

/** A matrix [outputs, inputs] that the backend may keep in another type, and packed. */
export const linearWeight = <const D extends readonly [string, string]>(...dims: D) =>
  ({ kind: 'weight', dtype: 'f32', dims, packed: true }) as const;

export const optionalWeight = <const D extends readonly string[]>(...dims: D) =>
  ({ kind: 'weight', dtype: 'f32', dims, optional: true }) as const;

/** The operand's name is the field of StepInputs it reads. */
export const stepInput = <const D extends readonly string[]>(...dims: D) =>
  ({ kind: 'step_input', dtype: 'i32', dims }) as const;

export function floatInput(call: ReferenceCall, index: number): Float32Array {
  const data = call.inputs[index];
  assert(data instanceof Float32Array, `input ${index} must be f32`);
  return data;
}

export function linearInput(call: ReferenceCall, index: number): LinearOperand {
  const data = call.inputs[index];
  assert(data !== null && data !== undefined && 'multiply' in data, `input ${index} must be a linear weight`);
  return data;
}

/** Null when absent. */
export function optionalInput(call: ReferenceCall, index: number): Float32Array | null {
  return call.inputs[index] === null ? null : floatInput(call, index);
}

export function intInput(call: ReferenceCall, index: number): Int32Array {
  const data = call.inputs[index];
  assert(data instanceof Int32Array, `input ${index} must be i32`);
  return data;
}

export function floatOutput(call: ReferenceCall, index: number): Float32Array {
  const data = call.outputs[index];
  assert(data instanceof Float32Array, `output ${index} must be f32`);
  return data;
}

/** Rows and last dimension of input `index`. */
export function rowsAndWidth(call: ReferenceCall, index: number): [rows: number, width: number] {
  const shape = call.inputShapes[index];
  assert(shape?.length === 2, `input ${index} must be a matrix`);
  return [shape[0] as number, shape[1] as number];
}

export function attr(call: ReferenceCall, name: string): number {
  const number = call.attrs[name];
  assert(number !== undefined, `attribute ${name} is missing`);
  return number;
}

export function kvOf(call: ReferenceCall): ReferenceKv {
  assert(call.kv !== null, 'this op needs KV state');
  return call.kv;
}

/** A size by letter or attribute name, for `cost` and `check`. */
export function size(sizes: Readonly<Record<string, number>>, name: string): number {
  const number = sizes[name];
  assert(number !== undefined, `size ${name} is missing`);
  return number;
}
