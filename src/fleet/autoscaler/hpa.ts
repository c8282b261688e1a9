/**
 * The HorizontalPodAutoscaler of Kubernetes (autoscaling/v2, read at 1.36.3) for external and resource metrics: one evaluation as
 * a function of what is seen and what is remembered. Replayed for external metrics against histories of the real controller,
 * field by field (hpa.test.ts). Resource metrics know ready pods and others, not which pods lack a measurement; Pods and Object
 * metrics and the alpha gate HPAScaleToZero are not covered.
 */
import { type ScalingBehavior, scaleDownLimit, scaleUpLimit, tolerances } from './hpa_behavior.ts';
import { type HpaMemory, initialMemory, rescaled, stabilized, stabilizedWithBehavior } from './hpa_memory.ts';
import { type HpaMetric, type MetricOutcome, metricReplicas } from './hpa_metric.ts';

export interface HpaPolicy {
  /** From 1, or 0 for what an admission check would have refused. */
  readonly minReplicas: number;
  readonly maxReplicas: number;
  readonly metrics: readonly HpaMetric[];
  /** With all defaults filled in (`defaultBehavior`); null when the object has none: then the rules before autoscaling/v2. */
  readonly behavior: ScalingBehavior | null;
}

export interface HpaObserved {
  /** `scale.spec.replicas` */
  readonly replicas: number;
  /** `scale.status.replicas`, which lags. */
  readonly statusReplicas: number;
  readonly pods: number;
  readonly readyPods: number;
  /** Of each metric, in thousandths; null = the query failed. */
  readonly samples: readonly (readonly number[] | null)[];
}

export interface HpaDecision {
  readonly replicas: number;
  /** The scale is to be written; it is what it should be otherwise. */
  readonly write: boolean;
  /** Text of the event SuccessfulRescale; '' without one. */
  readonly reason: string;
  /** Some metric failed, whether or not others sufficed. */
  readonly failed: boolean;
  readonly memory: HpaMemory;
  readonly trace: HpaTrace;
}

/** How the decision came about; null = that step did not run. */
export interface HpaTrace {
  readonly proposals: readonly (number | null)[] | null;
  readonly metric: number | null;
  readonly stabilized: number | null;
  /** What the rate limit allows, before it is held against the current count and the bounds. */
  readonly limit: number | null;
}

/** Without `behavior` a recommendation to have more counts this long, ms. */
const DOWNSCALE_WINDOW_MS = 300_000;

const NO_TRACE: HpaTrace = { proposals: null, metric: null, stabilized: null, limit: null };

/** One evaluation at time `now`, ms. `memory` is null the first time. */
export function decideHpa(
  policy: HpaPolicy,
  observed: HpaObserved,
  memory: HpaMemory | null,
  now: number,
): HpaDecision {
  const before = withCondition(memory ?? initialMemory(observed.replicas, now), 'able', 'SucceededGetScale');
  const { replicas } = observed;
  if (replicas === 0) {
    return keep(withCondition(before, 'active', '-ScalingDisabled'), replicas, false, NO_TRACE);
  }
  const within = bounded(replicas, policy.minReplicas, policy.maxReplicas);
  if (within.beyond !== null) {
    const side = within.beyond === 'most' ? 'above Spec.MaxReplicas' : 'below Spec.MinReplicas';
    const reason = `Current number of replicas ${side}`;
    return change(policy, before, observed, now, {
      replicas: within.replicas,
      reason,
      failed: false,
      trace: NO_TRACE,
    });
  }
  return followMetrics(policy, observed, before, now);
}

function followMetrics(policy: HpaPolicy, observed: HpaObserved, before: HpaMemory, now: number): HpaDecision {
  const tolerance = tolerances(policy.behavior);
  const proposals = policy.metrics.map((metric, at) =>
    metricReplicas(metric, observed.samples[at] ?? null, observed, tolerance),
  );
  const { most, from } = highest(proposals);
  const failures = proposals.filter((outcome) => outcome === null).length;
  if (failures >= proposals.length || (failures > 0 && most < observed.replicas)) {
    const trace = { ...NO_TRACE, proposals };
    return keep(withCondition(before, 'active', '-FailedGetExternalMetric'), observed.replicas, true, trace);
  }
  const active = withCondition(before, 'active', 'ValidMetricFound');
  // The controller starts from 0 and takes what is higher.
  const wanted = Math.max(0, most);
  const name = most > 0 ? (policy.metrics[from]?.name ?? '') : '';
  const reason =
    wanted > observed.replicas ? `${name} above target` : wanted < observed.replicas ? 'All metrics below target' : '';
  const normal = policy.behavior
    ? normalizeWithBehavior(policy, policy.behavior, active, observed.replicas, wanted, now)
    : normalize(policy, active, observed.replicas, wanted, now);
  const trace = { proposals, metric: most, stabilized: normal.stabilized, limit: normal.limit };
  return change(policy, normal.memory, observed, now, {
    replicas: normal.replicas,
    reason,
    failed: failures > 0,
    trace,
  });
}

