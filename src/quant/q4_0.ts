/**
 * llama.cpp's Q4_0: blocks of 32 consecutive elements, each an fp16 scale and 32 halves of bytes, element i in the low half
 * of byte i, element i + 16 in its high half. scale = (the element of largest magnitude) / -8, q = x / scale + 8, rounded.
 * Written for benchmarks against llama.cpp.
 */
import { assert } from '../base/assert.ts';
import { float16Bits, float16Value } from './dtypes.ts';

const BLOCK = 32;
export const Q4_0_BLOCK_BYTES = 2 + BLOCK / 2;

/** `values` are whole blocks. */
export function encodeQ4_0(values: ArrayLike<number>): Uint8Array {
  assert(values.length % BLOCK === 0, 'Q4_0 needs whole blocks of 32');
  const blocks = values.length / BLOCK;
  const bytes = new Uint8Array(blocks * Q4_0_BLOCK_BYTES);
  const view = new DataView(bytes.buffer);
  for (let block = 0; block < blocks; block++) {
    const [from, to] = [block * BLOCK, block * Q4_0_BLOCK_BYTES];
    let largest = 0;
    for (let i = 0; i < BLOCK; i++) {
      const x = values[from + i] as number;
      if (Math.abs(x) > Math.abs(largest)) largest = x;
    }
    const scale = Math.fround(largest / -8);
    view.setUint16(to, float16Bits(scale), true);
    const quotient = (i: number) =>
      scale === 0 ? 8 : Math.max(0, Math.min(15, Math.floor((values[from + i] as number) / scale + 8.5)));
    for (let i = 0; i < BLOCK / 2; i++) bytes[to + 2 + i] = quotient(i) | (quotient(i + BLOCK / 2) << 4);
  }
  return bytes;
}

export function decodeQ4_0(bytes: Uint8Array): Float32Array {
  const blocks = bytes.length / Q4_0_BLOCK_BYTES;
  const values = new Float32Array(blocks * BLOCK);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  for (let block = 0; block < blocks; block++) {
    const from = block * Q4_0_BLOCK_BYTES;
    const scale = float16Value(view.getUint16(from, true));
    for (let i = 0; i < BLOCK; i++) {
      const byte = bytes[from + 2 + (i % (BLOCK / 2))] as number;
      values[block * BLOCK + i] = scale * ((i < BLOCK / 2 ? byte & 15 : byte >> 4) - 8);
    }
  }
  return values;
}
