/**
 * KEDA and the HorizontalPodAutoscaler it makes, side by side as on a cluster: KEDA's poll moves the count between 0 (or idle)
 * and its minimum, the HPA asks KEDA's metrics service every 15 s and does the rest. One thing is ours: a request held by the
 * gateway while there is no replica counts as activity at once, as with the interceptor of KEDA's HTTP add-on, and does not wait
 * for the next poll.
 */
import type { ScalingSpec, TriggerQuery } from '../spec/fleet_spec.ts';
import { cronAnswer } from './cron.ts';
import { decideHpa, type HpaPolicy } from './hpa.ts';
import { type BehaviorSpec, defaultBehavior } from './hpa_behavior.ts';
import type { HpaMemory } from './hpa_memory.ts';
import type { HpaMetric } from './hpa_metric.ts';
import { annotated, COMPOSITE_METRIC, type KedaObserved, pollKeda, queryKeda } from './keda.ts';
import { DEFAULT_MAX_REPLICAS, type KedaPolicy, kedaPolicy } from './keda_policy.ts';
import { initialKedaMemory, type KedaMemory } from './keda_status.ts';
import { toMilli } from './milli.ts';
import type { ScaleObserved } from './scale_decision.ts';
import { sampleOf } from './scale_hpa.ts';
import { HPA_PERIOD_MS, hpaReason, isDue, queryName, type RuleStep, shortNumber } from './scale_step.ts';

type KedaRule = Extract<ScalingSpec['rule'], { kind: 'keda' }>;

export interface KedaRuleMemory {
  readonly createdAt: number;
  readonly keda: KedaMemory;
  readonly hpa: HpaMemory | null;
  readonly pollAt: number;
  readonly hpaAt: number;
  readonly reason: string;
}

/** Its bounds: idle is below the minimum, and a pause may ask for any count. */
export function kedaLeast({ minReplicas, rule }: ScalingSpec): number {
  if (rule.kind !== 'keda') return minReplicas;
  const { idleReplicaCount } = rule.object;
  return Math.min(minReplicas, idleReplicaCount ?? minReplicas, pausedReplicas(rule) ?? minReplicas);
}

export function stepKeda(
  rule: KedaRule,
  observed: ScaleObserved,
  memory: KedaRuleMemory | null,
  now: number,
): RuleStep<KedaRuleMemory> {
  const before = memory ?? firstMemory(now);
  const heldAtZero = observed.replicas === 0 && (observed.signals['waiting_requests'] ?? 0) > 0;
  const pollIsDue = heldAtZero || isDue(before.pollAt, rule.pollingIntervalMs, now);
  const hpaIsDue = isDue(before.hpaAt, HPA_PERIOD_MS, now);
  let step: KedaStep = { replicas: observed.replicas, memory: before };
  if (pollIsDue || hpaIsDue) {
    const policy = kedaPolicy(rule.object, before.createdAt);
    if (pollIsDue) step = poll(rule, policy, observed, step, heldAtZero, now);
    if (hpaIsDue) step = sync(rule, policy, observed, step, now);
  }
  const nextAt = Math.min(step.memory.pollAt, step.memory.hpaAt);
  return { replicas: step.replicas, reason: step.memory.reason, memory: step.memory, nextAt };
}

function firstMemory(now: number): KedaRuleMemory {
  return { createdAt: now, keda: initialKedaMemory(), hpa: null, pollAt: now, hpaAt: now, reason: '' };
}

interface KedaStep {
  readonly replicas: number;
  readonly memory: KedaRuleMemory;
}

function poll(
  rule: KedaRule,
  policy: KedaPolicy,
  observed: ScaleObserved,
  { replicas, memory }: KedaStep,
  heldAtZero: boolean,
  now: number,
): KedaStep {
  const pollAt = now + rule.pollingIntervalMs;
  const paused = pausedReplicas(rule);
  const annotations = heldAtZero ? { ...rule.annotations, 'force-activation': 'true' } : rule.annotations;
  const active = memory.hpa?.conditions.active ?? '';
  const decision = pollKeda(
    policy,
    {
      ...kedaObserved(rule, observed, replicas, now),
      annotations,
      hpaScalingActive: active === 'ValidMetricFound' ? 'True' : active.replace(/^-/, ''),
    },
    memory.keda,
    now,
  );
  const after = paused ?? decision.replicas;
  const held = heldAtZero ? `${shortNumber(observed.signals['waiting_requests'] ?? 0)} requests held at zero; ` : '';
  const reason =
    after === replicas && memory.reason !== '' && replicas !== 0 && paused === null
      ? memory.reason
      : `${held}${pollReason(rule, policy, observed, decision.memory, now)}; ${change(replicas, after)}`;
  return { replicas: after, memory: { ...memory, keda: decision.memory, pollAt, reason } };
}

function change(from: number, to: number): string {
  return from === to ? `stays ${to}` : `${from} -> ${to}`;
}

function pollReason(
  rule: KedaRule,
  policy: KedaPolicy,
  observed: ScaleObserved,
  { status }: KedaMemory,
  now: number,
): string {
  if (isPaused(rule)) return 'paused by annotation';
  const { values } = kedaObserved(rule, observed, 0, now);
  const seen = policy.triggers.map(({ index, metric, activationThreshold }) => {
    const value = values[index] ?? null;
    return value === null
      ? `${metric} has no answer`
      : `${metric} ${shortNumber(value)} (active above ${shortNumber(activationThreshold)})`;
  });
  const state = (status.conditions.Active.split('/')[1] ?? '') || 'ScalerUnknown';
  const idle =
    status.lastActive === null ? 'never active' : `active ${shortNumber((now - status.lastActive) / 1000)} s ago`;
  const cooldown = `${idle}, cooldown ${shortNumber(policy.cooldownMs / 1000)} s`;
  return `${state}: ${seen.join(', ')}${state === 'ScalerActive' ? '' : `, ${cooldown}`}`;
}

