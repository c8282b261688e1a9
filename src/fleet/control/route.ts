/** The service's part of the gateway's table: who gets which share, under which tags, at which addresses. Pure. */
import type { Endpoint, RevisionRoute, ServiceRoute } from '../gateway/routing_table.ts';
import { targetPercent, targetReplicas } from '../rollout/strategy.ts';
import { type Context, canariesOf, isCondemned, revisionOf, trackOf } from './context.ts';
import type { Action, ServiceState } from './fleet_state.ts';

export function routeOf(ctx: Context, state: ServiceState, actions: readonly Action[]): ServiceRoute {
  const { spec } = ctx;
  const leaving = new Set(actions.flatMap((a) => (a.kind === 'stop' || a.kind === 'sleep' ? [a.replica] : [])));
  const endpoints = new Map<string, Endpoint[]>();
  for (const { id, revision, url, phase, inFlight } of ctx.observed.replicas) {
    const isLeaving = leaving.has(id) || phase === 'draining' || (phase === 'asleep' && inFlight > 0);
    const isKnown = phase === 'ready' || phase === 'draining' || (isLeaving && inFlight > 0);
    if (!isKnown) continue;
    const endpoint: Endpoint = { id, url, state: isLeaving ? 'draining' : 'ready' };
    endpoints.set(revision, [...(endpoints.get(revision) ?? []), endpoint]);
  }
  const readyOf = (id: string) => (endpoints.get(id) ?? []).filter((endpoint) => endpoint.state === 'ready').length;
  const percents = spec.stopped ? new Map<string, number>() : sharesOf(ctx, state, readyOf);
  const tags = tagsOf(ctx, state);
  const named = [...state.revisions.map(({ id }) => id), ...endpoints.keys()];
  const revisions: RevisionRoute[] = [...new Set(named)]
    .filter((id) => endpoints.has(id) || percents.has(id))
    .map((id) => ({
      id,
      percent: percents.get(id) ?? 0,
      tags: tags.get(id) ?? [],
      endpoints: endpoints.get(id) ?? [],
    }));
  const isDead = state.rollout.phase === 'failed' && !revisions.some(({ id }) => readyOf(id) > 0);
  return { id: spec.id, models: spec.models, revisions, traffic: spec.traffic, holds: !spec.stopped && !isDead };
}

/**
 * Percents of all revisions, whole numbers that add up to 100. Only revisions with a ready endpoint get any; when none has one, the
 * stable revision has them all, for the requests that wait. A canary at 0 gets nothing even when it is the only one ready.
 */
function sharesOf(ctx: Context, state: ServiceState, readyOf: (id: string) => number): Map<string, number> {
  const canaries = canariesOf(ctx, state).filter(({ isReady, revision }) => isReady && readyOf(revision.id) > 0);
  const weights = new Map<string, number>();
  let rest = 100;
  for (const { spec, revision } of canaries) {
    const percent = Math.min(rest, spec.percent);
    rest -= percent;
    if (percent > 0) weights.set(revision.id, percent);
  }
  const track = trackWeights(ctx, state, readyOf);
  const sum = [...track.values()].reduce((total, weight) => total + weight, 0);
  for (const [id, weight] of track) weights.set(id, (weight / sum) * rest);
  const positive = [...weights].filter(([, weight]) => weight > 0);
  const holder = state.registers.latestRolledOut ?? state.rollout.target;
  if (positive.length === 0) return new Map(holder === null ? [] : [[holder, 100]]);
  return round(positive);
}

/** Weights of the stable revision, the target and what else is on its way out; without those that have no ready endpoint. */
function trackWeights(ctx: Context, state: ServiceState, readyOf: (id: string) => number): Map<string, number> {
  const { rollout, registers } = state;
  const { target } = rollout;
  const stable = registers.latestRolledOut;
  const ready = trackOf(ctx, state).filter((id) => readyOf(id) > 0);
  const fit = ready.filter((id) => !isCondemned(state, id));
  const able = fit.length > 0 ? fit : ready;
  const share = new Map(able.map((id) => [id, readyOf(id)]));
  if (target === null || stable === null) return share;
  const isSwitch = ctx.spec.rollout.strategy === 'blueGreen' && !rollout.inPlace;
  if (isSwitch && able.includes(stable)) return new Map([[stable, 1]]);
  const percent = targetPercent(ctx, state);
  if (percent === null || target === stable) return share;
  const isAlone = !able.includes(stable);
  if (isAlone) return new Map(able.filter((id) => id !== target || percent > 0).map((id) => [id, readyOf(id)]));
  const want = targetReplicas(ctx, state);
  const own = able.includes(target) ? Math.round(percent * Math.min(1, ctx.tallyOf(target).available / want)) : 0;
  return new Map([[stable, 100 - own], ...(own > 0 ? [[target, own] as const] : [])]);
}

/** Largest remainders. */
function round(weights: readonly (readonly [string, number])[]): Map<string, number> {
  const sum = weights.reduce((total, [, weight]) => total + weight, 0);
  const exact = weights.map(([id, weight]) => ({ id, value: (weight / sum) * 100 }));
  const percents = new Map(exact.map(({ id, value }) => [id, Math.floor(value + 1e-9)]));
  let left = 100 - [...percents.values()].reduce((total, percent) => total + percent, 0);
  const byRemainder = exact.map((e) => ({ ...e, remainder: e.value - (percents.get(e.id) as number) }));
  byRemainder.sort((a, b) => b.remainder - a.remainder);
  for (const { id } of byRemainder) if (left-- > 0) percents.set(id, (percents.get(id) as number) + 1);
  return percents;
}

/** `latest` and `prev` as in Knative, each on one revision; and the canary's name where its revision has another. */
function tagsOf(ctx: Context, state: ServiceState): Map<string, string[]> {
  const { latestCreated, latestRolledOut, previousRolledOut } = state.registers;
  const tags = new Map<string, string[]>();
  const tag = (id: string | null, name: string) => {
    if (id !== null && revisionOf(state, id) !== null) tags.set(id, [...(tags.get(id) ?? []), name]);
  };
  tag(latestCreated, 'latest');
  tag(latestRolledOut === latestCreated ? previousRolledOut : latestRolledOut, 'prev');
  for (const { spec, revision } of canariesOf(ctx, state)) if (revision.id !== spec.name) tag(revision.id, spec.name);
  return tags;
}
