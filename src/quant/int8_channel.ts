/**
 * int8 by channel: weights symmetric per output row, made at load; activations symmetric per token, made on the fly.
 * scale = absmax / 127 in fp32 (1 for a row of zeros), q = round(x / scale) with the division in fp32 and ties to even.
 * The dot product is exact in int32, so its order does not matter.
 */

export interface Int8Rows {
  /** [rows, width] */
  readonly values: Int8Array;
  /** [rows] */
  readonly scales: Float32Array;
  readonly width: number;
}

/** Quantises each row of a [rows, width] matrix. */
export function encodeInt8Rows(matrix: Float32Array, width: number): Int8Rows {
  const rows = matrix.length / width;
  const values = new Int8Array(matrix.length);
  const scales = new Float32Array(rows);
  for (let row = 0; row < rows; row++) {
    const start = row * width;
    let absmax = 0;
    for (let i = start; i < start + width; i++) absmax = Math.max(absmax, Math.abs(matrix[i] as number));
    // A denormal quotient could round to zero; such a row is as good as zero.
    const scale = Math.fround(absmax / 127) || 1;
    scales[row] = scale;
    for (let i = start; i < start + width; i++) {
      const q = roundHalfEven(Math.fround((matrix[i] as number) / scale));
      values[i] = Math.max(-127, Math.min(127, q));
    }
  }
  return { values, scales, width };
}

export function decodeInt8Rows({ values, scales, width }: Int8Rows): Float32Array {
  return Float32Array.from(values, (q, i) => q * (scales[Math.floor(i / width)] as number));
}

/** y [T, N] = x [T, K] weight^T + bias, with x quantised per row: the definition of an int8 linear. */
export function int8Linear(x: Float32Array, weight: Int8Rows, bias: Float32Array | null, y: Float32Array): void {
  const activations = encodeInt8Rows(x, weight.width);
  const outputs = weight.scales.length;
  const rows = activations.scales.length;
  for (let n = 0; n < outputs; n++) {
    for (let t = 0; t < rows; t++) {
      let sum = 0;
      for (let k = 0; k < weight.width; k++) {
        sum += (activations.values[t * weight.width + k] as number) * (weight.values[n * weight.width + k] as number);
      }
      const scale = Math.fround((activations.scales[t] as number) * (weight.scales[n] as number));
      y[t * outputs + n] = Math.fround(sum * scale) + (bias ? (bias[n] as number) : 0);
    }
  }
}

/** 1.5 * 2^52: adding it leaves no fraction bits, so the addition rounds, ties to even. */
const ROUNDER = 6755399441055744;

/** To the nearest integer, ties to even. */
export function roundHalfEven(value: number): number {
  return value + ROUNDER - ROUNDER;
}
