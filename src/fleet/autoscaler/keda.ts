/**
 * The operator of KEDA (2.21) as pure functions: one round of its scale loop, which moves a target between 0 (or idle) and its
 * minimum, and one query of its metrics service, which the HorizontalPodAutoscaler asks in between. Replayed against histories of
 * the real code, field by field (keda.test.ts). The reconciler, push triggers and ScaledJobs are not covered.
 */
import { asked, composite, type TargetCounts, withFallback } from './keda_metric.ts';
import type { KedaPolicy, KedaTrigger } from './keda_policy.ts';
import type { Conditions, Copied, KedaMemory, KedaStatus, MetricOutcome } from './keda_status.ts';
import { fromMilli } from './milli.ts';

export interface KedaObserved extends TargetCounts {
  /** What each trigger would answer now, by its place among all; null = it fails. */
  readonly values: readonly (number | null)[];
  /** Of triggers that say by themselves whether they are active, whatever their value is (cron). */
  readonly activity?: ReadonlyMap<number, boolean>;
}

export interface KedaPollObserved extends KedaObserved {
  /** Those of KEDA, without the prefix `autoscaling.keda.sh/`. */
  readonly annotations: Readonly<Record<string, string>>;
  /** ScalingActive of the HorizontalPodAutoscaler: True, '' when it is not known, else the reason why not. */
  readonly hpaScalingActive: string;
}

export interface KedaDecision {
  readonly replicas: number;
  /** The scale is to be written; it is what it should be otherwise. */
  readonly write: boolean;
  /** Reasons of the events, in order. */
  readonly events: readonly string[];
  readonly memory: KedaMemory;
}

export interface KedaAnswer {
  /** Thousandths; [] = the formula failed; null = an error. */
  readonly values: readonly number[] | null;
  readonly memory: KedaMemory;
}

export const COMPOSITE_METRIC = 'composite-metric';

/** One round of the scale loop at time `now`, ms. */
export function pollKeda(
  policy: KedaPolicy,
  observed: KedaPollObserved,
  memory: KedaMemory,
  now: number,
): KedaDecision {
  const before = memory.status;
  const state = triggersState(policy, observed, memory);
  const wasFallback = before.conditions.Fallback.startsWith('True');
  const events =
    state.fallback === wasFallback
      ? []
      : [state.fallback ? 'ScaledObjectFallbackActivated' : 'ScaledObjectFallbackDeactivated'];
  const scaled = requestScale(policy, observed, before.lastActive, state, now);
  const { status } = state;
  const activity = Object.fromEntries(policy.triggers.map(({ metric }) => [metric, state.activeMetrics.has(metric)]));
  return {
    replicas: scaled.replicas ?? observed.replicas,
    write: scaled.replicas !== null,
    events: scaled.event === null ? events : [...events, scaled.event],
    memory: {
      status: {
        ...status,
        conditions: { ...status.conditions, ...scaled.conditions },
        // Times are stored in whole seconds.
        lastActive: scaled.refreshed ? Math.floor(now / 1000) * 1000 : status.lastActive,
        activity,
      },
      served: state.failed ? null : memory.served?.fromPoll === false ? memory.served : { status, fromPoll: true },
      outcomes: state.outcomes,
    },
  };
}

interface TriggersState {
  readonly active: boolean;
  readonly activeMetrics: ReadonlySet<string>;
  readonly failed: boolean;
  readonly fallback: boolean;
  /** With the failures of this round. */
  readonly status: KedaStatus;
  readonly outcomes: KedaMemory['outcomes'];
}

