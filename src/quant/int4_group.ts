/**
 * 4 bits in groups, both sides rotated first (rotation.ts): `group` consecutive weights of a row share an 8-bit scale d and an
 * 8-bit minimum m, both in steps of the row's fp32 unit: w = unit (d q + 16 m) with q in 0..15, d in 0..255, m in -128..127.
 * Made at load: the range of a group in 15 steps, then twice the least-squares line through the quotients of the step before;
 * then d is rounded, the minimum fitted to the quotients of that d and rounded, and the quotients taken again.
 * Activations are int8 in groups as in int8_channel.ts. All that shares a scale of x is one exact integer; these become one
 * number in a chain of fused multiply-adds over ascending k, as the groups of int8 do.
 */
import { encodeActivations, type Int8Groups } from './int8_channel.ts';
import { rotatedWidth, rotateWeights } from './rotation.ts';

/**
 * The step of a minimum in units. A group that is symmetric about zero has m = -7.5 d: this is the power of two that gives its d
 * most of the 8 bits while its m still fits.
 */
const MINIMUM_STEP = 16;

export interface Int4Groups {
  /** [rows, width], 0..15 */
  readonly quotients: Uint8Array;
  /** [rows, groups], in units */
  readonly groupScales: Uint8Array;
  /** [rows, groups], in 16 units */
  readonly minimums: Int8Array;
  /** [rows] */
  readonly units: Float32Array;
  readonly width: number;
  readonly group: number;
}

/** A group's weights are about scale * q + minimum. */
interface Line {
  readonly scale: number;
  readonly minimum: number;
}

/** The weight of a 4-bit linear, from a [rows, width] matrix. */
export function encodeInt4Weight(matrix: Float32Array, width: number, group: number): Int4Groups {
  return encodeInt4Groups(rotateWeights(matrix, width), rotatedWidth(width), group);
}

/** Quantises each row of a [rows, width] matrix; the last group of a row may be shorter. */
export function encodeInt4Groups(matrix: Float32Array, width: number, group: number): Int4Groups {
  const rows = matrix.length / width;
  const groups = Math.ceil(width / group);
  const encoded = {
    quotients: new Uint8Array(matrix.length),
    groupScales: new Uint8Array(rows * groups),
    minimums: new Int8Array(rows * groups),
    units: new Float32Array(rows),
    width,
    group,
  };
  for (let row = 0; row < rows; row++) {
    const weights = Array.from({ length: groups }, (_, g) => {
      const from = row * width + g * group;
      return matrix.subarray(from, Math.min(from + group, (row + 1) * width));
    });
    const lines = weights.map(fitLine);
    const unit = unitOf(lines);
    encoded.units[row] = unit;
    for (const [g, line] of lines.entries()) {
      roundGroup(weights[g] as Float32Array, line, unit, encoded, row * groups + g, row * width + g * group);
    }
  }
  return encoded;
}

function quotient(weight: number, { scale, minimum }: Line): number {
  return scale > 0 ? Math.max(0, Math.min(15, Math.floor((weight - minimum) / scale + 0.5))) : 0;
}

/** In fp64, sums in this order: native/runtime/pack.cc gets the same bits. */
function fitLine(weights: Float32Array): Line {
  let low = Number.POSITIVE_INFINITY;
  let high = Number.NEGATIVE_INFINITY;
  for (const w of weights) {
    low = Math.min(low, w);
    high = Math.max(high, w);
  }
  let line: Line = { scale: (high - low) / 15, minimum: low };
  for (let fit = 0; fit < 2 && line.scale > 0; fit++) {
    let [q1, q2, w1, qw] = [0, 0, 0, 0];
    for (const w of weights) {
      const q = quotient(w, line);
      q1 += q;
      q2 += q * q;
      w1 += w;
      qw += q * w;
    }
    const n = weights.length;
    const scale = (n * qw - q1 * w1) / (n * q2 - q1 * q1);
    line = { scale, minimum: (w1 - scale * q1) / n };
  }
  return line;
}

