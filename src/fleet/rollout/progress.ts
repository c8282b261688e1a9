/** How a rollout goes on: what became ready, what failed, which step comes next, when it is done or over. Pure. */
import {
  type Context,
  canariesOf,
  isCondemned,
  isFull,
  isSplit,
  revisionOf,
  type Tally,
  trackOf,
  trackScale,
} from '../control/context.ts';
import type { RolloutState, ServiceState } from '../control/fleet_state.ts';
import { type AnalysisMemory, analyse } from './analysis.ts';
import { nextRegisters } from './registers.ts';
import { withFailed } from './revisions.ts';
import { cannotShare, KEEP_OLD_MS, targetReplicas } from './strategy.ts';

/** Restarts of a replica that was never ready, after which its revision gets no more. By the back-off: 150 s and five starts. */
export const MAX_FAILED_STARTS = 5;

/** Begins what the deadline says. */
export const NO_PROGRESS = 'made no progress';

/** One look. The registers and the rollout of the answer are what the plan of this tick is made from. */
export function advanceRollout(ctx: Context, before: ServiceState): ServiceState {
  let state = noteReady(ctx, before);
  state = noteFailedStarts(ctx, state);
  state = judgeRevisions(ctx, state);
  const { rollout, registers } = state;
  if (rollout.target === null) return state;
  if (ctx.scale === 0 || rollout.phase === 'paused')
    state = withRollout(state, { progressAt: ctx.now, stepAt: ctx.now });
  if (registers.latestRolledOut === null || rollout.target === registers.latestRolledOut) return settle(ctx, state);
  return rollout.phase === 'paused' || ctx.scale === 0 ? state : step(ctx, state);
}

export function withRollout(state: ServiceState, change: Partial<RolloutState>): ServiceState {
  return { ...state, rollout: { ...state.rollout, ...change } };
}

/** The target is the stable revision from now on. */
function served(ctx: Context, state: ServiceState, change: Partial<RolloutState>): ServiceState {
  const revision = state.rollout.target as string;
  const isBack = state.rollout.phase === 'rollingBack';
  ctx.log(isBack ? 'RolledBack' : 'RolledOut', isBack ? `to ${revision}; ${state.rollout.reason}` : revision);
  const registers = nextRegisters(state.registers, { kind: 'served', revision });
  return { ...withRollout(state, { analysis: null, ...change }), registers };
}

function noteReady(ctx: Context, before: ServiceState): ServiceState {
  let state = before;
  const { target } = state.rollout;
  const { latestCreated, latestReady } = state.registers;
  if (target !== null && target === latestCreated && latestReady !== target && ctx.tallyOf(target).available > 0) {
    ctx.log('RevisionReady', target);
    state = { ...state, registers: nextRegisters(state.registers, { kind: 'ready', revision: target }) };
    // Nothing served before it: it gets all requests, whatever the strategy.
    if (state.registers.latestRolledOut === null) state = served(ctx, state, {});
  }
  const { previousRolledOut, latestRolledOut } = state.registers;
  if (previousRolledOut === null || revisionOf(state, previousRolledOut)?.failed !== null) return state;
  const percent = state.rollout.phase === 'rollingBack' ? null : ctx.spec.canaryTrafficPercent;
  const registers = nextRegisters(state.registers, { kind: 'percent', percent });
  if (registers === state.registers) return state;
  ctx.log(
    'RolledBack',
    `canaryTrafficPercent is ${percent}: ${previousRolledOut} is the stable revision again, ${latestRolledOut} gets ${percent}%`,
  );
  return { ...withRollout(state, { phase: 'progressing', progressAt: ctx.now }), registers };
}

/** Never ready, and restarted too often. */
function failedStarts(ctx: Context, state: ServiceState, id: string): number {
  const { latestReady, latestRolledOut, previousRolledOut } = state.registers;
  if ([latestReady, latestRolledOut, previousRolledOut].includes(id)) return 0;
  const { live } = ctx.tallyOf(id);
  if (live.some(({ readyAt }) => readyAt !== null)) return 0;
  const most = live.reduce((restarts, replica) => Math.max(restarts, replica.restarts), 0);
  return most >= MAX_FAILED_STARTS ? most : 0;
}

function noteFailedStarts(ctx: Context, before: ServiceState): ServiceState {
  let state = before;
  for (const { revision } of canariesOf(ctx, state)) {
    const failures = failedStarts(ctx, state, revision.id);
    if (failures === 0 || revision.failed !== null) continue;
    ctx.log('RevisionFailed', `${revision.id}: ended ${failures} times before it was ready`);
    state = withFailed(state, revision.id, `ended ${failures} times before it was ready`);
  }
  const { target, phase } = state.rollout;
  const failures = target === null ? 0 : failedStarts(ctx, state, target);
  if (target === null || failures === 0) return state;
  const reason = `ended ${failures} times before it was ready`;
  if (state.registers.latestRolledOut !== null) return rollBack(ctx, state, reason);
  if (phase === 'failed') return state;
  ctx.log('RevisionFailed', `${target}: ${reason}`);
  return withRollout(state, { phase: 'failed', reason: `${target}: ${reason}` });
}

