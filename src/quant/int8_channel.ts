/**
 * int8, both sides rotated first (rotation.ts): weights symmetric per output row, made at load; activations symmetric per
 * group of ACTIVATION_GROUP consecutive elements of a token, made on the fly. scale = absmax / 127 in fp32 (1 for zeros), q = round(x / scale) with the division in
 * fp32 and ties to even. The products of a group add up exactly, in int32 and in fp32, so their order does not matter; the
 * groups become one number in a chain of fused multiply-adds over ascending k.
 */
import { rotatedWidth, rotateRows, rotateWeights } from './rotation.ts';

/** Elements of x that share a scale; one large element makes the step coarse for its own group alone. */
export const ACTIVATION_GROUP = 128;

export interface Int8Groups {
  /** [rows, width] */
  readonly values: Int8Array;
  /** [rows, groups]; the last group of a row may be shorter */
  readonly scales: Float32Array;
  readonly width: number;
  readonly group: number;
}

/** The weight of an int8 linear, from a [rows, width] matrix. */
export function encodeInt8Weight(matrix: Float32Array, width: number): Int8Groups {
  return encodeInt8(rotateWeights(matrix, width), rotatedWidth(width));
}

/** What a linear with quantised weights makes of x [rows, width]. */
export function encodeActivations(x: Float32Array, width: number): Int8Groups {
  return encodeInt8(rotateRows(x, width), rotatedWidth(width), ACTIVATION_GROUP);
}

/** Quantises a [rows, width] matrix; by default a row is one group. */
export function encodeInt8(matrix: Float32Array, width: number, group: number = width): Int8Groups {
  const values = new Int8Array(matrix.length);
  const scales = new Float32Array((matrix.length / width) * Math.ceil(width / group));
  let index = 0;
  for (let row = 0; row < matrix.length; row += width) {
    for (let from = row; from < row + width; from += group) {
      const to = Math.min(from + group, row + width);
      let absmax = 0;
      for (let i = from; i < to; i++) absmax = Math.max(absmax, Math.abs(matrix[i] as number));
      // A denormal quotient could round to zero; such a group is as good as zero.
      const scale = Math.fround(absmax / 127) || 1;
      scales[index++] = scale;
      for (let i = from; i < to; i++) {
        const q = roundHalfEven(Math.fround((matrix[i] as number) / scale));
        values[i] = Math.max(-127, Math.min(127, q));
      }
    }
  }
  return { values, scales, width, group };
}

export function decodeInt8({ values, scales, width, group }: Int8Groups): Float32Array {
  const groups = Math.ceil(width / group);
  return Float32Array.from(
    values,
    (q, i) => q * (scales[Math.floor(i / width) * groups + Math.floor((i % width) / group)] as number),
  );
}

/** y [T, N] = x [T, K] weight^T + bias, with x quantised as said above: the definition of an int8 linear. */
export function int8Linear(x: Float32Array, weight: Int8Groups, bias: Float32Array | null, y: Float32Array): void {
  const outputs = weight.scales.length;
  const rows = y.length / outputs;
  const activations = encodeActivations(x, x.length / rows);
  for (let n = 0; n < outputs; n++) {
    for (let t = 0; t < rows; t++) {
      const product = Math.fround(rowProduct(activations, t, weight, n) * (weight.scales[n] as number));
      y[t * outputs + n] = product + (bias ? (bias[n] as number) : 0);
    }
  }
}

/** Row t of x times row n of the weight, but for the weight's scale. */
function rowProduct({ values, scales, width, group }: Int8Groups, t: number, weight: Int8Groups, n: number): number {
  const groups = Math.ceil(width / group);
  let product = 0;
  for (let g = 0; g < groups; g++) {
    let sum = 0;
    for (let k = g * group; k < Math.min(width, (g + 1) * group); k++) {
      sum += (values[t * width + k] as number) * (weight.values[n * width + k] as number);
    }
    product = Math.fround(sum * (scales[t * groups + g] as number) + product);
  }
  return product;
}

/** 1.5 * 2^52: adding it leaves no fraction bits, so the addition rounds, ties to even. */
const ROUNDER = 6755399441055744;

/** To the nearest integer, ties to even. */
export function roundHalfEven(value: number): number {
  return value + ROUNDER - ROUNDER;
}
