/** One trigger's answer, or the fallback for it (KEDA 2.21, pkg/fallback), and the formula over all (pkg/scaling/modifiers). */
import { evaluateFormula } from './formula.ts';
import type { FallbackPolicy, KedaPolicy, KedaTrigger, ModifiersPolicy } from './keda_policy.ts';
import { type Copied, type KedaStatus, type MetricOutcome, withHealth } from './keda_status.ts';
import { fromMilli, toMilli, truncatedMilli } from './milli.ts';

export interface TargetCounts {
  readonly replicas: number;
  readonly readyPods: number;
}

/** What a trigger said; value null = it failed. */
export function asked(trigger: KedaTrigger, value: number | null, isActive?: boolean): MetricOutcome {
  const active = value !== null && (isActive ?? value > trigger.activationThreshold);
  return { value: value === null ? null : toMilli(value), active, fallback: false };
}

/** Stands for no value, thousandths. The failure count tells a formula so; once that is forgotten KEDA takes it for a value. */
const PLACEHOLDER = -1000;

export interface FallbackStep extends Copied {
  readonly outcome: MetricOutcome;
}

/** Counts a failure or forgets them, and replaces what failed too often. */
export function withFallback(
  policy: KedaPolicy,
  trigger: KedaTrigger,
  raw: MetricOutcome,
  counts: TargetCounts,
  status: Copied,
): FallbackStep {
  const { fallback, modifiers } = policy;
  if (fallback === null || modifiers?.allowsFallback === false) return { ...status, outcome: raw };
  const { metric } = trigger;
  const { failureThreshold } = fallback;
  if (raw.value !== null) {
    const outcome = { ...raw, fallback: false };
    return { ...withHealth(status, metric, { failures: 0, status: 'Happy' }, failureThreshold), outcome };
  }
  const failures = (status.copy.health[metric]?.failures ?? 0) + 1;
  const after = withHealth(status, metric, { failures, status: 'Failing' }, failureThreshold);
  if (failures <= failureThreshold) return { ...after, outcome: raw };
  if (fallback.behavior === 'scalingModifiers') {
    return { ...after, outcome: { value: PLACEHOLDER, active: raw.active, fallback: false } };
  }
  const value = fallbackValue(fallback, modifiers, trigger, counts);
  return { ...after, outcome: { value, active: raw.active || value !== null, fallback: value !== null } };
}

/** Thousandths; null = there is none, because Value is of ready pods and there are none. */
function fallbackValue(
  fallback: FallbackPolicy,
  modifiers: ModifiersPolicy | null,
  trigger: KedaTrigger,
  { replicas, readyPods }: TargetCounts,
): number | null {
  const wanted = fallbackReplicas(fallback, replicas);
  const isValue = (modifiers ?? trigger).metricType === 'Value';
  if (isValue && readyPods === 0) return null;
  const target = modifiers ? modifiers.target : fromMilli(trigger.target);
  return truncatedMilli(target * 1000 * (isValue ? wanted / readyPods : wanted));
}

function fallbackReplicas({ behavior, replicas }: FallbackPolicy, current: number): number {
  switch (behavior) {
    case 'currentReplicas':
      return current;
    case 'currentReplicasIfHigher':
      return Math.max(current, replicas);
    case 'currentReplicasIfLower':
      return Math.min(current, replicas);
    default:
      return replicas;
  }
}

/**
 * The composite metric, thousandths; null = the formula failed. A fallback takes the place of the formula.
 * `status` is the copy that counted the failures.
 */
export function composite(
  policy: KedaPolicy,
  modifiers: ModifiersPolicy,
  outcomes: ReadonlyMap<KedaTrigger, MetricOutcome>,
  status: KedaStatus,
): number | null {
  const values = new Map<string, number>();
  for (const [trigger, { value, fallback }] of outcomes) {
    if (fallback) return value;
    if (value !== null && !isNil(policy, trigger, status)) values.set(trigger.name, fromMilli(value));
  }
  const result = evaluateFormula(modifiers.formula, values);
  if ('failed' in result) return null;
  if (result.value !== null) return truncatedMilli(result.value * 1000);
  return policy.fallback ? truncatedMilli(policy.fallback.replicas * modifiers.target * 1000) : null;
}

/** With the behavior `scalingModifiers` a metric that failed too often has no value. */
function isNil({ fallback }: KedaPolicy, { metric }: KedaTrigger, { health }: KedaStatus): boolean {
  if (fallback?.behavior !== 'scalingModifiers') return false;
  return (health[metric]?.failures ?? 0) > fallback.failureThreshold;
}
