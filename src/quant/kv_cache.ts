/** What a key or value becomes in the KV cache: the definition that every backend's cache is compared with. */
import type { KvDType } from '../base/kv_dtypes.ts';
import { bfloat16Bits, bfloat16Value, roundTo } from './dtypes.ts';
import { E4M3, E5M2, type Fp8Format, roundToFp8 } from './fp8.ts';
import { roundHalfEven } from './int8_channel.ts';

/** Rounds keys or values [tokens, heads * headDim] to the cache's type in place and returns them. */
export function roundKv(dtype: KvDType, values: Float32Array, headDim: number): Float32Array {
  switch (dtype) {
    case 'float32':
    case 'bfloat16':
      return roundTo(dtype, values);
    case 'fp8_e4m3':
      return roundAll(E4M3, values);
    case 'fp8_e5m2':
      return roundAll(E5M2, values);
    case 'int8_per_token_head':
      for (let start = 0; start < values.length; start += headDim) {
        roundHead(values.subarray(start, start + headDim));
      }
      return values;
  }
}

function roundAll(format: Fp8Format, values: Float32Array): Float32Array {
  for (let i = 0; i < values.length; i++) values[i] = roundToFp8(format, values[i] as number);
  return values;
}

/**
 * q * scale with q in [-127, 127]. The scale is absmax / 127 in bf16: so q * scale is exact in fp32 and rounding a second time
 * changes nothing. A head with a value that is not finite is NaN.
 */
function roundHead(head: Float32Array): void {
  let absmax = 0;
  for (const value of head) absmax = Math.max(absmax, Math.abs(value));
  if (!Number.isFinite(absmax)) {
    head.fill(Number.NaN);
    return;
  }
  const scale = bfloat16Value(bfloat16Bits(Math.fround(absmax / 127)));
  for (let i = 0; i < head.length; i++) {
    const q = scale === 0 ? 0 : roundHalfEven(Math.fround((head[i] as number) / scale));
    head[i] = Math.max(-127, Math.min(127, q)) * scale;
  }
}
