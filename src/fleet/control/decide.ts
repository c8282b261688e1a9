/**
 * One look at one service: what to start, stop, wake and put to sleep, what the gateway is told, what is remembered. Pure: the
 * supervisor and the simulator call it each tick with what they see, and carry out its actions before they call it again.
 */
import { assert } from '../../base/assert.ts';
import { advanceRollout, withRollout } from '../rollout/progress.ts';
import { initialState, reviseTemplates } from '../rollout/revisions.ts';
import { planReplicas } from '../rollout/strategy.ts';
import type { ServiceSpec } from '../spec/fleet_spec.ts';
import { conditionsOf } from './conditions.ts';
import { type Context, isSplit, makeContext, trackOf, trackScale } from './context.ts';
import type { Action, FleetEvent, ServiceDecision, ServiceObserved, ServiceState } from './fleet_state.ts';
import { type Reconciled, reconcile } from './reconcile.ts';
import { routeOf } from './route.ts';

/**
 * `state` null: the service is new. `scale`: replicas that the scaling rule wants, all revisions together; `replicasPinned` of the
 * state rules over it. `now` in ms, never less than at the call before.
 */
export function decideService(
  spec: ServiceSpec,
  state: ServiceState | null,
  observed: ServiceObserved,
  scale: number,
  now: number,
): ServiceDecision {
  assert(Number.isInteger(scale) && scale >= 0, `scale of ${spec.id} is ${scale}`);
  const before: ServiceState = { ...(state ?? initialState(spec.id, now)), replicasWanted: scale };
  const events: FleetEvent[] = [];
  const ctx = makeContext(spec, before, observed, now, events);
  if (spec.stopped) return decideStopped(ctx, before, events);
  const revised = advanceRollout(ctx, reviseTemplates(ctx, before));
  const reconciled = reconcile(ctx, revised, planReplicas(ctx, revised));
  const after = noteRefusals(ctx, revised, reconciled);
  const route = routeOf(ctx, after, reconciled.actions);
  return { state: after, actions: reconciled.actions, events, route, conditions: conditionsOf(ctx, after, route) };
}

/** Nothing runs and nothing rolls on; deadlines and pauses count from when it goes on. */
function decideStopped(ctx: Context, before: ServiceState, events: readonly FleetEvent[]): ServiceDecision {
  const live = ctx.observed.replicas.filter(({ phase }) => phase !== 'draining');
  const actions: Action[] = live.map(({ id }) => ({ kind: 'stop', replica: id, reason: 'the service is stopped' }));
  if (live.length > 0) ctx.log('Stopped', `${live.length} replicas`);
  const state = { ...withRollout(before, { progressAt: ctx.now, stepAt: ctx.now }), blocked: null };
  const route = routeOf(ctx, state, actions);
  return { state, actions, events, route, conditions: conditionsOf(ctx, state, route) };
}

/** Says once what a start lacks, and lets a rollout that has no room beside the old replicas take their places. */
function noteRefusals(ctx: Context, state: ServiceState, { actions, refusals }: Reconciled): ServiceState {
  const { rollout } = state;
  const isRolling = trackOf(ctx, state).some((id) => id !== rollout.target && ctx.tallyOf(id).count > 0);
  const [first] = refusals;
  if (first === undefined) return state.blocked === null || isRolling ? state : { ...state, blocked: null };
  const blocked = `${first.short} for ${first.revision}`;
  if (blocked !== state.blocked)
    ctx.log(first.short === 'memory' ? 'InsufficientMemory' : 'InsufficientCpu', `${first.revision} ${first.text}`);
  const next = { ...state, blocked };
  const { live, draining } = ctx.tallyOf(rollout.target);
  const isWaiting =
    ctx.observed.replicas.some(({ phase }) => phase === 'draining') ||
    live.some(({ phase }) => phase !== 'ready') ||
    draining.length > 0 ||
    actions.some(({ kind }) => kind !== 'sleep');
  const ofTarget = refusals.find(({ revision }) => revision === rollout.target);
  if (!isRolling || rollout.inPlace || isWaiting || ofTarget?.fitsInPlace !== true) return next;
  // Beside the only replica of a split there is nothing to take the place of.
  if (isSplit(ctx, state) && trackScale(ctx, state) <= 1) return next;
  ctx.log('InPlace', `${rollout.target} ${ofTarget.text}: its replicas take the places of old ones`);
  return withRollout(next, { inPlace: true });
}
