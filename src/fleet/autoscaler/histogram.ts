/** Arithmetic on histograms of latencies (`counts[i]` of values up to `bounds[i]`, the last of those above all). */
import type { Histogram } from '../gateway/routing_table.ts';

export const FINE_GROWTH = 1.145;

/**
 * Bounds fine enough to learn a latency from, ms: from 1 ms to some 20 minutes by steps of a seventh. With the buckets that vLLM
 * exports, a whole range of loads would show one and the same percentile.
 */
export const FINE_BOUNDS_MS: readonly number[] = Array.from({ length: 105 }, (_, at) => FINE_GROWTH ** at);

const EMPTY: Histogram = { bounds: [], counts: [], sum: 0 };

/** Those with other bounds than the first are of another version of the gateway and are left out. */
export function addHistograms(histograms: readonly Histogram[]): Histogram {
  const [first, ...rest] = histograms;
  if (first === undefined) return EMPTY;
  if (rest.length === 0) return first;
  const counts = [...first.counts];
  let { sum } = first;
  for (const histogram of rest) {
    if (!sameBounds(first, histogram)) continue;
    for (const [at, count] of histogram.counts.entries()) counts[at] = (counts[at] ?? 0) + count;
    sum += histogram.sum;
  }
  return { bounds: first.bounds, counts, sum };
}

/** What came since `before`; null or a count that fell: everything. */
export function histogramDifference(before: Histogram | null, after: Histogram): Histogram {
  if (before === null || !sameBounds(before, after)) return after;
  const counts = after.counts.map((count, at) => count - (before.counts[at] ?? 0));
  return counts.some((count) => count < 0) ? after : { bounds: after.bounds, counts, sum: after.sum - before.sum };
}

/** Evenly spread within its bucket, as `histogram_quantile` has it; above the last bound it is that bound. null without values. */
export function quantileOf({ bounds, counts }: Histogram, share: number): number | null {
  const total = counts.reduce((sum, count) => sum + count, 0);
  if (total <= 0) return null;
  const rank = share * total;
  let below = 0;
  for (const [at, count] of counts.entries()) {
    if (below + count >= rank && count > 0) {
      const [low, high] = [at === 0 ? 0 : (bounds[at - 1] as number), bounds[at]];
      return high === undefined ? low : low + (high - low) * ((rank - below) / count);
    }
    below += count;
  }
  return bounds.at(-1) ?? null;
}

function sameBounds(a: Histogram, b: Histogram): boolean {
  return (
    a.bounds === b.bounds ||
    (a.bounds.length === b.bounds.length && a.bounds.every((bound, at) => bound === b.bounds[at]))
  );
}
