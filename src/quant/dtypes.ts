/** Element types of checkpoints: decoding to fp32, and rounding fp32 to the 16-bit types (to nearest, ties to even). */
import { assert } from '../base/assert.ts';

const bits = new Uint32Array(1);
const number = new Float32Array(bits.buffer);

/** bf16 bits of `value`; NaN stays NaN. */
export function bfloat16Bits(value: number): number {
  number[0] = value;
  const word = bits[0] as number;
  if ((word & 0x7fffffff) > 0x7f800000) return (word >>> 16) | 0x40;
  return ((word + 0x7fff + ((word >>> 16) & 1)) >>> 16) & 0xffff;
}

/** IEEE half bits of `value`; overflow becomes infinity, NaN stays NaN. */
export function float16Bits(value: number): number {
  number[0] = value;
  const word = bits[0] as number;
  const sign = (word >>> 16) & 0x8000;
  const magnitude = word & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00;
  // 65520 and above round to infinity.
  if (magnitude >= 0x477ff000) return sign | 0x7c00;
  if (magnitude < 0x38800000) {
    // Subnormal halves are multiples of 2^-24; adding 2^28 = 2^(52 - 24) in fp64 rounds to one, ties to even.
    return sign | ((Math.abs(value) + 2 ** 28 - 2 ** 28) * 2 ** 24);
  }
  return sign | ((magnitude - 0x38000000 + 0xfff + ((magnitude >>> 13) & 1)) >>> 13);
}

export function float16Value(half: number): number {
  const sign = half & 0x8000 ? -1 : 1;
  const exponent = (half >>> 10) & 31;
  const fraction = half & 1023;
  if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return exponent === 0 ? sign * fraction * 2 ** -24 : sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

export function bfloat16Value(half: number): number {
  bits[0] = half << 16;
  return number[0] as number;
}

export type RoundedType = 'float32' | 'bfloat16' | 'float16';

/** Rounds every element to `type` in place and returns the array. */
export function roundTo(type: RoundedType, values: Float32Array): Float32Array {
  if (type === 'float32') return values;
  const [encode, decode] = type === 'bfloat16' ? [bfloat16Bits, bfloat16Value] : [float16Bits, float16Value];
  for (let i = 0; i < values.length; i++) values[i] = decode(encode(values[i] as number));
  return values;
}

/** Bytes of one element, by safetensors name. */
export const ELEMENT_BYTES: Readonly<Record<string, number>> = {
  F64: 8,
  F32: 4,
  F16: 2,
  BF16: 2,
  F8_E4M3: 1,
  F8_E5M2: 1,
  I64: 8,
  I32: 4,
  I16: 2,
  I8: 1,
  U8: 1,
  BOOL: 1,
};

/** Little-endian elements as fp32 (rounded to nearest where fp32 cannot hold them). */
export function decodeElements(dtype: string, bytes: Uint8Array<ArrayBuffer>): Float32Array<ArrayBuffer> {
  const count = bytes.length / (ELEMENT_BYTES[dtype] ?? 1);
  const start = bytes.byteOffset;
  switch (dtype) {
    case 'F32':
      return new Float32Array(bytes.buffer, start, count);
    case 'BF16': {
      const result = new Float32Array(count);
      const words = new Uint32Array(result.buffer);
      const halves = new Uint16Array(bytes.buffer, start, count);
      for (let i = 0; i < count; i++) words[i] = (halves[i] as number) << 16;
      return result;
    }
    case 'F16':
      return Float32Array.from(new Uint16Array(bytes.buffer, start, count), float16Value);
    case 'F64':
      return Float32Array.from(new Float64Array(bytes.buffer, start, count));
    case 'I64':
      return Float32Array.from(new BigInt64Array(bytes.buffer, start, count), Number);
    case 'I32':
      return Float32Array.from(new Int32Array(bytes.buffer, start, count));
    case 'I16':
      return Float32Array.from(new Int16Array(bytes.buffer, start, count));
    case 'I8':
      return Float32Array.from(new Int8Array(bytes.buffer, start, count));
    case 'U8':
    case 'BOOL':
      return Float32Array.from(bytes);
    default:
      assert(false, `cannot decode elements of type ${dtype}`);
  }
}
