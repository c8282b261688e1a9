/**
 * 4 bits in groups: `group` consecutive weights of a row share a scale d and a minimum m (both bf16), w = d q + m with q in
 * 0..15. Made at load: the range in 15 steps, then twice the least-squares line through the quotients of the step before.
 * Activations are int8 per token as in int8_channel.ts. A group's products are summed exactly, 32 steps of k at a time, and
 * become fp32 in one chain of fused multiply-adds over ascending k.
 */
import { bfloat16Bits, bfloat16Value } from './dtypes.ts';
import { encodeInt8Rows } from './int8_channel.ts';

/** Steps of k between two conversions to fp32. */
const CHUNK = 32;

export interface Int4Groups {
  /** [rows, width], 0..15 */
  readonly quotients: Uint8Array;
  /** [rows, groups] */
  readonly groupScales: Float32Array;
  readonly minimums: Float32Array;
  readonly width: number;
  readonly group: number;
}

/** Quantises each row of a [rows, width] matrix; the last group of a row may be shorter. */
export function encodeInt4Groups(matrix: Float32Array, width: number, group: number): Int4Groups {
  const rows = matrix.length / width;
  const groups = Math.ceil(width / group);
  const quotients = new Uint8Array(matrix.length);
  const groupScales = new Float32Array(rows * groups);
  const minimums = new Float32Array(rows * groups);
  for (let row = 0; row < rows; row++) {
    for (let g = 0; g < groups; g++) {
      const from = row * width + g * group;
      const weights = matrix.subarray(from, Math.min(from + group, (row + 1) * width));
      const { scale, minimum } = fitGroup(weights);
      groupScales[row * groups + g] = scale;
      minimums[row * groups + g] = minimum;
      if (scale > 0) for (const [i, w] of weights.entries()) quotients[from + i] = quotient(w, scale, minimum);
    }
  }
  return { quotients, groupScales, minimums, width, group };
}

function roundToBf16(value: number): number {
  return bfloat16Value(bfloat16Bits(value));
}

function quotient(weight: number, scale: number, minimum: number): number {
  return Math.max(0, Math.min(15, Math.floor((weight - minimum) / scale + 0.5)));
}

/** In fp64, sums in this order: native/runtime/pack.cc gets the same bits. */
function fitGroup(weights: Float32Array): { scale: number; minimum: number } {
  let low = Number.POSITIVE_INFINITY;
  let high = Number.NEGATIVE_INFINITY;
  for (const w of weights) {
    low = Math.min(low, w);
    high = Math.max(high, w);
  }
  const fitted = { scale: 0, minimum: roundToBf16(low) };
  let [scale, minimum] = [(high - low) / 15, low];
  for (let fit = 0; fit < 2 && scale > 0; fit++) {
    let [q1, q2, w1, qw] = [0, 0, 0, 0];
    for (const w of weights) {
      const q = quotient(w, scale, minimum);
      q1 += q;
      q2 += q * q;
      w1 += w;
      qw += q * w;
    }
    const n = weights.length;
    const slope = roundToBf16((n * qw - q1 * w1) / (n * q2 - q1 * q1));
    // Too small for bf16, or nothing to fit: what was found before stays.
    if (!(slope > 0 && Number.isFinite(slope))) break;
    fitted.scale = slope;
    fitted.minimum = roundToBf16((w1 - slope * q1) / n);
    scale = fitted.scale;
    minimum = fitted.minimum;
  }
  return fitted;
}

export function decodeInt4Groups({ quotients, groupScales, minimums, width, group }: Int4Groups): Float32Array {
  const groups = Math.ceil(width / group);
  return Float32Array.from(quotients, (q, i) => {
    const at = Math.floor(i / width) * groups + Math.floor((i % width) / group);
    return q * (groupScales[at] as number) + (minimums[at] as number);
  });
}

/** y [T, N] = x [T, K] weight^T + bias, with x quantised per row: the definition of a 4-bit linear. */
export function int4Linear(x: Float32Array, weight: Int4Groups, bias: Float32Array | null, y: Float32Array): void {
  const activations = encodeInt8Rows(x, weight.width);
  const outputs = weight.quotients.length / weight.width;
  for (let t = 0; t < activations.scales.length; t++) {
    const row = activations.values.subarray(t * weight.width, (t + 1) * weight.width);
    for (let n = 0; n < outputs; n++) {
      const product = Math.fround(rowProduct(row, weight, n) * (activations.scales[t] as number));
      y[t * outputs + n] = product + (bias ? (bias[n] as number) : 0);
    }
  }
}

function rowProduct(x: Int8Array, weight: Int4Groups, n: number): number {
  const { quotients, groupScales, minimums, width, group } = weight;
  const groups = Math.ceil(width / group);
  let sum = 0;
  for (let g = 0; g < groups; g++) {
    const end = Math.min(width, (g + 1) * group);
    let total = 0;
    for (let from = g * group; from < (g + 1) * group; from += CHUNK) {
      let products = 0;
      for (let k = from; k < Math.min(from + CHUNK, end); k++) {
        products += (x[k] as number) * (quotients[n * width + k] as number);
        total += x[k] as number;
      }
      sum = Math.fround(products * (groupScales[n * groups + g] as number) + sum);
    }
    sum = Math.fround(total * (minimums[n * groups + g] as number) + sum);
  }
  return sum;
}
