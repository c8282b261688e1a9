/** Templates become revisions: by content, in a ring, failed ones remembered. Pure. */
import { createHash } from 'node:crypto';
import { type Context, canaryRevision, revisionOf } from '../control/context.ts';
import type { RevisionState, RolloutState, ServiceState } from '../control/fleet_state.ts';
import type { ReplicaTemplate } from '../spec/fleet_spec.ts';
import { NO_REGISTERS, nextRegisters } from './registers.ts';

/** SHA-256 in hex of the template with its keys in order. */
export function hashOf(template: ReplicaTemplate): string {
  return createHash('sha256').update(canonical(template)).digest('hex');
}

function canonical(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join(',')}]`;
  if (value === null || typeof value !== 'object') return JSON.stringify(value);
  const entries = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  return `{${entries.map(([key, entry]) => `${JSON.stringify(key)}:${canonical(entry)}`).join(',')}}`;
}

export function initialState(id: string, now: number): ServiceState {
  return {
    id,
    revisions: [],
    registers: NO_REGISTERS,
    rollout: freshRollout(null, 'idle', now),
    scaling: null,
    replicasWanted: null,
    replicasPinned: null,
    nextRevision: 1,
    blocked: null,
  };
}

export function freshRollout(target: string | null, phase: RolloutState['phase'], now: number): RolloutState {
  return { phase, target, inPlace: false, step: 0, stepAt: now, progressAt: now, analysis: null, reason: '' };
}

/** Revisions for the templates of `ctx.spec`, and a rollout to the stable one when it is another than before. */
export function reviseTemplates(ctx: Context, before: ServiceState): ServiceState {
  let state = reviseStable(ctx, before);
  for (const { name, template } of ctx.spec.canaries) {
    const hash = hashOf(template);
    if (canaryRevision(state, name)?.hash === hash) continue;
    state = addRevision(ctx, state, name, hash, template);
  }
  return trim(ctx, state);
}

function reviseStable(ctx: Context, before: ServiceState): ServiceState {
  const { template, canaryTrafficPercent } = ctx.spec;
  const hash = hashOf(template);
  if (revisionOf(before, before.registers.latestCreated)?.hash === hash) return before;
  // Knative makes a new revision of each change; elsewhere a template that comes back is the one it was, and a canary whose entry is
  // gone and whose template is the stable one now is promoted as it runs.
  const listed = new Set(ctx.spec.canaries.map(({ name }) => canaryRevision(before, name)?.id));
  const known =
    canaryTrafficPercent === null
      ? before.revisions.findLast((revision) => revision.hash === hash && !listed.has(revision.id))
      : undefined;
  const state = known === undefined ? addRevision(ctx, before, null, hash, template) : revive(ctx, before, known);
  const target = known?.id ?? (state.revisions.at(-1) as RevisionState).id;
  const { latestRolledOut } = state.registers;
  const phase =
    before.rollout.phase === 'paused' ? 'paused' : target === latestRolledOut ? 'rollingBack' : 'progressing';
  return {
    ...state,
    registers: nextRegisters(state.registers, { kind: 'created', revision: target }),
    rollout: freshRollout(target, phase, ctx.now),
  };
}

function addRevision(
  ctx: Context,
  state: ServiceState,
  canary: string | null,
  hash: string,
  template: ReplicaTemplate,
): ServiceState {
  const isTaken = (id: string) => revisionOf(state, id) !== null;
  const prefix = canary ?? (ctx.spec.id.split('/').at(-1) as string);
  let number = state.nextRevision;
  const numbered = () => `${prefix}-${String(number).padStart(5, '0')}`;
  // Ends: the ring is finite.
  while (isTaken(numbered())) number++;
  const isNamed = canary !== null && !isTaken(canary);
  const id = isNamed ? canary : numbered();
  ctx.log('RevisionCreated', canary === null || isNamed ? id : `${id} for canary ${canary}`);
  return {
    ...state,
    revisions: [...state.revisions, { id, canary, hash, template, createdAt: ctx.now, failed: null }],
    nextRevision: isNamed ? number : number + 1,
  };
}

/** The template was asked for again: what failed may try again. */
function revive(ctx: Context, state: ServiceState, { id, canary }: RevisionState): ServiceState {
  if (canary === null) ctx.log('RevisionReused', `${id} has this template`);
  else ctx.log('CanaryPromoted', `${id} is the stable revision, its replicas run on`);
  return withFailed(state, id, null);
}

export function withFailed(state: ServiceState, id: string, failed: string | null): ServiceState {
  return { ...state, revisions: state.revisions.map((r) => (r.id === id ? { ...r, failed } : r)) };
}

/** Keeps what something points to, and of the others the newest `revisionHistoryLimit`. */
function trim(ctx: Context, state: ServiceState): ServiceState {
  const kept = new Set([...Object.values(state.registers), state.rollout.target]);
  for (const { name } of ctx.spec.canaries) kept.add(canaryRevision(state, name)?.id ?? null);
  for (const { revision } of ctx.observed.replicas) kept.add(revision);
  const others = state.revisions.filter(({ id }) => !kept.has(id));
  const dropped = new Set(others.slice(0, Math.max(0, others.length - ctx.spec.rollout.revisionHistoryLimit)));
  return dropped.size === 0 ? state : { ...state, revisions: state.revisions.filter((r) => !dropped.has(r)) };
}
