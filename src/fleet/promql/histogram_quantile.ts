/** `histogram_quantile` of Prometheus (promql/quantile.go) over cumulative buckets in any order. */

interface Bucket {
  readonly le: number;
  readonly count: number;
}

export function bucketQuantile(share: number, given: readonly Bucket[]): number {
  if (Number.isNaN(share)) return Number.NaN;
  if (share < 0) return Number.NEGATIVE_INFINITY;
  if (share > 1) return Number.POSITIVE_INFINITY;
  const buckets = monotonic(coalesced(given.toSorted((a, b) => a.le - b.le || 0)));
  const last = buckets.at(-1);
  if (last?.le !== Number.POSITIVE_INFINITY || buckets.length < 2 || last.count === 0) return Number.NaN;
  const rank = share * last.count;
  const found = buckets.slice(0, -1).findIndex(({ count }) => count >= rank);
  if (found < 0) return (buckets.at(-2) as Bucket).le;
  const { le, count } = buckets[found] as Bucket;
  if (found === 0 && le <= 0) return le;
  const below = found === 0 ? { le: 0, count: 0 } : (buckets[found - 1] as Bucket);
  return below.le + (le - below.le) * ((rank - below.count) / (count - below.count));
}

/** Buckets of one bound count together. */
function coalesced(buckets: readonly Bucket[]): readonly Bucket[] {
  const merged: Bucket[] = [];
  for (const bucket of buckets) {
    const before = merged.at(-1);
    if (before?.le === bucket.le) merged[merged.length - 1] = { le: bucket.le, count: before.count + bucket.count };
    else merged.push(bucket);
  }
  return merged;
}

/** Scrapes of several targets at several times may leave a bucket below the one before it. */
function monotonic(buckets: readonly Bucket[]): readonly Bucket[] {
  let most = Number.NEGATIVE_INFINITY;
  return buckets.map(({ le, count }) => {
    most = Math.max(most, count);
    return { le, count: Math.max(count, most) };
  });
}
