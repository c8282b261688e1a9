/**
 * llama.cpp's Q4_K: blocks of 256 consecutive elements in 8 groups of 32, w = d s q - m t with q in 0..15, s and t in 0..63 for
 * each group, d and m in fp16 for the block: 4.5 bits a weight. Of a group's lines the one with the least error is taken,
 * large weights counting more. Written for benchmarks against llama.cpp: it rounds, and does not make the bytes.
 */
import { assert } from '../base/assert.ts';
import { float16Bits, float16Value } from './dtypes.ts';
import { roundHalfEven } from './int8_channel.ts';

const BLOCK = 256;
const GROUP = 32;
/** Steps that the range of a group is divided into, tried one after the other. */
const RANGES = Array.from({ length: 21 }, (_, i) => 14 + i / 10);

/** w = scale q - offset, offset >= 0. */
interface Line {
  readonly scale: number;
  readonly offset: number;
}

/** `values` are whole blocks. */
export function roundToQ4K(values: Float32Array): Float32Array {
  assert(values.length % BLOCK === 0, 'Q4_K needs whole blocks of 256');
  const rounded = new Float32Array(values.length);
  for (let from = 0; from < values.length; from += BLOCK) {
    const lines = Array.from({ length: BLOCK / GROUP }, (_, g) =>
      fitLine(values.subarray(from + g * GROUP, from + (g + 1) * GROUP)),
    );
    const scales = sixBits(lines.map(({ scale }) => scale));
    const offsets = sixBits(lines.map(({ offset }) => offset));
    for (let i = 0; i < BLOCK; i++) {
      const [scale, offset] = [scales, offsets].map((all) => all[Math.floor(i / GROUP)] as number) as [number, number];
      const q = scale === 0 ? 0 : quotient(((values[from + i] as number) + offset) / scale);
      rounded[from + i] = q * scale - offset;
    }
  }
  return rounded;
}

/** As multiples, 0 to 63, of a fp16 number. */
function sixBits(values: readonly number[]): number[] {
  const most = Math.max(...values);
  if (!(most > 0)) return values.map(() => 0);
  const unit = float16Value(float16Bits(most / 63));
  return values.map((value) => unit * Math.min(63, roundHalfEven((value * 63) / most)));
}

function quotient(value: number): number {
  return Math.max(0, Math.min(15, roundHalfEven(value)));
}

function fitLine(w: Float32Array): Line {
  const size = Math.sqrt(w.reduce((sum, x) => sum + x * x, 0) / w.length);
  const weights = Float64Array.from(w, (x) => size + Math.abs(x));
  const [low, high] = [Math.min(0, ...w), Math.max(...w)];
  if (!(high > low)) return { scale: 0, offset: -low };
  let line: Line = { scale: (high - low) / 15, offset: -low };
  let least = errorOf(w, weights, quotients(w, 15 / (high - low), line.offset), line);
  for (const steps of RANGES) {
    // The low end is that of the best line so far.
    const q = quotients(w, steps / (high + line.offset), line.offset);
    const candidate = regress(w, weights, q);
    if (candidate === null) continue;
    const error = errorOf(w, weights, q, candidate);
    if (error < least) [line, least] = [candidate, error];
  }
  return line;
}

function quotients(w: Float32Array, perStep: number, offset: number): Float64Array {
  return Float64Array.from(w, (x) => quotient(perStep * (x + offset)));
}

/** The line through the quotients with the least weighted error, its offset not below 0. */
function regress(w: Float32Array, weights: Float64Array, q: Float64Array): Line | null {
  let [n, q1, q2, w1, qw] = [0, 0, 0, 0, 0];
  for (const [i, x] of w.entries()) {
    const [weight, steps] = [weights[i] as number, q[i] as number];
    n += weight;
    q1 += weight * steps;
    q2 += weight * steps * steps;
    w1 += weight * x;
    qw += weight * steps * x;
  }
  const determinant = n * q2 - q1 * q1;
  if (!(determinant > 0)) return null;
  const offset = (q1 * qw - q2 * w1) / determinant;
  return offset < 0 ? { scale: qw / q2, offset: 0 } : { scale: (n * qw - w1 * q1) / determinant, offset };
}

function errorOf(w: Float32Array, weights: Float64Array, q: Float64Array, { scale, offset }: Line): number {
  return w.reduce((sum, x, i) => sum + (weights[i] as number) * (scale * (q[i] as number) - offset - x) ** 2, 0);
}
