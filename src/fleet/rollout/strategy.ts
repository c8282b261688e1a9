/**
 * How many replicas each revision is to have next: one step of a rolling update as Kubernetes' Deployment controller makes it
 * (pkg/controller/deployment/rolling.go), and the other strategies. Pure; asked again each tick with what came of it.
 */
import { type Context, isCondemned, isFull, isSplit, type Tally, trackOf, trackScale } from '../control/context.ts';
import type { ServiceState } from '../control/fleet_state.ts';
import type { RolloutSpec } from '../spec/fleet_spec.ts';

/** How long the old set of a blue-green rollout stays after the switch, ms: Argo Rollouts' scaleDownDelaySeconds. */
export const KEEP_OLD_MS = 30_000;

/** Counts out of shares, with Kubernetes' rounding: surge up, unavailable down, both 0 -> 1 unavailable. */
export function bounds(spec: RolloutSpec, replicas: number): { readonly surge: number; readonly unavailable: number } {
  const share = (value: RolloutSpec['maxSurge'], round: (x: number) => number) =>
    typeof value === 'number' ? value : round((value.percent * replicas) / 100);
  const surge = share(spec.maxSurge, Math.ceil);
  const unavailable = Math.min(replicas, share(spec.maxUnavailable, Math.floor));
  return surge === 0 && unavailable === 0 ? { surge, unavailable: 1 } : { surge, unavailable };
}

/** Percent of the requests that the target is to get while both serve; null = as its replicas are. */
export function targetPercent(ctx: Context, state: ServiceState): number | null {
  if (isSplit(ctx, state)) return ctx.spec.canaryTrafficPercent;
  const { rollout, registers } = state;
  const isRolling = registers.latestRolledOut !== null && rollout.target !== registers.latestRolledOut;
  const isStepping = rollout.phase === 'progressing' || rollout.phase === 'paused' || rollout.phase === 'failed';
  if (ctx.spec.rollout.strategy !== 'canary' || !isRolling || !isStepping || cannotShare(ctx, state)) return null;
  const percent = ctx.spec.rollout.steps[rollout.step]?.percent ?? 100;
  return percent >= 100 ? null : percent;
}

/** One replica, by what is wanted or what fits, and no room for another beside it. */
export function cannotShare(ctx: Context, state: ServiceState): boolean {
  const scale = trackScale(ctx, state);
  const { inPlace } = state.rollout;
  if (scale <= 1) return inPlace || bounds(ctx.spec.rollout, scale).surge === 0;
  const running = trackOf(ctx, state).reduce((sum, id) => sum + ctx.tallyOf(id).count, 0);
  return inPlace && running <= 1 && isFull(ctx, state);
}

/** Replicas that the target is to have in the end of this step. */
export function targetReplicas(ctx: Context, state: ServiceState): number {
  const scale = trackScale(ctx, state);
  const percent = targetPercent(ctx, state);
  if (percent === null || scale === 0) return scale;
  const isKnown = state.registers.latestReady === state.rollout.target;
  // Nobody asked for it: it has shown that it starts, and may sleep like the rest of a service that goes to zero.
  if (percent === 0 && isKnown && ctx.spec.scaling.minReplicas === 0) return 0;
  // One old replica stays as long as there are shares.
  const surge = state.rollout.inPlace ? 0 : surgeOf(ctx, state, scale);
  return Math.max(1, Math.min(Math.ceil((scale * percent) / 100), scale + surge - 1));
}

/** A split needs two revisions, whatever `maxSurge` says. */
function surgeOf(ctx: Context, state: ServiceState, scale: number): number {
  const { surge } = bounds(ctx.spec.rollout, scale);
  return isSplit(ctx, state) ? Math.max(1, surge) : surge;
}

/** Replicas by revision for the next moment; one that is not named gets none. */
export function planReplicas(ctx: Context, state: ServiceState): Map<string, number> {
  const { rollout, registers } = state;
  const scale = trackScale(ctx, state);
  const track = trackOf(ctx, state);
  const target = rollout.target as string;
  // As soon as something else serves, those that are unfit go at once.
  const isFit = (id: string) => !isCondemned(state, id);
  const hasFit = track.some((id) => isFit(id) && ctx.tallyOf(id).available > 0);
  const olds = track.filter((id) => id !== target && (isFit(id) || !hasFit));
  const stable = registers.latestRolledOut;
  const isSettled = stable === null || target === stable;
  const { strategy } = ctx.spec.rollout;
  if (strategy === 'recreate') return recreate(ctx, state, target, scale);
  if (strategy === 'blueGreen' && !rollout.inPlace && !isSplit(ctx, state)) {
    if (!isSettled) return sideBySide(ctx, state, target, stable, scale);
    if (rollout.phase === 'promoting') return sideBySide(ctx, state, target, registers.previousRolledOut, scale);
  }
  return roll(ctx, state, target, olds, scale);
}

/** Paused before or within a rollout: the target gets no more than it has. */
function isHeld({ rollout, registers }: ServiceState): boolean {
  return (
    rollout.phase === 'paused' && rollout.target !== registers.latestRolledOut && registers.latestRolledOut !== null
  );
}

function recreate(ctx: Context, state: ServiceState, target: string, scale: number) {
  const { count } = ctx.tallyOf(target);
  if (isHeld(state) && count === 0) return new Map([[state.registers.latestRolledOut as string, scale]]);
  const others = state.revisions.filter(({ id, canary }) => id !== target && canary === null).map(({ id }) => id);
  const isGone = others.every((id) => ctx.tallyOf(id).count + ctx.tallyOf(id).draining.length === 0);
  return new Map([[target, isGone ? scale : Math.min(scale, count)]]);
}

