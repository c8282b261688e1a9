/** Triggers and timers of KEDA, wherever they stand: in a ScaledObject or in an LLMInferenceService. */
import { TokenmillError } from '../../../base/errors.ts';
import type { BehaviorSpec } from '../../autoscaler/hpa_behavior.ts';
import { kedaPolicy, type ScaledObjectSpec, type TriggerSpec } from '../../autoscaler/keda_policy.ts';
import { parseQuantity } from '../../quantity.ts';
import type { ScalingSpec, TriggerQuery } from '../fleet_spec.ts';
import type { Objects } from '../objects.ts';
import type { ObjectContext, Path } from '../problems.ts';
import {
  bool,
  ignored,
  int,
  list,
  looseText,
  map,
  object,
  oneOf,
  optional,
  quantity,
  type ReadBy,
  required,
  str,
} from '../schema.ts';

export const POLLING_INTERVAL_MS = 30_000;
const KEDA_MAX_REPLICAS = 100;

const RULES = object({
  stabilizationWindowSeconds: optional(int({ min: 0, max: 3600 })),
  selectPolicy: optional(oneOf('Max', 'Min', 'Disabled')),
  policies: optional(
    list(
      object({
        type: required(oneOf('Pods', 'Percent')),
        value: required(int({ min: 1 })),
        periodSeconds: required(int({ min: 1, max: 1800 })),
      }),
    ),
  ),
  tolerance: optional(quantity()),
});

export const BEHAVIOR = object({ scaleUp: optional(RULES), scaleDown: optional(RULES) });

/** Fields that are not given are left out, so that the defaults of the API apply. */
export function behaviorSpec(value: ReadBy<typeof BEHAVIOR> | null): BehaviorSpec | null {
  if (value === null) return null;
  const direction = (rules: ReadBy<typeof RULES> | null) => {
    if (rules === null) return null;
    const { stabilizationWindowSeconds, selectPolicy, policies, tolerance } = rules;
    return {
      ...(stabilizationWindowSeconds !== null && { stabilizationWindowSeconds }),
      ...(selectPolicy !== null && { selectPolicy }),
      ...(policies !== null && { policies: policies.map((policy) => ({ ...policy })) }),
      ...(tolerance !== null && { tolerance: tolerance.text }),
    };
  };
  return { scaleUp: direction(value.scaleUp), scaleDown: direction(value.scaleDown) };
}

const TRIGGER = object({
  type: required(str()),
  name: optional(str()),
  metadata: required(map(looseText())),
  metricType: optional(oneOf('AverageValue', 'Value', 'Utilization')),
  useCachedMetrics: optional(bool()),
  authenticationRef: optional(
    object({ name: required(str()), kind: optional(oneOf('TriggerAuthentication', 'ClusterTriggerAuthentication')) }),
  ),
});

const TRIGGERS = list(TRIGGER, { min: 1, max: 64 });

export const KEDA_FIELDS = {
  pollingInterval: optional(int({ min: 1 })),
  cooldownPeriod: optional(int({ min: 0 })),
  initialCooldownPeriod: optional(int({ min: 0 })),
  idleReplicaCount: optional(int({ min: 0 })),
  fallback: optional(
    object({
      failureThreshold: required(int({ min: 0 })),
      replicas: required(int({ min: 0 })),
      behavior: optional(
        oneOf('static', 'currentReplicas', 'currentReplicasIfHigher', 'currentReplicasIfLower', 'scalingModifiers'),
      ),
    }),
  ),
  advanced: optional(
    object({
      restoreToOriginalReplicaCount: ignored('there is no count to go back to'),
      horizontalPodAutoscalerConfig: optional(
        object({
          name: ignored('no object of that name is made'),
          behavior: optional(BEHAVIOR),
        }),
      ),
      scalingModifiers: optional(
        object({
          formula: required(str({ maxLength: 4096 })),
          target: required(str()),
          activationTarget: optional(str()),
          metricType: optional(oneOf('AverageValue', 'Value')),
        }),
      ),
    }),
  ),
  triggers: required(TRIGGERS),
};

