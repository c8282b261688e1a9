/** A HorizontalPodAutoscaler of its own (`autoscalerClass: hpa`): evaluated every 15 s over the fleet's queries. */
import type { ScalingSpec, SignalTarget } from '../spec/fleet_spec.ts';
import { decideHpa, type HpaPolicy } from './hpa.ts';
import { defaultBehavior } from './hpa_behavior.ts';
import type { HpaMemory } from './hpa_memory.ts';
import type { HpaMetric } from './hpa_metric.ts';
import { toMilli } from './milli.ts';
import type { ScaleObserved } from './scale_decision.ts';
import { HPA_PERIOD_MS, hpaReason, isDue, queryName, type RuleStep } from './scale_step.ts';

type HpaRule = Extract<ScalingSpec['rule'], { kind: 'hpa' }>;

export interface HpaRuleMemory {
  readonly hpa: HpaMemory | null;
  readonly nextAt: number;
  readonly reason: string;
}

/** It cannot be switched on from 0, so it never goes there. */
export function hpaLeast({ minReplicas }: ScalingSpec): number {
  return Math.max(1, minReplicas);
}

export function stepHpa(
  spec: ScalingSpec,
  rule: HpaRule,
  observed: ScaleObserved,
  memory: HpaRuleMemory | null,
  now: number,
): RuleStep<HpaRuleMemory> {
  if (memory !== null && !isDue(memory.nextAt, HPA_PERIOD_MS, now)) {
    return { replicas: observed.replicas, reason: memory.reason, memory, nextAt: memory.nextAt };
  }
  const policy: HpaPolicy = {
    minReplicas: hpaLeast(spec),
    maxReplicas: spec.maxReplicas,
    metrics: rule.metrics.map(metricOf),
    behavior: rule.behavior === null ? null : defaultBehavior(rule.behavior),
  };
  const samples = rule.metrics.map((_, at) => sampleOf(observed.values[at] ?? null));
  const { replicas } = observed;
  const counts = { replicas, statusReplicas: replicas, pods: replicas, readyPods: observed.readyReplicas };
  const decision = decideHpa(policy, { ...counts, samples }, memory?.hpa ?? null, now);
  const nextAt = now + HPA_PERIOD_MS;
  const reason = hpaReason(policy.metrics, samples, replicas, decision);
  return { replicas: decision.replicas, reason, memory: { hpa: decision.memory, nextAt, reason }, nextAt };
}

function metricOf({ query, metricType, target }: SignalTarget): HpaMetric {
  const type = query.kind === 'resource' || metricType === 'Utilization' ? 'Resource' : metricType;
  return { name: queryName(query), type, target: toMilli(target) };
}

/** What is not a number is not known: it never counts as 0. */
export function sampleOf(value: number | null): readonly number[] | null {
  return value === null || !Number.isFinite(value) ? null : [toMilli(value)];
}
