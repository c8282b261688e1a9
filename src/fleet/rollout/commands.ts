/** What a person asks of a rollout. Pure; each command does what it does once, however often it comes. */
import { TokenmillError } from '../../base/errors.ts';
import { isSplit, makeContext, revisionOf, UNDONE } from '../control/context.ts';
import type { FleetEvent, ServiceCommand, ServiceState } from '../control/fleet_state.ts';
import type { ServiceSpec } from '../spec/fleet_spec.ts';
import { withRollout } from './progress.ts';
import { freshRollout, withFailed } from './revisions.ts';

/** More replicas than any machine has room for; a slip of the finger. */
const MAX_PINNED = 1000;

export interface CommandResult {
  readonly state: ServiceState;
  readonly events: readonly FleetEvent[];
}

/**
 * The state with `command` applied; the next decision carries it out.
 * Errors: invalid_request when there is nothing to go back to, no such revision, or the field of the object decides instead.
 */
export function applyCommand(
  spec: ServiceSpec,
  state: ServiceState,
  command: ServiceCommand,
  now: number,
): CommandResult {
  const events: FleetEvent[] = [];
  const log = (type: string, text: string) => events.push({ at: now, service: spec.id, type, text });
  return { state: apply(spec, state, command, now, log), events };
}

type Log = (type: string, text: string) => void;

function apply(spec: ServiceSpec, state: ServiceState, command: ServiceCommand, now: number, log: Log): ServiceState {
  const { phase, target } = state.rollout;
  const isRolling = target !== state.registers.latestRolledOut && state.registers.latestRolledOut !== null;
  switch (command.kind) {
    case 'pause':
      if (phase === 'paused' || phase === 'rollingBack') return state;
      log('Paused', 'by hand');
      return withRollout(state, { phase: 'paused', reason: 'paused by hand' });
    case 'resume':
      if (phase !== 'paused') return state;
      log('Resumed', 'by hand');
      return withRollout(state, {
        phase: isRolling || target === null ? 'progressing' : 'idle',
        progressAt: now,
        reason: '',
      });
    case 'promote':
      return promote(spec, state, now, isRolling, log);
    case 'undo':
      return undo(state, command.to, now, isRolling, log);
    case 'scale':
      return pin(state, command.replicas, log);
  }
}

function pin(state: ServiceState, replicas: number | null, log: Log): ServiceState {
  if (replicas !== null && (!Number.isInteger(replicas) || replicas < 0 || replicas > MAX_PINNED)) {
    throw new TokenmillError('invalid_request', `${replicas} is not a number of replicas.`, {
      param: 'replicas',
      value: replicas,
      remedy: `Give an integer from 0 to ${MAX_PINNED}, or none to let the scaling rule decide.`,
    });
  }
  if (replicas === state.replicasPinned) return state;
  log('Pinned', replicas === null ? 'the scaling rule decides again' : `${replicas} replicas`);
  return { ...state, replicasPinned: replicas };
}

function promote(spec: ServiceSpec, state: ServiceState, now: number, isRolling: boolean, log: Log): ServiceState {
  const { phase, target } = state.rollout;
  const observed = { replicas: [], revisions: {}, machine: null };
  if (isSplit(makeContext(spec, state, observed, now, []), state)) {
    throw new TokenmillError('invalid_request', `canaryTrafficPercent splits the requests of ${spec.id}.`, {
      param: 'canaryTrafficPercent',
      remedy: 'Set it to 100 or remove it to promote the new revision.',
    });
  }
  if (!isRolling || phase === 'promoting' || phase === 'rollingBack') return state;
  log('Promoting', `${target} by hand`);
  const step = spec.rollout.steps.length;
  return withRollout(state, {
    phase: 'promoting',
    step,
    stepAt: now,
    progressAt: now,
    analysis: null,
    reason: 'promoted by hand',
  });
}

function undo(state: ServiceState, to: string | null, now: number, isRolling: boolean, log: Log): ServiceState {
  const { target, phase } = state.rollout;
  const { latestCreated, latestRolledOut, previousRolledOut } = state.registers;
  const isUndone = revisionOf(state, latestCreated)?.failed !== null && target !== latestCreated;
  if (to === null && (phase === 'rollingBack' || isUndone)) return state;
  const back = to ?? (isRolling ? latestRolledOut : previousRolledOut);
  const revision = revisionOf(state, back);
  const isCanary =
    revision !== null && revision.canary !== null && ![latestRolledOut, previousRolledOut].includes(back);
  if (back === null || revision === null || isCanary || (to === null && revision.failed !== null)) {
    throw new TokenmillError('invalid_request', `There is no revision ${to ?? 'before this one'} to go back to.`, {
      param: 'to',
      value: to,
      remedy: `Known are: ${state.revisions.map(({ id }) => id).join(', ') || 'none'}.`,
    });
  }
  if (back === target) return state;
  log('Undo', `to ${back} by hand`);
  let next = withFailed(state, back, null);
  for (const id of new Set([target, latestCreated])) {
    if (id !== null && id !== back && revisionOf(next, id)?.failed === null) next = withFailed(next, id, UNDONE);
  }
  // Past the last step: a rollback makes no stops on its way.
  const rollout = { ...freshRollout(back, 'rollingBack', now), step: Number.MAX_SAFE_INTEGER, reason: UNDONE };
  return { ...next, rollout };
}