const KEDA = object(KEDA_FIELDS);
export type KedaValue = ReadBy<typeof KEDA>;

export interface KedaScope {
  readonly cx: ObjectContext;
  /** Of the object that holds the fields. */
  readonly path: Path;
  readonly namespace: string;
  readonly objects: Objects;
}

export interface KedaReplicas {
  readonly min: number | null;
  readonly max: number | null;
  readonly annotations: Readonly<Record<string, string>>;
}

const MARK = 'autoscaling.keda.sh/';

/** null: something was wrong, and it was reported. */
export function kedaScaling(
  value: KedaValue,
  { min, max, annotations }: KedaReplicas,
  scope: KedaScope,
): ScalingSpec | null {
  const triggers = value.triggers.map((trigger, i) => readTrigger(trigger, [...scope.path, 'triggers', i], scope));
  const sound = triggers.flatMap((trigger) => (trigger === null ? [] : [trigger]));
  if (sound.length < triggers.length) return null;
  const { fallback, advanced } = value;
  const modifiers = advanced?.scalingModifiers ?? null;
  const object: ScaledObjectSpec = {
    cooldownPeriod: value.cooldownPeriod,
    initialCooldownPeriod: value.initialCooldownPeriod,
    idleReplicaCount: value.idleReplicaCount,
    minReplicaCount: min,
    maxReplicaCount: max,
    fallback: fallback && {
      failureThreshold: fallback.failureThreshold,
      replicas: fallback.replicas,
      behavior: fallback.behavior ?? 'static',
    },
    scalingModifiers: modifiers && {
      formula: modifiers.formula,
      target: modifiers.target,
      ...(modifiers.activationTarget !== null && { activationTarget: modifiers.activationTarget }),
      ...(modifiers.metricType !== null && { metricType: modifiers.metricType }),
    },
    triggers: sound.map(({ spec }) => spec),
  };
  const least = Math.min(min ?? 0, value.idleReplicaCount ?? Number.POSITIVE_INFINITY);
  if (!admitted(object, scope)) return null;
  return {
    minReplicas: least,
    maxReplicas: max ?? KEDA_MAX_REPLICAS,
    standby: 0,
    rule: {
      kind: 'keda',
      pollingIntervalMs: value.pollingInterval === null ? POLLING_INTERVAL_MS : value.pollingInterval * 1000,
      object,
      behavior: behaviorSpec(advanced?.horizontalPodAutoscalerConfig?.behavior ?? null),
      annotations: kedaAnnotations(annotations),
      queries: sound.map(({ query }) => query),
    },
  };
}

export function kedaAnnotations(annotations: Readonly<Record<string, string>>): Record<string, string> {
  const own = Object.entries(annotations).filter(([key]) => key.startsWith(MARK));
  return Object.fromEntries(own.map(([key, value]) => [key.slice(MARK.length), value]));
}

/** A message of another room as the end of a line of ours. */
export function reasonOf(error: TokenmillError): string {
  return error.message.replace(/^ScaledObject: /, '').replace(/\.$/, '');
}

/** KEDA's own admission, so that what it refuses is refused here. */
export function admitted(object: ScaledObjectSpec, { cx, path }: Pick<KedaScope, 'cx' | 'path'>): boolean {
  const resources = object.triggers.filter(({ type }) => type === 'cpu' || type === 'memory').length;
  if (resources === object.triggers.length && (object.minReplicaCount ?? 0) === 0) {
    cx.error(path, 'with triggers of cpu and memory only, minReplicaCount must be 1 or more: nothing would wake it');
    return false;
  }
  try {
    // A cron trigger is to KEDA's core one more external metric.
    const external = object.triggers.map((trigger) =>
      trigger.type === 'cron' ? { ...trigger, type: 'prometheus' } : trigger,
    );
    kedaPolicy({ ...object, triggers: external }, 0);
    return true;
  } catch (error) {
    if (!(error instanceof TokenmillError)) throw error;
    cx.error(path, reasonOf(error));
    return false;
  }
}