/** The target is given up; the stable revision gets everything. */
function rollBack(ctx: Context, state: ServiceState, reason: string): ServiceState {
  const { target } = state.rollout;
  const stable = state.registers.latestRolledOut as string;
  if (target === null || target === stable) return state;
  ctx.log('RollingBack', `to ${stable}; ${target}: ${reason}`);
  const failed = withFailed(state, target, reason);
  const { now } = ctx;
  return withRollout(failed, {
    target: stable,
    phase: 'rollingBack',
    stepAt: now,
    progressAt: now,
    analysis: null,
    reason: `${target}: ${reason}`,
  });
}

function judgeRevisions(ctx: Context, before: ServiceState): ServiceState {
  const { analysis } = ctx.spec.rollout;
  const stable = before.registers.latestRolledOut;
  const { target, phase } = before.rollout;
  if (analysis === null || stable === null || ctx.tallyOf(stable).ready === 0) return before;
  const isJudged = target !== null && target !== stable && ['progressing', 'paused', 'failed'].includes(phase);
  const candidates = canariesOf(ctx, before)
    .filter(({ isReady }) => isReady)
    .map(({ revision }) => revision.id);
  if (isJudged && ctx.tallyOf(target).ready > 0) candidates.push(target);
  const memories = analysesOf(before);
  let state = before;
  const kept: Record<string, AnalysisMemory> = {};
  const stats = (id: string) =>
    Object.hasOwn(ctx.observed.revisions, id) ? (ctx.observed.revisions[id] ?? null) : null;
  for (const id of candidates) {
    const memory = memories[id] ?? null;
    const next = analyse(analysis, memory, stable, { canary: stats(id), stable: stats(stable) });
    kept[id] = next;
    if (next.verdict !== (memory?.verdict ?? 'running') && next.verdict !== 'running')
      state = actOnVerdict(ctx, state, id, next);
  }
  // A rollback has dropped them all.
  if (state.rollout.target !== target) return state;
  return withRollout(state, { analysis: candidates.length === 0 ? null : kept });
}

export function analysesOf({ rollout }: ServiceState): Readonly<Record<string, AnalysisMemory>> {
  return (rollout.analysis ?? {}) as Readonly<Record<string, AnalysisMemory>>;
}

function actOnVerdict(
  ctx: Context,
  state: ServiceState,
  id: string,
  { verdict, reason }: AnalysisMemory,
): ServiceState {
  ctx.log(verdict === 'bad' ? 'AnalysisFailed' : 'AnalysisPassed', `${id}: ${reason}`);
  if (verdict !== 'bad') return state;
  const isTarget = id === state.rollout.target;
  if (ctx.spec.rollout.analysis?.rollback !== true)
    return isTarget ? withRollout(state, { phase: 'paused', reason: `analysis failed: ${reason}` }) : state;
  return isTarget ? rollBack(ctx, state, reason) : withFailed(state, id, reason);
}

function countOthers(ctx: Context, state: ServiceState): number {
  const others = trackOf(ctx, state).filter((id) => id !== state.rollout.target);
  return others.reduce((sum, id) => sum + ctx.tallyOf(id).count, 0);
}

/** Target and stable revision are one (or there is no stable one yet): until it is all there, and nothing else. */
function settle(ctx: Context, state: ServiceState): ServiceState {
  const { phase, reason, stepAt } = state.rollout;
  if (phase === 'idle' || phase === 'paused') return state;
  const isKept = phase === 'promoting' && ctx.spec.rollout.strategy === 'blueGreen' && ctx.now < stepAt + KEEP_OLD_MS;
  if (isKept) return state;
  if (phase === 'promoting') return withRollout(state, { phase: 'idle', inPlace: false, reason: '' });
  const own = ctx.tallyOf(state.rollout.target);
  const isNew = state.registers.latestRolledOut === null;
  const isWhole = countOthers(ctx, state) === 0 && hasAll(ctx, state, own, trackScale(ctx, state));
  if (isWhole && !(isNew && ctx.scale === 0)) {
    if (phase === 'rollingBack')
      ctx.log('RolledBack', reason === '' ? `to ${state.rollout.target}` : `to ${state.rollout.target}; ${reason}`);
    else if (phase === 'failed') ctx.log('Recovered', `${state.rollout.target}`);
    return withRollout(state, { phase: 'idle', inPlace: false, reason: '' });
  }
  return checkDeadline(ctx, noteProgress(ctx, state, own));
}