function triggersState(policy: KedaPolicy, observed: KedaPollObserved, memory: KedaMemory): TriggersState {
  const { modifiers, triggers } = policy;
  // While the metrics service is being asked anyway, its answers are used and nothing is asked twice.
  const reuse = observed.hpaScalingActive === 'True' && usesQueryOutcomes(policy);
  const fresh = reuse ? triggers.filter(({ metric }) => !Object.hasOwn(memory.outcomes, metric)) : triggers;
  const round = askAll(policy, fresh, observed, { stored: memory.status, copy: memory.status }, null);
  const outcomes = new Map(
    triggers.map((trigger) => [
      trigger,
      (round.outcomes.get(trigger) ?? memory.outcomes[trigger.metric]) as MetricOutcome,
    ]),
  );
  const all = [...outcomes.values()];
  const failed = all.some(({ value }) => value === null);
  const status = round.status.stored;
  const cached = triggers.filter(({ useCachedMetrics }) => useCachedMetrics);
  const common = {
    failed,
    fallback: all.some(({ fallback }) => fallback),
    status,
    outcomes: {
      ...memory.outcomes,
      ...Object.fromEntries(cached.map((trigger) => [trigger.metric, outcomes.get(trigger) as MetricOutcome])),
    },
  };
  if (modifiers !== null) {
    const value = failed ? null : composite(policy, modifiers, outcomes, status);
    const active = value !== null && fromMilli(value) > modifiers.activationTarget;
    return { ...common, active, activeMetrics: new Set(active ? [COMPOSITE_METRIC] : []) };
  }
  const activeMetrics = new Set(
    triggers.filter((trigger) => isActive(outcomes.get(trigger))).map(({ metric }) => metric),
  );
  // Triggers of cpu and memory alone could never wake anything.
  return { ...common, active: activeMetrics.size > 0 || triggers.length === 0, activeMetrics };
}

function isActive(outcome: MetricOutcome | undefined): boolean {
  return outcome !== undefined && outcome.value !== null && outcome.active;
}

/** Polls cannot change anything then: the HorizontalPodAutoscaler alone decides, and asks all by itself. */
function usesQueryOutcomes({ minReplicaCount, idleReplicaCount, modifiers, triggers }: KedaPolicy): boolean {
  return (
    minReplicaCount > 0 &&
    idleReplicaCount === null &&
    modifiers === null &&
    !triggers.some(({ useCachedMetrics }) => useCachedMetrics)
  );
}

interface Round {
  readonly outcomes: ReadonlyMap<KedaTrigger, MetricOutcome>;
  readonly status: Copied;
}

/** `cached`: outcomes to take instead of asking, where a trigger wants that. */
function askAll(
  policy: KedaPolicy,
  triggers: readonly KedaTrigger[],
  observed: KedaObserved,
  status: Copied,
  cached: KedaMemory['outcomes'] | null,
): Round {
  const outcomes = new Map<KedaTrigger, MetricOutcome>();
  let round = status;
  for (const trigger of lastFirst(triggers)) {
    const known = trigger.useCachedMetrics ? cached?.[trigger.metric] : undefined;
    const raw = known ?? asked(trigger, observed.values[trigger.index] ?? null, observed.activity?.get(trigger.index));
    const step = withFallback(policy, trigger, raw, observed, round);
    round = step;
    outcomes.set(trigger, step.outcome);
  }
  return { outcomes, status: round };
}

/** They are asked at once; this is the order in which Go starts them when nothing else runs. */
function lastFirst(triggers: readonly KedaTrigger[]): readonly KedaTrigger[] {
  return [...triggers.slice(-1), ...triggers.slice(0, -1)];
}

interface Scaled {
  /** Null = not written. */
  readonly replicas: number | null;
  readonly event: string | null;
  readonly conditions: Partial<Conditions>;
  /** Now is the last time of activity. */
  readonly refreshed: boolean;
}

function requestScale(
  policy: KedaPolicy,
  observed: KedaPollObserved,
  lastActive: number | null,
  state: TriggersState,
  now: number,
): Scaled {
  const { annotations } = observed;
  const idle: Scaled = {
    replicas: null,
    event: null,
    conditions: { Ready: 'True/ScaledObjectReady' },
    refreshed: false,
  };
  if (Object.hasOwn(annotations, 'paused-replicas') || annotated(annotations, 'paused')) {
    return { ...idle, conditions: { ...idle.conditions, Paused: 'True/ScaledObjectPaused' } };
  }
  const conditions = { ...idle.conditions, ...hpaCondition(observed.hpaScalingActive) };
  return state.active || annotated(annotations, 'force-activation')
    ? whenActive(policy, observed, state, { ...idle, conditions: { ...conditions, Active: 'True/ScalerActive' } })
    : whenInactive(policy, observed, lastActive, state, now, {
        ...idle,
        conditions: { ...conditions, Active: 'False/ScalerNotActive' },
      });
}