type TriggerValue = ReadBy<typeof TRIGGER>;

interface TriggerRead {
  readonly spec: TriggerSpec;
  readonly query: TriggerQuery;
}

const OWN_METRICS = "the query is answered from the fleet's own metrics";

const PROMETHEUS = object({
  query: required(looseText()),
  threshold: required(looseText()),
  activationThreshold: optional(looseText()),
  ignoreNullValues: optional(looseText()),
  serverAddress: optional(looseText()),
  namespace: ignored('there is one tenant'),
  queryParameters: ignored(OWN_METRICS),
  customHeaders: ignored(OWN_METRICS),
  authModes: ignored(OWN_METRICS),
  unsafeSsl: ignored(OWN_METRICS),
  timeout: ignored(OWN_METRICS),
  metricName: ignored('KEDA no longer reads it'),
});

const CRON = object({
  timezone: required(str()),
  start: required(looseText()),
  end: required(looseText()),
  desiredReplicas: required(looseText()),
});

const RESOURCE = object({
  value: required(looseText()),
  type: optional(oneOf('Utilization', 'AverageValue')),
  containerName: ignored('a replica has one container'),
});

/** Fields of `metadata` by type of trigger. */
export const TRIGGER_METADATA = { prometheus: PROMETHEUS, cron: CRON, cpu: RESOURCE, memory: RESOURCE };

function readTrigger(trigger: TriggerValue, path: Path, scope: KedaScope): TriggerRead | null {
  const { cx } = scope;
  checkAuthentication(trigger, path, scope);
  const at = [...path, 'metadata'];
  const node = nodeAt(cx, at);
  const common = {
    type: trigger.type,
    ...(trigger.name !== null && { name: trigger.name }),
    ...(trigger.useCachedMetrics !== null && { useCachedMetrics: trigger.useCachedMetrics }),
  };
  if (trigger.type === 'prometheus') {
    const value = PROMETHEUS.read(node, at, cx);
    return value === undefined ? null : prometheus(trigger, value, common, path, cx);
  }
  if (trigger.type === 'cron') {
    const value = CRON.read(node, at, cx);
    return value === undefined ? null : cron(trigger, value, common, path, cx);
  }
  if (trigger.type === 'cpu' || trigger.type === 'memory') {
    const value = RESOURCE.read(node, at, cx);
    return value === undefined ? null : resource(trigger, value, common, path, cx);
  }
  cx.error([...path, 'type'], `trigger ${trigger.type} is not supported: prometheus, cron, cpu and memory are`);
  return null;
}

function nodeAt(cx: ObjectContext, path: Path) {
  let node = cx.root;
  for (const step of path) {
    const next =
      node.kind === 'map'
        ? node.entries.get(String(step))?.value
        : node.kind === 'list'
          ? node.items[Number(step)]
          : undefined;
    if (next === undefined) break;
    node = next;
  }
  return node;
}

function checkAuthentication(
  { authenticationRef }: TriggerValue,
  path: Path,
  { cx, namespace, objects }: KedaScope,
): void {
  if (authenticationRef === null) return;
  const kind = authenticationRef.kind ?? 'TriggerAuthentication';
  const at = [...path, 'authenticationRef'];
  if (!objects.has(kind, namespace, authenticationRef.name))
    cx.error(at, `${kind} ${authenticationRef.name} is not in the files`);
  else cx.notice(at, `${OWN_METRICS}, which ask for no credentials`);
}

type Common = Pick<TriggerSpec, 'type'> & Partial<TriggerSpec>;

