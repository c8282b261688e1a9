/**
 * llama.cpp's Q8_0: blocks of 32 consecutive elements, each an fp16 scale and 32 int8. scale = absmax / 127,
 * q = x / scale rounded half away from zero. Written for benchmarks against llama.cpp.
 */
import { assert } from '../base/assert.ts';
import { decodeElements, float16Bits } from './dtypes.ts';

const Q8_0_BLOCK = 32;
export const Q8_0_BLOCK_BYTES = 2 + Q8_0_BLOCK;

/** `values` are whole blocks. */
export function encodeQ8_0(values: ArrayLike<number>): Uint8Array {
  assert(values.length % Q8_0_BLOCK === 0, 'Q8_0 needs whole blocks of 32');
  const blocks = values.length / Q8_0_BLOCK;
  const bytes = new Uint8Array(blocks * Q8_0_BLOCK_BYTES);
  const view = new DataView(bytes.buffer);
  for (let block = 0; block < blocks; block++) {
    const [from, to] = [block * Q8_0_BLOCK, block * Q8_0_BLOCK_BYTES];
    let absmax = 0;
    for (let i = 0; i < Q8_0_BLOCK; i++) absmax = Math.max(absmax, Math.abs(values[from + i] as number));
    const scale = Math.fround(absmax / 127);
    view.setUint16(to, float16Bits(scale), true);
    for (let i = 0; i < Q8_0_BLOCK; i++) {
      const x = scale === 0 ? 0 : (values[from + i] as number) / scale;
      view.setInt8(to + 2 + i, Math.sign(x) * Math.min(127, Math.floor(Math.abs(x) + 0.5)));
    }
  }
  return bytes;
}

export function decodeQ8_0(bytes: Uint8Array): Float32Array {
  const blocks = bytes.length / Q8_0_BLOCK_BYTES;
  const values = new Float32Array(blocks * Q8_0_BLOCK);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  for (let block = 0; block < blocks; block++) {
    const from = block * Q8_0_BLOCK_BYTES;
    const [scale] = decodeElements('F16', bytes.slice(from, from + 2));
    for (let i = 0; i < Q8_0_BLOCK; i++) {
      values[block * Q8_0_BLOCK + i] = (scale as number) * view.getInt8(from + 2 + i);
    }
  }
  return values;
}
