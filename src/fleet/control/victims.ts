/**
 * Which replicas a scale-down takes: the order of Kubernetes' ReplicaSet (pkg/controller `ActivePodsWithRanks`), with the requests
 * in flight as the deletion cost, so that the busy ones survive. All replicas are on one node, so its rule about siblings is void.
 */
import type { ReplicaObserved, ReplicaPhase } from './fleet_state.ts';

/** First those that serve nobody. */
const PHASE_RANK: Readonly<Record<ReplicaPhase, number>> = {
  backoff: 0,
  starting: 1,
  asleep: 2,
  unready: 3,
  ready: 4,
  draining: 5,
};

/** Kubernetes compares the time a pod was ready by powers of two of nanoseconds. */
function readyRank({ readyAt }: ReplicaObserved, now: number): number {
  const readyMs = readyAt === null ? 0 : now - readyAt;
  return readyMs > 0 ? Math.floor(Math.log2(readyMs * 1e6)) : -1;
}

/** Below 0: `a` goes before `b`. A total order. */
function byVictimOrder(a: ReplicaObserved, b: ReplicaObserved, now: number): number {
  return (
    PHASE_RANK[a.phase] - PHASE_RANK[b.phase] ||
    a.inFlight - b.inFlight ||
    readyRank(a, now) - readyRank(b, now) ||
    b.restarts - a.restarts ||
    b.createdAt - a.createdAt ||
    (a.id < b.id ? 1 : -1)
  );
}

/** The `count` of `replicas` that go, first victim first. */
export function victims(replicas: readonly ReplicaObserved[], count: number, now: number): ReplicaObserved[] {
  return [...replicas].sort((a, b) => byVictimOrder(a, b, now)).slice(0, Math.max(0, count));
}
