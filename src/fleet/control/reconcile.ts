/** From how many replicas each revision is to have, to what is done about it: wake, start, sleep, stop. Pure. */
import { type Context, canariesOf, revisionOf, type Tally, trackOf, UNDONE } from './context.ts';
import type { Action, Footprint, ReplicaObserved, RevisionState, ServiceState } from './fleet_state.ts';
import { describeShortage, footprintOf, grow, type Room, roomOf, shortOf, shrink } from './placement.ts';
import { victims } from './victims.ts';

/** A start that the machine had no room for. */
export interface Refusal {
  readonly revision: string;
  readonly short: 'memory' | 'cpu';
  readonly text: string;
  /** With the room of one replica of another revision it would fit. */
  readonly fitsInPlace: boolean;
}

export interface Reconciled {
  readonly actions: readonly Action[];
  readonly refusals: readonly Refusal[];
}

/** Actions that lead to `plan`, replicas by revision. Those that are not named are stopped, asleep ones too. */
export function reconcile(ctx: Context, state: ServiceState, plan: ReadonlyMap<string, number>): Reconciled {
  const actions: Action[] = [];
  const refusals: Refusal[] = [];
  const wants = new Map(plan);
  for (const { revision, want } of canariesOf(ctx, state)) wants.set(revision.id, want);
  const standby = standbyOf(ctx, state);
  const known = new Set([...state.revisions.map(({ id }) => id), ...ctx.observed.replicas.map((r) => r.revision)]);
  for (const id of known) shrinkRevision(ctx, state, actions, id, wants.get(id) ?? 0, standby);
  let room = roomOf(ctx.observed.machine);
  for (const id of byNeed(state, wants)) {
    room = growRevision(
      ctx,
      state,
      actions,
      refusals,
      revisionOf(state, id) as RevisionState,
      wants.get(id) ?? 0,
      room,
    );
  }
  if (standby !== null) addStandby(ctx, actions, standby, wants.get(standby.id) ?? 0, room);
  return { actions, refusals };
}

interface Standby {
  readonly id: string;
  readonly count: number;
  readonly revision: RevisionState;
}

/** Who keeps replicas asleep: the stable revision, while nothing rolls. */
function standbyOf(ctx: Context, state: ServiceState): Standby | null {
  const { target, phase } = state.rollout;
  const revision = revisionOf(state, target);
  const isSettled = target === state.registers.latestRolledOut && phase !== 'promoting';
  const count = ctx.spec.stopped ? 0 : ctx.spec.scaling.standby;
  return revision !== null && isSettled && count > 0 ? { id: revision.id, count, revision } : null;
}

/** The stable revision first, then the target, then the canaries. */
function byNeed({ registers, rollout, revisions }: ServiceState, wants: ReadonlyMap<string, number>): string[] {
  const first = [registers.latestRolledOut, rollout.target].filter((id) => id !== null);
  const known = revisions.map(({ id }) => id);
  return [...new Set([...first, ...wants.keys()])].filter((id) => wants.has(id) && known.includes(id));
}

function stopReason(ctx: Context, state: ServiceState, id: string): string {
  if (ctx.spec.stopped) return 'the service is stopped';
  const failed = revisionOf(state, id)?.failed ?? null;
  if (failed !== null) return `it ${failed === UNDONE ? 'was' : 'is given up:'} ${failed}`;
  const { target } = state.rollout;
  if (id === target) return ctx.scaleReason;
  return trackOf(ctx, state).includes(id) ? `${target} takes its place` : 'its canary is gone or has become smaller';
}