function whenActive(policy: KedaPolicy, observed: KedaPollObserved, state: TriggersState, idle: Scaled): Scaled {
  const { replicas, annotations } = observed;
  if (replicas === 0 || (policy.idleReplicaCount !== null && replicas < policy.minReplicaCount)) {
    if (annotated(annotations, 'paused-scale-out')) return idle;
    const wanted = Math.max(policy.minReplicaCount, 1);
    return { ...idle, replicas: wanted, event: 'KEDAScaleTargetActivated', refreshed: true };
  }
  if (state.failed) return { ...idle, conditions: { ...idle.conditions, Ready: 'Unknown/PartialTriggerError' } };
  return { ...idle, refreshed: true };
}

function whenInactive(
  policy: KedaPolicy,
  observed: KedaPollObserved,
  lastActive: number | null,
  state: TriggersState,
  now: number,
  idle: Scaled,
): Scaled {
  const { fallback, idleReplicaCount, minReplicaCount } = policy;
  const { replicas } = observed;
  if (state.failed && fallback === null) {
    return { ...idle, conditions: { ...idle.conditions, Ready: 'False/TriggerError' } };
  }
  // Held until the fallback is due; one to 0 replicas has nothing to hold for.
  if (state.failed && fallback?.replicas !== 0) return idle;
  if ((idleReplicaCount !== null && replicas > idleReplicaCount) || (replicas > 0 && minReplicaCount === 0)) {
    if (annotated(observed.annotations, 'paused-scale-in')) return idle;
    const over =
      lastActive === null ? policy.createdAt + policy.initialCooldownMs < now : lastActive + policy.cooldownMs < now;
    if (!over) return { ...idle, conditions: { ...idle.conditions, Active: 'False/ScalerCooldown' } };
    return { ...idle, replicas: idleReplicaCount ?? minReplicaCount, event: 'KEDAScaleTargetDeactivated' };
  }
  if (idleReplicaCount === null && replicas < minReplicaCount) return { ...idle, replicas: minReplicaCount };
  return idle;
}

const FALSE = ['0', 'f', 'F', 'false', 'FALSE', 'False'];

/** An annotation that is there and is not one of Go's spellings of false, '' included, means yes. */
export function annotated(annotations: KedaPollObserved['annotations'], name: string): boolean {
  return Object.hasOwn(annotations, name) && !FALSE.includes(annotations[name] as string);
}

function hpaCondition(scalingActive: string): Partial<Conditions> {
  if (scalingActive === '') return {};
  if (scalingActive === 'True') return { HPAActive: 'True/HPAActive' };
  return { HPAActive: `${scalingActive === 'ScalingDisabled' ? 'True' : 'False'}/${scalingActive}` };
}

/** One query for an external metric: a trigger's, or the composite one where there is a formula. */
export function queryKeda(policy: KedaPolicy, observed: KedaObserved, memory: KedaMemory, metric: string): KedaAnswer {
  const { modifiers } = policy;
  const triggers = policy.triggers.filter((trigger) => modifiers !== null || trigger.metric === metric);
  const round = askAll(
    policy,
    triggers,
    observed,
    { stored: memory.status, copy: memory.served?.status ?? memory.status },
    memory.outcomes,
  );
  const outcomes = [...round.outcomes.values()];
  const failed = outcomes.some(({ value }) => value === null);
  const left = usesQueryOutcomes(policy)
    ? Object.fromEntries([...round.outcomes].map(([trigger, outcome]) => [trigger.metric, outcome]))
    : {};
  const after: KedaMemory = {
    status: round.status.stored,
    served: failed ? null : { status: round.status.copy, fromPoll: memory.served?.fromPoll ?? false },
    outcomes: { ...memory.outcomes, ...left },
  };
  const isAnswered = outcomes.length > 0 && (!failed || outcomes.some(({ fallback }) => fallback));
  if (!isAnswered) return { values: null, memory: after };
  if (modifiers === null) {
    return { values: outcomes.map(({ value }) => value).filter((value) => value !== null), memory: after };
  }
  const value = composite(policy, modifiers, round.outcomes, round.status.copy);
  return { values: value === null ? [] : [value], memory: after };
}