function step(ctx: Context, before: ServiceState): ServiceState {
  const own = ctx.tallyOf(before.rollout.target);
  let state = noteProgress(ctx, before, own);
  const { strategy } = ctx.spec.rollout;
  const { phase } = state.rollout;
  if (isSplit(ctx, state)) return checkDeadline(ctx, state);
  const isBeforeLast = state.rollout.step < ctx.spec.rollout.steps.length;
  if (strategy === 'canary' && isBeforeLast && (phase === 'progressing' || phase === 'failed')) {
    state = nextStep(ctx, state, own);
    if (state.rollout.phase !== 'promoting') return checkDeadline(ctx, state);
  }
  const scale = trackScale(ctx, state);
  if (strategy === 'blueGreen' && !state.rollout.inPlace) {
    if (own.available >= scale) return served(ctx, state, { phase: 'promoting', stepAt: ctx.now, reason: '' });
  } else if (countOthers(ctx, state) === 0 && hasAll(ctx, state, own, scale))
    return served(ctx, state, { phase: 'idle', inPlace: false, reason: '' });
  return checkDeadline(ctx, state);
}

/** All that are wanted are available, or all that the machine has room for. */
function hasAll(ctx: Context, state: ServiceState, own: Tally, want: number): boolean {
  return own.available >= want || (own.available > 0 && isFull(ctx, state));
}

/** Canary steps: a step counts from when all its replicas are available, for as long as they are. */
function nextStep(ctx: Context, state: ServiceState, own: Tally): ServiceState {
  const { steps, analysis } = ctx.spec.rollout;
  const { step, stepAt, target } = state.rollout;
  const current = steps[step];
  if (current === undefined || current.percent >= 100 || cannotShare(ctx, state)) return promote(ctx, state);
  const isReached = own.available >= targetReplicas(ctx, state);
  if (!isReached && !(state.rollout.inPlace && hasAll(ctx, state, own, Infinity)))
    return withRollout(state, { stepAt: ctx.now });
  if (ctx.now - stepAt < current.pauseMs) return state;
  const next = steps[step + 1];
  if (next !== undefined && next.percent < 100) {
    ctx.log('StepReached', `${target}: ${next.percent}% after ${current.percent}%`);
    return withRollout(state, { step: step + 1, stepAt: ctx.now });
  }
  if (analysis !== null) {
    const memory = analysesOf(state)[target as string] ?? null;
    if (memory?.verdict !== 'good')
      return withRollout(state, { reason: `waits for the analysis: ${memory?.reason ?? 'no requests yet'}` });
    if (!analysis.promote) return withRollout(state, { reason: 'waits to be promoted by hand' });
  }
  return promote(ctx, state);
}

function promote(ctx: Context, state: ServiceState): ServiceState {
  ctx.log('Promoting', `${state.rollout.target} gets all replicas`);
  return withRollout(state, { phase: 'promoting', step: ctx.spec.rollout.steps.length, stepAt: ctx.now, reason: '' });
}

/** What the deadline counts from: the last replica that was made or became ready, or when nothing was missing. */
function noteProgress(ctx: Context, state: ServiceState, own: Tally): ServiceState {
  const isMissing = !hasAll(ctx, state, own, targetReplicas(ctx, state));
  // Old ones may take their grace time to end, and only then is there room.
  const isDraining = ctx.observed.replicas.some(({ phase }) => phase === 'draining') && own.count === own.available;
  const times = own.live.flatMap(({ createdAt, readyAt }) => [createdAt, readyAt ?? createdAt]);
  const progressAt = !isMissing || isDraining ? ctx.now : Math.max(state.rollout.progressAt, ...times);
  const isOver = ctx.now - progressAt > ctx.spec.rollout.progressDeadlineMs;
  if (state.rollout.phase !== 'failed' || isOver || progressAt === state.rollout.progressAt)
    return withRollout(state, { progressAt });
  return withRollout(state, { progressAt, phase: 'progressing', reason: '' });
}

function checkDeadline(ctx: Context, state: ServiceState): ServiceState {
  const { phase, progressAt, target } = state.rollout;
  const { progressDeadlineMs, analysis } = ctx.spec.rollout;
  if (phase === 'failed' || ctx.now - progressAt <= progressDeadlineMs) return state;
  const reason = `${NO_PROGRESS} for ${Math.round(progressDeadlineMs / 1000)} s`;
  ctx.log('ProgressDeadlineExceeded', `${target}: ${reason}`);
  const stable = state.registers.latestRolledOut;
  const isAlone = trackOf(ctx, state).every((id) => ctx.tallyOf(id).available === 0);
  const goesBack = stable !== null && target !== stable && !isCondemned(state, stable) && phase !== 'rollingBack';
  // Kubernetes leaves it there. Where nothing serves any more, or a judge was asked for, the stable revision comes back.
  if (goesBack && (isAlone || analysis?.rollback === true)) return rollBack(ctx, state, reason);
  return withRollout(state, { phase: 'failed', reason: `${target}: ${reason}` });
}
