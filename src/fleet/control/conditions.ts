/** Conditions as in the status of an InferenceService (and `Progressing` of the Deployment below it). Pure. */
import type { ServiceRoute } from '../gateway/routing_table.ts';
import { NO_PROGRESS } from '../rollout/progress.ts';
import { bounds } from '../rollout/strategy.ts';
import { type Context, canariesOf, isSplit, revisionOf, trackOf, trackScale } from './context.ts';
import type { Condition, ServiceState } from './fleet_state.ts';

type Status = Condition['status'];

export function conditionsOf(ctx: Context, state: ServiceState, route: ServiceRoute): Condition[] {
  const predictor = predictorReady(ctx, state);
  const routes = routesReady(ctx, route);
  const conditions = [predictor, routes, latestDeploymentReady(ctx, state), progressing(ctx, state)];
  if (ctx.spec.canaries.length > 0) conditions.push(canariesReady(ctx, state));
  const { stopped } = ctx.spec;
  conditions.push(condition('Stopped', stopped ? 'True' : 'False', stopped ? 'StoppedByUser' : 'Running', ''));
  const missing = [predictor, routes].find(({ status }) => status !== 'True');
  const ready = missing ?? condition('Ready', 'True', 'Ready', '');
  return [{ ...ready, type: 'Ready' }, ...conditions];
}

function condition(type: string, status: Status, reason: string, message: string): Condition {
  return { type, status, reason, message };
}

function predictorReady(ctx: Context, state: ServiceState): Condition {
  const make = (status: Status, reason: string, message: string) =>
    condition('PredictorReady', status, reason, message);
  if (ctx.spec.stopped) return make('False', 'Stopped', 'the service is stopped');
  const available = trackOf(ctx, state).reduce((sum, id) => sum + ctx.tallyOf(id).available, 0);
  const scale = trackScale(ctx, state);
  if (scale === 0) return make('True', 'ScaledToZero', 'no replicas are wanted');
  const { unavailable } = bounds(ctx.spec.rollout, scale);
  const least = Math.max(1, scale - unavailable);
  const message = `${available} of ${scale} replicas are available`;
  if (available >= least) return make('True', 'MinimumReplicasAvailable', message);
  if (state.blocked !== null) return make('False', 'InsufficientResources', `${message}; short of ${state.blocked}`);
  return make('False', 'MinimumReplicasUnavailable', message);
}

function routesReady(ctx: Context, route: ServiceRoute): Condition {
  const make = (status: Status, reason: string) => condition('RoutesReady', status, reason, '');
  if (ctx.spec.stopped) return make('False', 'Stopped');
  const isServed = route.revisions.some((r) => r.percent > 0 && r.endpoints.some(({ state }) => state === 'ready'));
  if (isServed) return make('True', 'EndpointsReady');
  return ctx.scale === 0 ? make('True', 'HoldsRequests') : make('False', 'NoEndpoints');
}

function latestDeploymentReady(ctx: Context, state: ServiceState): Condition {
  const make = (status: Status, reason: string, message: string) =>
    condition('LatestDeploymentReady', status, reason, message);
  const id = state.registers.latestCreated;
  const revision = revisionOf(state, id);
  if (id === null || revision === null) return make('Unknown', 'NoRevision', '');
  if (revision.failed !== null) return make('False', 'RevisionFailed', `${id}: ${revision.failed}`);
  if (ctx.tallyOf(id).available > 0) return make('True', 'RevisionReady', id);
  if (state.registers.latestReady === id && ctx.scale === 0) return make('True', 'ScaledToZero', id);
  return make(ctx.scale === 0 ? 'Unknown' : 'False', ctx.scale === 0 ? 'ScaledToZero' : 'RevisionNotReady', id);
}

function progressing(ctx: Context, state: ServiceState): Condition {
  const make = (status: Status, reason: string, message: string) => condition('Progressing', status, reason, message);
  const { phase, reason, target, step } = state.rollout;
  const latest = revisionOf(state, state.registers.latestCreated);
  switch (phase) {
    case 'failed':
      return make('False', reason.includes(NO_PROGRESS) ? 'ProgressDeadlineExceeded' : 'RevisionFailed', reason);
    case 'paused':
      return make('Unknown', 'DeploymentPaused', reason);
    case 'rollingBack':
      return make('True', 'RollingBack', `to ${target}${reason === '' ? '' : `; ${reason}`}`);
    case 'idle':
      if (latest !== null && latest.failed !== null)
        return make('False', 'RolledBack', `${latest.id}: ${latest.failed}`);
      return make('True', 'NewRevisionAvailable', target ?? '');
    case 'promoting':
      return make('True', 'ReplicasUpdated', `${target} gets all replicas`);
    case 'progressing': {
      if (isSplit(ctx, state)) return make('True', 'Split', `${target} gets ${ctx.spec.canaryTrafficPercent}%`);
      const current = ctx.spec.rollout.strategy === 'canary' ? ctx.spec.rollout.steps[step] : undefined;
      const at = current === undefined ? '' : ` at ${current.percent}%`;
      return make('True', 'ReplicasUpdated', `${target}${at}${reason === '' ? '' : `: ${reason}`}`);
    }
  }
}

function canariesReady(ctx: Context, state: ServiceState): Condition {
  const canaries = canariesOf(ctx, state);
  const waiting = canaries.filter(({ isReady, want }) => !isReady && want > 0);
  const failed = canaries.filter(({ revision }) => revision.failed !== null);
  const text = failed.map(({ revision }) => `${revision.id}: ${revision.failed}`).join('; ');
  if (failed.length > 0) return condition('CanaryPredictorReady', 'False', 'RevisionFailed', text);
  const names = waiting.map(({ spec }) => spec.name).join(', ');
  return condition(
    'CanaryPredictorReady',
    waiting.length === 0 ? 'True' : 'False',
    waiting.length === 0 ? 'Ready' : 'NotReady',
    names,
  );
}