/** Two full sets; `other` = the one that serves before the switch, or served until it. */
function sideBySide(ctx: Context, state: ServiceState, target: string, other: string | null, scale: number) {
  const own = isHeld(state) ? Math.min(scale, ctx.tallyOf(target).count) : scale;
  const plan = new Map([[target, own]]);
  const isServing = other === state.registers.latestRolledOut;
  if (other !== null && other !== target && !isCondemned(state, other))
    plan.set(other, isServing ? scale : Math.min(scale, ctx.tallyOf(other).count));
  return plan;
}

interface Roll {
  readonly scale: number;
  readonly surge: number;
  readonly unavailable: number;
  /** What the target and all others are to have in the end. */
  readonly newWant: number;
  readonly oldWant: number;
  /** The stable revision is kept at this many. */
  readonly oldFloor: number;
}

function roll(ctx: Context, state: ServiceState, target: string, olds: readonly string[], scale: number) {
  const stable = state.registers.latestRolledOut;
  const percent = targetPercent(ctx, state);
  const want = targetReplicas(ctx, state);
  const newWant = isHeld(state) ? Math.min(want, ctx.tallyOf(target).count) : want;
  let surge = surgeOf(ctx, state, scale);
  let { unavailable } = bounds(ctx.spec.rollout, scale);
  if (state.rollout.inPlace) {
    surge = 0;
    unavailable = Math.max(1, unavailable);
    // Fewer run than are wanted, for want of room: still one of them has to go.
    const available = trackOf(ctx, state).reduce((sum, id) => sum + ctx.tallyOf(id).available, 0);
    if (available <= scale - unavailable && isFull(ctx, state)) unavailable = scale - available + 1;
  } else if (percent !== null && surge > 0) unavailable = 0; // The stable revision stays whole until the canary is ready.
  const oldWant = oldReplicas(ctx, state, scale, newWant);
  const isProven = state.registers.latestReady === target || ctx.tallyOf(target).available > 0;
  const oldFloor = Math.max(oldWant, isProven ? 0 : scale - unavailable);
  const order = [...olds].sort((a, b) => Number(a === stable) - Number(b === stable));
  // Where places are taken, the old ones do not come back while this lasts.
  const isKept = stable !== null && stable !== target && !isCondemned(state, stable) && !state.rollout.inPlace;
  return rollStep(
    { scale, surge, unavailable, newWant, oldWant, oldFloor },
    ctx,
    target,
    order,
    isKept ? stable : null,
  );
}

/** What the revisions beside the target keep: nothing, unless the requests are shared or the rollout is paused. */
function oldReplicas(ctx: Context, state: ServiceState, scale: number, newWant: number): number {
  if (isHeld(state)) return Math.max(0, scale - newWant);
  if (targetPercent(ctx, state) === null || scale === 0) return 0;
  if (!state.rollout.inPlace) return Math.max(1, scale - newWant);
  const sum = (id: string) => ctx.tallyOf(id).count + ctx.tallyOf(id).draining.length;
  const held = trackOf(ctx, state).reduce((total, id) => total + sum(id), 0);
  return Math.max(1, Math.min(scale, held) - newWant);
}

function rollStep(roll: Roll, ctx: Context, target: string, olds: readonly string[], stable: string | null) {
  const own = ctx.tallyOf(target);
  const others = new Map(olds.map((id) => [id, ctx.tallyOf(id)]));
  const sum = (of: (tally: Tally) => number) => [...others.values()].reduce((total, tally) => total + of(tally), 0);
  const minAvailable = Math.max(0, roll.scale - roll.unavailable);
  let spare = Math.max(0, own.available + sum((t) => t.available) - minAvailable);
  // Those of the target that are too many: first what does not serve.
  const unhealthy = own.count - own.available;
  const down = Math.min(Math.max(0, own.count - roll.newWant), unhealthy + spare);
  spare -= Math.max(0, down - unhealthy);
  let newCount = own.count - down;
  // Old ones: the unhealthy first, then what the new ones make dispensable.
  const plan = new Map(olds.map((id) => [id, others.get(id)?.count ?? 0]));
  let excess = Math.max(0, sum((t) => t.count) - roll.oldWant);
  let cleanup = Math.max(0, own.count + sum((t) => t.count) - minAvailable - unhealthy);
  const take = (id: string, most: number) => {
    const taken = Math.max(0, Math.min(most, excess));
    plan.set(id, (plan.get(id) as number) - taken);
    excess -= taken;
    return taken;
  };
  for (const [id, tally] of others) cleanup -= take(id, Math.min(tally.count - tally.available, cleanup));
  for (const [id, tally] of others) spare -= take(id, Math.min(tally.available, spare));
  let oldCount = [...plan.values()].reduce((total, count) => total + count, 0);
  const most = roll.scale + roll.surge;
  if (stable !== null && oldCount < roll.oldFloor) {
    const up = Math.max(0, Math.min(roll.oldFloor - oldCount, most - newCount - oldCount));
    plan.set(stable, (plan.get(stable) ?? 0) + up);
    oldCount += up;
  }
  const over = Math.max(0, newCount + oldCount - most);
  newCount -= Math.min(over, Math.max(0, newCount - own.available));
  newCount += Math.max(0, Math.min(roll.newWant - newCount, most - newCount - oldCount));
  return plan.set(target, newCount);
}