function shrinkRevision(
  ctx: Context,
  state: ServiceState,
  actions: Action[],
  id: string,
  want: number,
  standby: Standby | null,
): void {
  const { live, asleep } = ctx.tallyOf(id);
  const reason = stopReason(ctx, state, id);
  const stop = (replica: ReplicaObserved) => actions.push({ kind: 'stop', replica: replica.id, reason });
  const gone = victims(live, live.length - want, ctx.now);
  // Those that can sleep do, as far as sleepers are wanted.
  let beds = standby?.id === id ? Math.max(0, standby.count - asleep.length) : 0;
  for (const replica of gone) {
    if (beds > 0 && replica.phase === 'ready') {
      beds--;
      actions.push({ kind: 'sleep', replica: replica.id });
    } else stop(replica);
  }
  // The first in line are woken.
  const woken = Math.max(0, want - live.length);
  const kept = standby?.id === id ? standby.count : 0;
  for (const replica of victims(asleep, asleep.length - kept, ctx.now).slice(woken)) stop(replica);
  if (gone.length > 0) ctx.log('ScaledDown', `${id}: ${live.length} -> ${want} replicas: ${reason}`);
}

function growRevision(
  ctx: Context,
  state: ServiceState,
  actions: Action[],
  refusals: Refusal[],
  revision: RevisionState,
  want: number,
  before: Room,
): Room {
  const { id } = revision;
  const { live, asleep } = ctx.tallyOf(id);
  const missing = want - live.length;
  if (missing <= 0) return before;
  // Its room is held while it sleeps.
  const woken = victims(asleep, missing, ctx.now);
  for (const replica of woken) actions.push({ kind: 'wake', replica: replica.id });
  const footprint = footprintOf(revision.template, id, ctx.observed.machine);
  let [room, count] = [before, 0];
  let short: 'memory' | 'cpu' | null = null;
  while (woken.length + count < missing) {
    short = shortOf(room, footprint);
    if (short !== null) break;
    room = shrink(room, footprint);
    count++;
  }
  if (count > 0) actions.push({ kind: 'start', service: ctx.spec.id, revision: id, count, asleep: false });
  const got = live.length + woken.length + count;
  const { target } = state.rollout;
  const stable = state.registers.latestRolledOut;
  const isRolling = target !== stable && stable !== null;
  const isOfTrack = id === stable || id === target;
  const reason = !isOfTrack ? 'canary' : isRolling ? `${stable} to ${target}` : ctx.scaleReason;
  if (got > live.length) ctx.log('ScaledUp', `${id}: ${live.length} -> ${got} replicas: ${reason}`);
  if (short !== null) {
    const fitsInPlace = trackOf(ctx, state)
      .filter((other) => other !== id && ctx.tallyOf(other).count > 0)
      .map((other) => footprintOf((revisionOf(state, other) as RevisionState).template, other, ctx.observed.machine))
      .some((freed) => fitsAfter(room, freed, footprint));
    refusals.push({ revision: id, short, text: describeShortage(short, room, footprint), fitsInPlace });
  }
  return room;
}

/** What nobody knows of the one that goes may be enough. */
function fitsAfter(room: Room, freed: Footprint, footprint: Footprint): boolean {
  const short = shortOf(grow(room, freed), footprint);
  return short === null || freed[short === 'memory' ? 'memoryBytes' : 'cpuMilli'] === null;
}

/** Asleep ones are made once everything that serves is there: loading is what takes the machine. */
function addStandby(ctx: Context, actions: Action[], standby: Standby, want: number, before: Room): void {
  const tally: Tally = ctx.tallyOf(standby.id);
  const slept = actions.filter(({ kind }) => kind === 'sleep').length;
  if (tally.ready < want || actions.some(({ kind }) => kind === 'wake' || kind === 'start')) return;
  const footprint = footprintOf(standby.revision.template, standby.id, ctx.observed.machine);
  let [room, count] = [before, 0];
  while (tally.asleep.length + slept + count < standby.count && shortOf(room, footprint) === null) {
    room = shrink(room, footprint);
    count++;
  }
  if (count > 0) actions.push({ kind: 'start', service: ctx.spec.id, revision: standby.id, count, asleep: true });
}
