/** A ScaledObject (`keda.sh/v1alpha1`, KEDA 2.21) as the decisions need it: parsed and checked once. */
import { TokenmillError } from '../../base/errors.ts';
import { compileFormula, type Formula } from './formula.ts';
import { toMilli } from './milli.ts';

export type MetricType = 'AverageValue' | 'Value';

export const DEFAULT_MAX_REPLICAS = 100;

export interface FallbackPolicy {
  /** Failures in a row that are still errors. */
  readonly failureThreshold: number;
  readonly replicas: number;
  readonly behavior:
    | 'static'
    | 'currentReplicas'
    | 'currentReplicasIfHigher'
    | 'currentReplicasIfLower'
    | 'scalingModifiers';
}

/** A trigger with a value of its own; cpu and memory are the HorizontalPodAutoscaler's affair. */
export interface KedaTrigger {
  /** Where it stands among all triggers, those of cpu and memory included. */
  readonly index: number;
  /** Of the external metric, `s0-prometheus`. */
  readonly metric: string;
  /** As a formula calls it; '' without a name. */
  readonly name: string;
  readonly metricType: MetricType;
  /** In thousandths. */
  readonly target: number;
  readonly activationThreshold: number;
  readonly useCachedMetrics: boolean;
}

export interface ModifiersPolicy {
  readonly formula: Formula;
  readonly target: number;
  readonly activationTarget: number;
  readonly metricType: MetricType;
  /** The target is written as a whole number above 0: KEDA has no fallback otherwise. */
  readonly allowsFallback: boolean;
}

export interface KedaPolicy {
  /** ms, on the clock of the decisions. */
  readonly createdAt: number;
  readonly cooldownMs: number;
  readonly initialCooldownMs: number;
  readonly idleReplicaCount: number | null;
  /** 0 when not given. */
  readonly minReplicaCount: number;
  readonly fallback: FallbackPolicy | null;
  readonly modifiers: ModifiersPolicy | null;
  readonly triggers: readonly KedaTrigger[];
}

/** As written, seconds; what is null or left out has KEDA's default. */
export interface ScaledObjectSpec {
  readonly cooldownPeriod?: number | null;
  readonly initialCooldownPeriod?: number | null;
  readonly idleReplicaCount?: number | null;
  readonly minReplicaCount?: number | null;
  readonly maxReplicaCount?: number | null;
  readonly fallback?: (Omit<FallbackPolicy, 'behavior'> & Partial<Pick<FallbackPolicy, 'behavior'>>) | null;
  readonly scalingModifiers?: ScalingModifiersSpec | null;
  readonly triggers: readonly TriggerSpec[];
}

export interface ScalingModifiersSpec {
  readonly formula: string;
  readonly target: string;
  readonly activationTarget?: string;
  readonly metricType?: MetricType;
}

export interface TriggerSpec {
  readonly type: string;
  readonly name?: string;
  readonly metricType?: MetricType;
  readonly threshold: number;
  readonly activationThreshold?: number;
  readonly useCachedMetrics?: boolean;
}

const DEFAULT_COOLDOWN_S = 300;

const CRON_TRIGGER = 'cron';

/** Triggers with one: KEDA calls it `s0-prometheus`. */
const METRIC_TRIGGERS: readonly string[] = ['prometheus', CRON_TRIGGER];

/** Triggers without a metric of KEDA's own. */
const RESOURCE_TRIGGERS: readonly string[] = ['cpu', 'memory'];

/** `createdAt` in ms. What the admission of KEDA refuses is `invalid_manifest`, and so is a kind of trigger we do not have. */
export function kedaPolicy(spec: ScaledObjectSpec, createdAt: number): KedaPolicy {
  admit(spec);
  const triggers = spec.triggers.flatMap((trigger, index) =>
    RESOURCE_TRIGGERS.includes(trigger.type) ? [] : [triggerPolicy(trigger, index)],
  );
  return {
    createdAt,
    cooldownMs: (spec.cooldownPeriod ?? DEFAULT_COOLDOWN_S) * 1000,
    initialCooldownMs: (spec.initialCooldownPeriod ?? 0) * 1000,
    idleReplicaCount: spec.idleReplicaCount ?? null,
    minReplicaCount: spec.minReplicaCount ?? 0,
    fallback: spec.fallback ? { behavior: 'static', ...spec.fallback } : null,
    modifiers: spec.scalingModifiers ? modifiersPolicy(spec.scalingModifiers, triggers) : null,
    triggers,
  };
}

function admit({ idleReplicaCount, minReplicaCount, maxReplicaCount, fallback, triggers }: ScaledObjectSpec): void {
  const least = minReplicaCount ?? 0;
  const most = maxReplicaCount ?? DEFAULT_MAX_REPLICAS;
  const refuse = (why: string): never => {
    throw new TokenmillError('invalid_manifest', `ScaledObject: ${why}.`);
  };
  if (least > most) refuse(`minReplicaCount ${least} is above maxReplicaCount ${most}`);
  if (idleReplicaCount != null && idleReplicaCount >= least) {
    refuse(`idleReplicaCount ${idleReplicaCount} must be below minReplicaCount ${least}`);
  }
  if (fallback && (fallback.failureThreshold < 0 || fallback.replicas < 0)) refuse('fallback with a number below 0');
  const names = triggers.flatMap(({ name }) => (name ? [name] : []));
  const twice = names.find((name, at) => names.indexOf(name) !== at);
  if (twice !== undefined) refuse(`two triggers are named "${twice}"`);
  const unknown = triggers.find(({ type }) => !METRIC_TRIGGERS.includes(type) && !RESOURCE_TRIGGERS.includes(type));
  if (unknown)
    refuse(
      `trigger type "${unknown.type}" is not supported (${[...METRIC_TRIGGERS, ...RESOURCE_TRIGGERS].join(', ')} are)`,
    );
}

function triggerPolicy(trigger: TriggerSpec, index: number): KedaTrigger {
  return {
    index,
    metric: `s${index}-${trigger.type}`,
    name: trigger.name ?? '',
    // A cron trigger answers with replicas.
    metricType: trigger.type === CRON_TRIGGER ? 'AverageValue' : (trigger.metricType ?? 'AverageValue'),
    target: trigger.type === CRON_TRIGGER ? 1000 : toMilli(trigger.threshold),
    activationThreshold: trigger.activationThreshold ?? 0,
    useCachedMetrics: trigger.useCachedMetrics ?? false,
  };
}

function modifiersPolicy(spec: ScalingModifiersSpec, triggers: readonly KedaTrigger[]): ModifiersPolicy {
  const target = decimal(spec.target, 'target');
  if (target <= 0) throw new TokenmillError('invalid_manifest', 'scalingModifiers.target must be above 0.');
  const names = triggers.map(({ name }) => name).filter((name) => name !== '');
  return {
    formula: compileFormula(spec.formula, names),
    target,
    activationTarget: spec.activationTarget ? decimal(spec.activationTarget, 'activationTarget') : 0,
    metricType: spec.metricType ?? 'AverageValue',
    allowsFallback: /^\+?\d+$/.test(spec.target),
  };
}

function decimal(text: string, field: string): number {
  if (/^[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?$/.test(text)) return Number(text);
  throw new TokenmillError('invalid_manifest', `scalingModifiers.${field} is ${JSON.stringify(text)}, not a number.`);
}
