/**
 * 4 bits in groups, both sides rotated first (rotation.ts): `group` consecutive weights of a row share a scale d and a minimum m
 * (both bf16), w = d q + m with q in 0..15. Made at load: the range in 15 steps, then twice the least-squares line through the
 * quotients of the step before. Activations are int8 in groups as in int8_channel.ts. A group's products are summed exactly,
 * 32 steps of k at a time, and become fp32 in a chain of fused multiply-adds over ascending k for each scale of x, and those
 * in another.
 */
import { bfloat16Bits, bfloat16Value } from './dtypes.ts';
import { encodeActivations, type Int8Groups } from './int8_channel.ts';
import { rotatedWidth, rotateWeights } from './rotation.ts';

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

/** The weight of a 4-bit linear, from a [rows, width] matrix. */
export function encodeInt4Weight(matrix: Float32Array, width: number, group: number): Int4Groups {
  return encodeInt4Groups(rotateWeights(matrix, width), rotatedWidth(width), group);
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

/** y [T, N] = x [T, K] weight^T + bias, with x quantised as said above: the definition of a 4-bit linear. */
export function int4Linear(x: Float32Array, weight: Int4Groups, bias: Float32Array | null, y: Float32Array): void {
  const outputs = weight.quotients.length / weight.width;
  const rows = y.length / outputs;
  const activations = encodeActivations(x, x.length / rows);
  for (let t = 0; t < rows; t++) {
    for (let n = 0; n < outputs; n++) {
      y[t * outputs + n] = rowProduct(activations, t, weight, n) + (bias ? (bias[n] as number) : 0);
    }
  }
}

function rowProduct(x: Int8Groups, t: number, weight: Int4Groups, n: number): number {
  const scales = Math.ceil(x.width / x.group);
  let product = 0;
  for (let s = 0; s < scales; s++) {
    const [from, to] = [s * x.group, Math.min(x.width, (s + 1) * x.group)];
    const sum = scaledSum(x.values.subarray(t * x.width, (t + 1) * x.width), weight, n, from, to);
    product = Math.fround(sum * (x.scales[t * scales + s] as number) + product);
  }
  return product;
}

/** Steps [from, to) of k, whole groups but for the last. */
function scaledSum(x: Int8Array, weight: Int4Groups, n: number, from: number, to: number): number {
  const { quotients, groupScales, minimums, width, group } = weight;
  const groups = Math.ceil(width / group);
  let sum = 0;
  for (let begin = from; begin < to; begin += group) {
    const at = n * groups + begin / group;
    let total = 0;
    for (let chunk = begin; chunk < Math.min(begin + group, to); chunk += CHUNK) {
      let products = 0;
      for (let k = chunk; k < chunk + CHUNK; k++) {
        products += (x[k] as number) * (quotients[n * width + k] as number);
        total += x[k] as number;
      }
      sum = Math.fround(products * (groupScales[at] as number) + sum);
    }
    sum = Math.fround(total * (minimums[at] as number) + sum);
  }
  return sum;
}
