/** Stats of a gateway with those of its predecessor, which still ends what it has: each counts its own requests. */
import type { GatewayStats, Histogram, RevisionStats, ServiceStats } from './routing_table.ts';

function merged<T>(
  a: Readonly<Record<string, T>>,
  b: Readonly<Record<string, T>>,
  merge: (a: T, b: T) => T,
): Record<string, T> {
  const all = new Map(Object.entries(a));
  for (const [key, value] of Object.entries(b)) {
    const other = all.get(key);
    all.set(key, other === undefined ? value : merge(other, value));
  }
  return Object.fromEntries(all);
}

const mergeHistograms = (a: Histogram, b: Histogram): Histogram => ({
  bounds: a.bounds,
  counts: a.counts.map((count, i) => count + (b.counts[i] ?? 0)),
  sum: a.sum + b.sum,
});

const mergeRevisions = (a: RevisionStats, b: RevisionStats): RevisionStats => ({
  requests: a.requests + b.requests,
  errors: a.errors + b.errors,
  promptTokens: a.promptTokens + b.promptTokens,
  outputTokens: a.outputTokens + b.outputTokens,
  ttftMs: mergeHistograms(a.ttftMs, b.ttftMs),
  tpotMs: mergeHistograms(a.tpotMs, b.tpotMs),
});

const latest = (a: number | null, b: number | null): number | null =>
  a === null ? b : b === null ? a : Math.max(a, b);

const mergeServices = (a: ServiceStats, b: ServiceStats): ServiceStats => ({
  waiting: a.waiting + b.waiting,
  inFlight: a.inFlight + b.inFlight,
  arrivals: a.arrivals + b.arrivals,
  refused: a.refused + b.refused,
  lastActiveAt: latest(a.lastActiveAt, b.lastActiveAt),
  revisions: merged(a.revisions, b.revisions, mergeRevisions),
  endpoints: merged(a.endpoints, b.endpoints, (x, y) => ({
    inFlight: x.inFlight + y.inFlight,
    ejected: x.ejected || y.ejected,
  })),
});

/** Both of one line of succession: the counters go on as if there were one gateway. */
export function mergeStats(own: GatewayStats, predecessor: GatewayStats): GatewayStats {
  return { ...own, services: merged(own.services, predecessor.services, mergeServices) };
}

/** The totals alone: nothing is under way any more. */
export function settledStats(stats: GatewayStats): GatewayStats {
  const services: Record<string, ServiceStats> = {};
  for (const [id, service] of Object.entries(stats.services)) {
    services[id] = { ...service, waiting: 0, inFlight: 0, endpoints: {} };
  }
  return { ...stats, services };
}
