/** What the stages of one decision share: the inputs, and the replicas counted by revision. */
import { trafficTargets } from '../rollout/registers.ts';
import type { CanarySpec, ServiceSpec } from '../spec/fleet_spec.ts';
import type { FleetEvent, ReplicaObserved, RevisionState, ServiceObserved, ServiceState } from './fleet_state.ts';
import { footprintOf, roomOf, shortOf } from './placement.ts';

/** Replicas of one revision. */
export interface Tally {
  /** That serve, will serve or should: neither asleep nor draining. */
  readonly live: readonly ReplicaObserved[];
  readonly asleep: readonly ReplicaObserved[];
  readonly draining: readonly ReplicaObserved[];
  readonly count: number;
  readonly ready: number;
  /** Ready for `minReadyMs`. */
  readonly available: number;
}

export interface Context {
  readonly spec: ServiceSpec;
  readonly observed: ServiceObserved;
  readonly now: number;
  /** Replicas that are to serve, all revisions together. */
  readonly scale: number;
  /** Why so many, for events. */
  readonly scaleReason: string;
  readonly tallyOf: (revision: string | null) => Tally;
  readonly log: (type: string, text: string) => void;
}

const NOTHING: Tally = { live: [], asleep: [], draining: [], count: 0, ready: 0, available: 0 };

export function makeContext(
  spec: ServiceSpec,
  state: ServiceState,
  observed: ServiceObserved,
  now: number,
  events: FleetEvent[],
): Context {
  const minReadyMs = new Map(state.revisions.map(({ id, template }) => [id, template.minReadyMs]));
  const tallies = countReplicas(observed.replicas, (revision) => minReadyMs.get(revision) ?? 0, now);
  const wanted = state.replicasPinned ?? state.replicasWanted ?? 0;
  const pinned = state.replicasPinned !== null;
  return {
    spec,
    observed,
    now,
    scale: spec.stopped ? 0 : wanted,
    scaleReason: spec.stopped ? 'stopped' : pinned ? `pinned to ${wanted}` : `the scaling rule wants ${wanted}`,
    tallyOf: (revision) => (revision === null ? NOTHING : (tallies.get(revision) ?? NOTHING)),
    log: (type, text) => events.push({ at: now, service: spec.id, type, text }),
  };
}

function countReplicas(
  replicas: readonly ReplicaObserved[],
  minReadyMs: (revision: string) => number,
  now: number,
): Map<string, Tally> {
  const groups = new Map<string, ReplicaObserved[]>();
  for (const replica of replicas) {
    const group = groups.get(replica.revision);
    if (group === undefined) groups.set(replica.revision, [replica]);
    else group.push(replica);
  }
  const tallies = new Map<string, Tally>();
  for (const [revision, group] of groups) {
    const live = group.filter(({ phase }) => phase !== 'asleep' && phase !== 'draining');
    const ready = live.filter(({ phase }) => phase === 'ready');
    const available = ready.filter(({ readyAt }) => now - (readyAt ?? now) >= minReadyMs(revision));
    tallies.set(revision, {
      live,
      asleep: group.filter(({ phase }) => phase === 'asleep'),
      draining: group.filter(({ phase }) => phase === 'draining'),
      count: live.length,
      ready: ready.length,
      available: available.length,
    });
  }
  return tallies;
}

/** What `RevisionState.failed` says of one that a person took back: nothing is wrong with its replicas. */
export const UNDONE = 'undone by hand';

export function revisionOf(state: ServiceState, id: string | null): RevisionState | null {
  return state.revisions.find((revision) => revision.id === id) ?? null;
}

/** Its replicas are not fit to serve: they failed to start or were judged bad. */
export function isCondemned(state: ServiceState, id: string): boolean {
  const failed = revisionOf(state, id)?.failed ?? null;
  return failed !== null && failed !== UNDONE;
}

/** Revision of an entry of `canaries`; it is made before anybody asks. */
export function canaryRevision(state: ServiceState, name: string): RevisionState | null {
  const { latestCreated, latestRolledOut } = state.registers;
  const taken = [latestCreated, latestRolledOut, state.rollout.target];
  return state.revisions.findLast(({ id, canary }) => canary === name && !taken.includes(id)) ?? null;
}

export interface Canary {
  readonly spec: CanarySpec;
  readonly revision: RevisionState;
  readonly want: number;
  /** Gets its share. */
  readonly isReady: boolean;
}

/** Replicas and readiness of each canary as KServe's Standard mode has them. A failed one gets none. */
export function canariesOf(ctx: Context, state: ServiceState): Canary[] {
  const canaries: Canary[] = [];
  for (const spec of ctx.spec.canaries) {
    const revision = canaryRevision(state, spec.name);
    if (revision === null) continue;
    const byShare = Math.ceil((Math.max(1, ctx.spec.scaling.minReplicas) * spec.percent) / 100);
    const want = ctx.scale === 0 || revision.failed !== null ? 0 : (spec.minReplicas ?? byShare);
    canaries.push({ spec, revision, want, isReady: want > 0 && ctx.tallyOf(revision.id).available > 0 });
  }
  return canaries;
}

/**
 * Revisions beside the canaries that have replicas or are to have some; the oldest first. A canary whose entry is gone is none of them,
 * unless it was promoted: it gets nothing from the moment on.
 */
export function trackOf(ctx: Context, state: ServiceState): string[] {
  const { latestRolledOut, previousRolledOut } = state.registers;
  const named = [state.rollout.target, latestRolledOut, previousRolledOut];
  return state.revisions
    .filter(({ id, canary }) => named.includes(id) || canary === null)
    .map(({ id }) => id)
    .filter((id) => id === state.rollout.target || ctx.tallyOf(id).count > 0);
}

/** Replicas of the stable revision and those that come after it: what the ready canaries leave, at least 1. */
export function trackScale(ctx: Context, state: ServiceState): number {
  if (ctx.scale === 0) return 0;
  const ready = canariesOf(ctx, state).filter(({ isReady }) => isReady);
  const taken = ready.reduce((sum, { revision, want }) => sum + Math.min(want, ctx.tallyOf(revision.id).available), 0);
  return Math.max(1, ctx.scale - taken);
}

/** `canaryTrafficPercent` splits the requests between the stable revision and the target, which may not be ready yet. */
export function isSplit({ spec }: Context, { rollout, registers }: ServiceState): boolean {
  const onceReady = { ...registers, latestReady: rollout.target };
  return rollout.phase !== 'rollingBack' && trafficTargets(onceReady, spec.canaryTrafficPercent, false).length > 1;
}

/** All that was started is there, nothing is about to leave, and the machine has no room for another replica of the target. */
export function isFull(ctx: Context, state: ServiceState): boolean {
  const target = revisionOf(state, state.rollout.target);
  if (target === null || ctx.observed.replicas.some(({ phase }) => phase === 'draining')) return false;
  if (trackOf(ctx, state).some((id) => ctx.tallyOf(id).count > ctx.tallyOf(id).available)) return false;
  const footprint = footprintOf(target.template, target.id, ctx.observed.machine);
  return ctx.tallyOf(target.id).asleep.length === 0 && shortOf(roomOf(ctx.observed.machine), footprint) !== null;
}