/** The smallest unit in which the row's scales and minimums fit 8 bits; 1 for zeros, also where fp32 has no such unit. */
function unitOf(lines: readonly Line[]): number {
  let unit = 0;
  for (const { scale, minimum } of lines) {
    unit = Math.max(unit, scale / 255, Math.abs(minimum) / (127 * MINIMUM_STEP));
  }
  return Math.fround(unit) || 1;
}

/** Group `index`, whose quotients go to `at`. */
function roundGroup(weights: Float32Array, line: Line, unit: number, to: Int4Groups, index: number, at: number): void {
  const steps = Math.min(255, Math.floor(line.scale / unit + 0.5));
  const scale = steps * unit;
  let [q1, w1] = [0, 0];
  for (const w of weights) {
    q1 += quotient(w, { scale, minimum: line.minimum });
    w1 += w;
  }
  const fitted = (w1 - scale * q1) / weights.length / (MINIMUM_STEP * unit);
  const minimum = Math.max(-128, Math.min(127, Math.floor(fitted + 0.5)));
  to.groupScales[index] = steps;
  to.minimums[index] = minimum;
  const rounded = { scale, minimum: minimum * MINIMUM_STEP * unit };
  for (const [i, w] of weights.entries()) to.quotients[at + i] = quotient(w, rounded);
}

export function decodeInt4Groups({ quotients, groupScales, minimums, units, width, group }: Int4Groups): Float32Array {
  const groups = Math.ceil(width / group);
  return Float32Array.from(quotients, (q, i) => {
    const row = Math.floor(i / width);
    const at = row * groups + Math.floor((i % width) / group);
    return (units[row] as number) * (q * (groupScales[at] as number) + MINIMUM_STEP * (minimums[at] as number));
  });
}

/** y [T, N] = x [T, K] weight^T + bias, with x quantised as said above: the definition of a 4-bit linear. */
export function int4Linear(x: Float32Array, weight: Int4Groups, bias: Float32Array | null, y: Float32Array): void {
  const outputs = weight.units.length;
  const rows = y.length / outputs;
  const activations = encodeActivations(x, x.length / rows);
  for (let t = 0; t < rows; t++) {
    for (let n = 0; n < outputs; n++) {
      const product = Math.fround(rowProduct(activations, t, weight, n) * (weight.units[n] as number));
      y[t * outputs + n] = product + (bias ? (bias[n] as number) : 0);
    }
  }
}

/** Row t of x times row n of the weight, but for the row's unit. */
function rowProduct(x: Int8Groups, t: number, weight: Int4Groups, n: number): number {
  const scales = Math.ceil(x.width / x.group);
  const values = x.values.subarray(t * x.width, (t + 1) * x.width);
  let product = 0;
  for (let s = 0; s < scales; s++) {
    const sum = scaledSum(values, weight, n, s * x.group, Math.min(x.width, (s + 1) * x.group));
    product = Math.fround(Math.fround(sum) * (x.scales[t * scales + s] as number) + product);
  }
  return product;
}

/** Steps [from, to) of k, whole groups but for the last: below 2^27. */
function scaledSum(x: Int8Array, weight: Int4Groups, n: number, from: number, to: number): number {
  const { quotients, groupScales, minimums, width, group } = weight;
  const groups = Math.ceil(width / group);
  let sum = 0;
  for (let begin = from; begin < to; begin += group) {
    const at = n * groups + begin / group;
    let [products, total] = [0, 0];
    for (let k = begin; k < Math.min(begin + group, to); k++) {
      products += (x[k] as number) * (quotients[n * width + k] as number);
      total += x[k] as number;
    }
    sum += products * (groupScales[at] as number) + total * MINIMUM_STEP * (minimums[at] as number);
  }
  return sum;
}