/** The first of the highest; a 0 gives way to any later proposal, as in the controller. */
function highest(outcomes: readonly MetricOutcome[]): { most: number; from: number } {
  let [most, from] = [0, -1];
  for (const [at, outcome] of outcomes.entries()) {
    if (outcome !== null && (most === 0 || outcome > most)) [most, from] = [outcome, at];
  }
  return { most, from };
}

interface Normalized {
  readonly replicas: number;
  readonly stabilized: number;
  readonly limit: number | null;
  readonly memory: HpaMemory;
}

function normalize(policy: HpaPolicy, memory: HpaMemory, current: number, wanted: number, now: number): Normalized {
  const stable = stabilized(memory, wanted, now, DOWNSCALE_WINDOW_MS);
  const limit = Math.max(2 * current, 4);
  const { replicas, beyond } = bounded(stable.replicas, policy.minReplicas, Math.min(policy.maxReplicas, limit));
  const above = policy.maxReplicas > limit ? 'ScaleUpLimit' : 'TooManyReplicas';
  const why = beyond === 'least' ? 'TooFewReplicas' : beyond === 'most' ? above : '-DesiredWithinRange';
  const able = stable.replicas === wanted ? 'ReadyForNewScale' : 'ScaleDownStabilized';
  return {
    replicas,
    stabilized: stable.replicas,
    limit,
    memory: withCondition(withCondition(stable.memory, 'able', able), 'limited', why),
  };
}

/** Held between two bounds, and which one it was beyond. */
function bounded(
  count: number,
  least: number,
  most: number,
): { readonly replicas: number; readonly beyond: 'least' | 'most' | null } {
  if (count < least) return { replicas: least, beyond: 'least' };
  return count > most ? { replicas: most, beyond: 'most' } : { replicas: count, beyond: null };
}

function normalizeWithBehavior(
  policy: HpaPolicy,
  behavior: ScalingBehavior,
  memory: HpaMemory,
  current: number,
  wanted: number,
  now: number,
): Normalized {
  const stable = stabilizedWithBehavior(memory, behavior, current, wanted, now);
  const held = wanted >= current ? 'ScaleUpStabilized' : 'ScaleDownStabilized';
  const able = stable.replicas === wanted ? 'ReadyForNewScale' : held;
  const { replicas, limit, why } = limited(policy, behavior, stable.memory, current, stable.replicas, now);
  return {
    replicas,
    stabilized: stable.replicas,
    limit,
    memory: withCondition(withCondition(stable.memory, 'able', able), 'limited', why),
  };
}

function limited(
  policy: HpaPolicy,
  behavior: ScalingBehavior,
  memory: HpaMemory,
  current: number,
  wanted: number,
  now: number,
): { replicas: number; limit: number | null; why: string } {
  const within = { replicas: wanted, why: '-DesiredWithinRange' };
  if (wanted > current) {
    const limit = scaleUpLimit(behavior.scaleUp, memory, current, now);
    const allowed = Math.min(policy.maxReplicas, Math.max(limit, current));
    if (wanted <= allowed) return { ...within, limit };
    return { replicas: allowed, limit, why: allowed < policy.maxReplicas ? 'ScaleUpLimit' : 'TooManyReplicas' };
  }
  if (wanted < current) {
    const limit = scaleDownLimit(behavior.scaleDown, memory, current, now);
    const allowed = Math.max(policy.minReplicas, Math.min(limit, current));
    if (wanted >= allowed) return { ...within, limit };
    return { replicas: allowed, limit, why: allowed > policy.minReplicas ? 'ScaleDownLimit' : 'TooFewReplicas' };
  }
  return { ...within, limit: null };
}

function withCondition(memory: HpaMemory, condition: keyof HpaMemory['conditions'], reason: string): HpaMemory {
  return { ...memory, conditions: { ...memory.conditions, [condition]: reason } };
}

function keep(memory: HpaMemory, replicas: number, failed: boolean, trace: HpaTrace): HpaDecision {
  return { replicas, write: false, reason: '', failed, memory, trace };
}

/** Writes what differs and remembers how much that changed. */
function change(
  policy: HpaPolicy,
  memory: HpaMemory,
  observed: HpaObserved,
  now: number,
  wanted: Pick<HpaDecision, 'replicas' | 'reason' | 'failed' | 'trace'>,
): HpaDecision {
  if (wanted.replicas === observed.replicas) return keep(memory, observed.replicas, wanted.failed, wanted.trace);
  const able = withCondition(memory, 'able', 'SucceededRescale');
  return {
    ...wanted,
    write: true,
    memory: policy.behavior ? rescaled(able, policy.behavior, observed.replicas, wanted.replicas, now) : able,
  };
}