function decimal(text: string, path: Path, cx: ObjectContext): number | null {
  const value = /^[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?$/.test(text) ? Number(text) : Number.NaN;
  if (Number.isFinite(value)) return value;
  cx.error(path, `is ${JSON.stringify(text)}; it must be a number`);
  return null;
}

function prometheus(
  trigger: TriggerValue,
  value: ReadBy<typeof PROMETHEUS>,
  common: Common,
  path: Path,
  cx: ObjectContext,
): TriggerRead | null {
  const at = [...path, 'metadata'];
  const threshold = decimal(value.threshold, [...at, 'threshold'], cx);
  const activation =
    value.activationThreshold === null ? null : decimal(value.activationThreshold, [...at, 'activationThreshold'], cx);
  if (trigger.metricType === 'Utilization') {
    cx.error([...path, 'metricType'], 'Utilization is for cpu and memory; use AverageValue or Value');
    return null;
  }
  if (threshold === null || (value.activationThreshold !== null && activation === null)) return null;
  if (value.serverAddress !== null) cx.notice([...at, 'serverAddress'], OWN_METRICS);
  return {
    spec: {
      ...common,
      threshold,
      ...(trigger.metricType !== null && { metricType: trigger.metricType }),
      ...(activation !== null && { activationThreshold: activation }),
    },
    query: { kind: 'promql', query: value.query, ignoreNullValues: value.ignoreNullValues !== 'false' },
  };
}

const CRON_FIELD = /^[\d*/,A-Za-z-]+(\s+[\d*/,A-Za-z-]+){4}$/;

function cron(
  trigger: TriggerValue,
  value: ReadBy<typeof CRON>,
  common: Common,
  path: Path,
  cx: ObjectContext,
): TriggerRead | null {
  const at = [...path, 'metadata'];
  const desired = decimal(value.desiredReplicas, [...at, 'desiredReplicas'], cx);
  let sound = desired !== null;
  for (const field of ['start', 'end'] as const) {
    if (CRON_FIELD.test(value[field].trim())) continue;
    cx.error(
      [...at, field],
      `is ${JSON.stringify(value[field])}; it must be five fields of cron: minute hour day month weekday`,
    );
    sound = false;
  }
  if (value.start === value.end) {
    cx.error([...at, 'end'], 'is the same as start; a window has two ends');
    sound = false;
  }
  if (!knownZone(value.timezone)) {
    cx.error(
      [...at, 'timezone'],
      `${JSON.stringify(value.timezone)} is no time zone; write one such as Europe/Berlin or UTC`,
    );
    sound = false;
  }
  if (trigger.metricType !== null && trigger.metricType !== 'AverageValue') {
    cx.error([...path, 'metricType'], 'a cron trigger has AverageValue');
    sound = false;
  }
  if (!sound || desired === null) return null;
  const { timezone, start, end } = value;
  // KEDA divides the number wanted by a target of 1.
  return { spec: { ...common, threshold: 1 }, query: { kind: 'cron', timezone, start, end, desired } };
}

function knownZone(zone: string): boolean {
  try {
    new Intl.DateTimeFormat('en', { timeZone: zone });
    return true;
  } catch {
    return false;
  }
}

function resource(
  trigger: TriggerValue,
  value: ReadBy<typeof RESOURCE>,
  common: Common,
  path: Path,
  cx: ObjectContext,
): TriggerRead | null {
  const type = trigger.metricType ?? value.type;
  if (type === null || type === 'Value') {
    cx.error([...path, 'metricType'], 'must be Utilization or AverageValue for cpu and memory');
    return null;
  }
  const target = resourceTarget(value.value, type === 'Utilization');
  if (target === null) {
    const wanted =
      type === 'Utilization' ? 'a whole number of percent above 0' : 'a quantity above 0 such as 500m or 2Gi';
    cx.error([...path, 'metadata', 'value'], `is ${JSON.stringify(value.value)}; it must be ${wanted}`);
    return null;
  }
  const query = {
    kind: 'resource',
    resource: trigger.type as 'cpu' | 'memory',
    target,
    utilization: type === 'Utilization',
  } as const;
  return { spec: { ...common, threshold: target }, query };
}

/** Percent, or cores and bytes; null = not one. */
function resourceTarget(text: string, utilization: boolean): number | null {
  if (utilization) return /^[1-9]\d{0,5}$/.test(text) ? Number(text) : null;
  try {
    const value = parseQuantity(text);
    return value > 0 ? value : null;
  } catch {
    return null;
  }
}
