/**
 * Where each temporary lives in the scratch arena: one plan at load, for the largest step. Values whose lives do not
 * overlap share memory; an in-place op writes over its first input when that input dies there.
 */
import { assert } from '../base/assert.ts';
import type { Dim, StepSizes } from '../ops/define_op.ts';
import { opByName } from '../ops/index.ts';
import type { Program, ValueId } from './program.ts';

export interface MemoryPlan {
  /** Byte offset per value id; -1 for values that are not temporaries. Multiples of 64. */
  readonly offsets: Float64Array;
  readonly bytes: number;
}

/** Bytes; a cache line, and what the widest vector load likes. */
const ALIGNMENT = 64;

/** Memory shared by one value, or by a chain of values computed in place. */
interface Buffer {
  readonly bytes: number;
  readonly values: ValueId[];
  /** First and last call that touches it, both included. */
  readonly born: number;
  dies: number;
  offset: number;
}

export function planMemory(program: Program, maxSizes: StepSizes): MemoryPlan {
  const buffers = assignBuffers(program, maxSizes);
  let bytes = 0;
  // Largest first, each at the lowest place free for its whole life: close to optimal for chains like these.
  const placed: Buffer[] = [];
  for (const buffer of [...buffers].sort((a, b) => b.bytes - a.bytes || a.born - b.born)) {
    const rivals = placed.filter((other) => other.born <= buffer.dies && buffer.born <= other.dies);
    rivals.sort((a, b) => a.offset - b.offset);
    for (const rival of rivals) {
      if (buffer.offset + buffer.bytes <= rival.offset) break;
      buffer.offset = Math.max(buffer.offset, rival.offset + rival.bytes);
    }
    placed.push(buffer);
    bytes = Math.max(bytes, buffer.offset + buffer.bytes);
  }
  const offsets = new Float64Array(program.values.length).fill(-1);
  for (const buffer of buffers) for (const value of buffer.values) offsets[value] = buffer.offset;
  return { offsets, bytes };
}

function assignBuffers(program: Program, maxSizes: StepSizes): Buffer[] {
  const lastUse = lastUses(program);
  const buffers: Buffer[] = [];
  const owner = new Map<ValueId, Buffer>();
  for (const [index, call] of program.calls.entries()) {
    for (const [position, output] of call.outputs.entries()) {
      const dies = Math.max(lastUse[output] as number, index);
      const bytes = alignedBytes(program, output, maxSizes);
      const reused = position === 0 && opByName(call.op).inplace ? owner.get(call.inputs[0] as ValueId) : undefined;
      if (reused && lastUse[call.inputs[0] as ValueId] === index && reused.bytes === bytes) {
        reused.values.push(output);
        reused.dies = dies;
        owner.set(output, reused);
        continue;
      }
      const buffer: Buffer = { bytes, values: [output], born: index, dies, offset: 0 };
      buffers.push(buffer);
      owner.set(output, buffer);
    }
  }
  return buffers;
}

/** Last call that reads each value; logits are read after the last call. */
function lastUses(program: Program): Int32Array {
  const lastUse = new Int32Array(program.values.length).fill(-1);
  for (const [index, call] of program.calls.entries()) {
    for (const input of call.inputs) if (input >= 0) lastUse[input] = index;
  }
  lastUse[program.logits] = program.calls.length;
  return lastUse;
}

function alignedBytes(program: Program, id: ValueId, sizes: StepSizes): number {
  const value = program.values[id];
  assert(value?.kind === 'temporary', `value ${id} is not a temporary`);
  const bytes = elementCount(value.shape, sizes) * 4;
  return Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;
}

/** Elements of a shape once T, S and R are known. */
export function elementCount(shape: readonly Dim[], sizes: StepSizes): number {
  return shape.reduce<number>((product, dim) => product * (typeof dim === 'number' ? dim : sizes[dim]), 1);
}
