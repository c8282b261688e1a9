/**
 * LogitRows by its definition, in fp64: each row alone. Order and formulas follow vLLM's sampler: temperature, min_p, top_k
 * (ties with the k-th are kept), top_p (drop in ascending order while the dropped sum is at most 1 - p; the largest stays).
 */
import type { DrawParams, LogitRows, RowDraws } from '../backend.ts';

/** vLLM raises smaller positive temperatures to this. */
const LEAST_TEMPERATURE = 0.01;

export class ReferenceLogitRows implements LogitRows {
  readonly vocabSize: number;
  private readonly logits: Float32Array;

  /** `logits`: [rows, vocab], owned by the model and overwritten by each run. */
  constructor(logits: Float32Array, vocabSize: number) {
    this.logits = logits;
    this.vocabSize = vocabSize;
  }

  row(r: number): Float32Array {
    return this.logits.subarray(r * this.vocabSize, (r + 1) * this.vocabSize);
  }

  logSumExp(r: number): number {
    return logSumExp(this.row(r));
  }

  argmax(r: number): number {
    const row = this.row(r);
    let best = 0;
    for (let id = 1; id < row.length; id++) if ((row[id] as number) > (row[best] as number)) best = id;
    return best;
  }

  topK(r: number, k: number): { ids: Int32Array; logits: Float32Array } {
    const row = this.row(r);
    const ids = descending(row).subarray(0, k);
    return { ids, logits: Float32Array.from(ids, (id) => row[id] as number) };
  }

  rank(r: number, id: number): number {
    const row = this.row(r);
    let larger = 0;
    for (let i = 0; i < row.length; i++) if ((row[i] as number) > (row[id] as number)) larger++;
    return 1 + larger;
  }

  sample(r: number, params: DrawParams): number {
    const logprobs = processed(this.row(r), params);
    let total = 0;
    for (const logprob of logprobs) total += Math.exp(logprob);
    const target = params.u * total;
    let sum = 0;
    let last = 0;
    for (let id = 0; id < logprobs.length; id++) {
      const probability = Math.exp(logprobs[id] as number);
      if (probability === 0) continue;
      last = id;
      sum += probability;
      if (sum > target) break;
    }
    return last;
  }

  process(r: number, params: Omit<DrawParams, 'u'>): void {
    this.row(r).set(processed(this.row(r), params));
  }
}

/** What a run's draws are by definition. */
export function drawRows(logits: LogitRows, { count, rows, numbers, tokenIds }: RowDraws): void {
  for (let i = 0; i < count; i++) {
    const r = rows[i] as number;
    const row = logits.row(r);
    const [temperature = 0, topK = 0, topP = 1, minP = 0, u = 0] = numbers.subarray(5 * i, 5 * i + 5);
    const best = logits.argmax(r);
    const largest = row[best] as number;
    const draws = temperature > 0 && Number.isFinite(largest);
    const id = draws ? logits.sample(r, { temperature, topK, topP, minP, u }) : best;
    tokenIds[i] = Number.isFinite(largest) && (row[id] as number) > Number.NEGATIVE_INFINITY ? id : -1;
  }
}

/** log-probabilities after all restrictions; -Infinity where removed. */
export function processed(logits: ArrayLike<number>, params: Omit<DrawParams, 'u'>): Float64Array {
  const temperature = Math.max(params.temperature, LEAST_TEMPERATURE);
  const scaled = Float64Array.from(logits, (logit) => logit / temperature);
  if (params.minP > 0) {
    const least = maxOf(scaled) + Math.log(params.minP);
    for (let id = 0; id < scaled.length; id++) if ((scaled[id] as number) < least) scaled[id] = -Infinity;
  }
  if (params.topK > 0 && params.topK < scaled.length) keepTopK(scaled, params.topK);
  if (params.topP < 1) keepTopP(scaled, params.topP);
  const shift = logSumExp(scaled);
  return scaled.map((value) => value - shift);
}

function keepTopK(values: Float64Array, k: number): void {
  const least = Float64Array.from(values).sort()[values.length - k] as number;
  for (let id = 0; id < values.length; id++) if ((values[id] as number) < least) values[id] = -Infinity;
}

function keepTopP(values: Float64Array, p: number): void {
  const order = descending(values);
  const max = maxOf(values);
  // Weights are left unnormalised: equal tokens then weigh exactly 1, and a border between them does not depend on rounding.
  const weights = values.map((value) => Math.exp(value - max));
  const most = (1 - p) * weights.reduce((sum, weight) => sum + weight, 0);
  let dropped = 0;
  for (let i = order.length - 1; i > 0; i--) {
    const id = order[i] as number;
    dropped += weights[id] as number;
    if (dropped > most) break;
    values[id] = -Infinity;
  }
}

/** Ids by value, largest first, ties by lower id, -Infinity left out. */
function descending(values: Float32Array | Float64Array): Int32Array {
  const ids = Int32Array.from(values.keys()).filter((id) => (values[id] as number) > -Infinity);
  return ids.sort((a, b) => (values[b] as number) - (values[a] as number) || a - b);
}

function maxOf(values: ArrayLike<number>): number {
  let max = -Infinity;
  for (let i = 0; i < values.length; i++) max = Math.max(max, values[i] as number);
  return max;
}

function logSumExp(values: Float32Array | Float64Array): number {
  const max = maxOf(values);
  if (max === -Infinity) return -Infinity;
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += Math.exp((values[i] as number) - max);
  return max + Math.log(sum);
}
