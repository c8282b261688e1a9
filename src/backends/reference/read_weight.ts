import { assert } from '../../base/assert.ts';
import { readRange } from '../../base/files.ts';
import type { WeightDecl } from '../../program/program.ts';
import { decodeElements } from '../../quant/dtypes.ts';
import type { TensorSource } from '../backend.ts';

/** The declared tensors as fp32, one after the other along dimension 0. */
export function readWeight(decl: WeightDecl, tensors: ReadonlyMap<string, TensorSource>): Float32Array {
  const parts = decl.tensors.map((name) => {
    const tensor = tensors.get(name);
    assert(tensor !== undefined, `tensor ${name} was not checked`);
    return decodeElements(tensor.dtype, readRange(tensor.path, tensor.offset, tensor.byteLength));
  });
  if (parts.length === 1) return parts[0] as Float32Array;
  const whole = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