function kedaObserved(rule: KedaRule, observed: ScaleObserved, replicas: number, now: number): KedaObserved {
  const cron = rule.queries.map((query) => (query.kind === 'cron' ? cronAnswer(query, now) : null));
  return {
    replicas,
    readyPods: Math.min(replicas, observed.readyReplicas),
    values: rule.queries.map((query, at) => cron[at]?.value ?? external(query, observed.values[at] ?? null)),
    activity: new Map(cron.flatMap((answer, at) => (answer ? [[at, answer.active] as const] : []))),
  };
}

/** KEDA takes what is not a number for 0; whether that is an error is the query's affair (`ignoreNullValues`). */
function external(query: TriggerQuery, value: number | null): number | null {
  return query.kind === 'resource' ? null : value;
}

/** While KEDA is paused there is no HPA. */
function sync(rule: KedaRule, policy: KedaPolicy, observed: ScaleObserved, step: KedaStep, now: number): KedaStep {
  return isPaused(rule)
    ? { ...step, memory: { ...step.memory, hpaAt: now + HPA_PERIOD_MS } }
    : evaluate(rule, policy, observed, step, now);
}

/** One sync of the HPA, which asks KEDA's metrics service only when it needs the metrics. */
function evaluate(
  rule: KedaRule,
  policy: KedaPolicy,
  observed: ScaleObserved,
  { replicas, memory }: KedaStep,
  now: number,
): KedaStep {
  const hpa = hpaPolicy(rule, policy);
  const asks = replicas >= hpa.minReplicas && replicas <= hpa.maxReplicas;
  const seen = kedaObserved(rule, observed, replicas, now);
  let { keda } = memory;
  const samples = hpa.sources.map((source): readonly number[] | null => {
    if (!asks) return null;
    if (typeof source === 'number') return sampleOf(observed.values[source] ?? null);
    const answer = queryKeda(policy, seen, keda, source);
    keda = answer.memory;
    return answer.values;
  });
  const counts = { replicas, statusReplicas: replicas, pods: replicas, readyPods: seen.readyPods };
  const decision = decideHpa(hpa, { ...counts, samples }, memory.hpa, now);
  const reason =
    replicas === 0 && memory.reason !== '' ? memory.reason : hpaReason(hpa.metrics, samples, replicas, decision);
  return {
    replicas: decision.replicas,
    memory: { ...memory, keda, hpa: decision.memory, hpaAt: now + HPA_PERIOD_MS, reason },
  };
}

interface KedaHpaPolicy extends HpaPolicy {
  /** Of each metric: KEDA's name for it, or where among the queries a resource stands, which KEDA has nothing to do with. */
  readonly sources: readonly (string | number)[];
}

function hpaPolicy(rule: KedaRule, policy: KedaPolicy): KedaHpaPolicy {
  const resources = rule.queries.flatMap((query, at) =>
    query.kind === 'resource'
      ? [{ source: at, metric: { name: queryName(query), type: 'Resource' as const, target: toMilli(query.target) } }]
      : [],
  );
  const { modifiers } = policy;
  const external = modifiers
    ? [
        {
          source: COMPOSITE_METRIC,
          metric: { name: COMPOSITE_METRIC, type: modifiers.metricType, target: toMilli(modifiers.target) },
        },
      ]
    : policy.triggers.map(({ metric: name, metricType: type, target }) => ({
        source: name,
        metric: { name, type, target } satisfies HpaMetric,
      }));
  const all: readonly { source: string | number; metric: HpaMetric }[] = [...external, ...resources];
  const { minReplicaCount, maxReplicaCount } = rule.object;
  return {
    minReplicas: Math.max(1, minReplicaCount ?? 0),
    maxReplicas: maxReplicaCount ?? DEFAULT_MAX_REPLICAS,
    metrics: all.map(({ metric }) => metric),
    sources: all.map(({ source }) => source),
    behavior: behaviorOf(rule),
  };
}

/** `paused-scale-in` and `paused-scale-out` switch off a direction of the HPA too. */
function behaviorOf({ behavior, annotations }: KedaRule): HpaPolicy['behavior'] {
  const disabled = { selectPolicy: 'Disabled' as const };
  const paused: BehaviorSpec = {
    ...(annotated(annotations, 'paused-scale-in') ? { scaleDown: { ...behavior?.scaleDown, ...disabled } } : {}),
    ...(annotated(annotations, 'paused-scale-out') ? { scaleUp: { ...behavior?.scaleUp, ...disabled } } : {}),
  };
  if (behavior === null && Object.keys(paused).length === 0) return null;
  return defaultBehavior({ ...behavior, ...paused });
}

function isPaused(rule: KedaRule): boolean {
  return annotated(rule.annotations, 'paused') || Object.hasOwn(rule.annotations, 'paused-replicas');
}

/** null = no such annotation, or no count. */
function pausedReplicas({ annotations }: KedaRule): number | null {
  const text = Object.hasOwn(annotations, 'paused-replicas') ? (annotations['paused-replicas'] as string) : '';
  return /^\d{1,6}$/.test(text) ? Number(text) : null;
}
