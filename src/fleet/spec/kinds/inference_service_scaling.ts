/** How an InferenceService scales: what KServe makes of it, with its losses, and a notice for each of them. */
import { TokenmillError } from '../../../base/errors.ts';
import type { BehaviorSpec } from '../../autoscaler/hpa_behavior.ts';
import type { ScaledObjectSpec, TriggerSpec } from '../../autoscaler/keda_policy.ts';
import { type KpaSpec, kpaPolicy } from '../../autoscaler/kpa_policy.ts';
import { UNBOUNDED_REPLICAS } from '../defaults.ts';
import { parseDuration } from '../duration.ts';
import type { ScalingSpec, SignalTarget, TriggerQuery } from '../fleet_spec.ts';
import type { ReadObject } from '../objects.ts';
import type { ObjectContext, Path } from '../problems.ts';
import {
  ignored,
  int,
  list,
  object,
  oneOf,
  optional,
  type Quantity,
  quantity,
  type ReadBy,
  refused,
  required,
  str,
} from '../schema.ts';
import type { Predictor } from './inference_service.ts';
import { admitted, BEHAVIOR, kedaAnnotations, POLLING_INTERVAL_MS, reasonOf } from './triggers.ts';

export type Mode = 'standard' | 'knative';

const TARGET = object({
  type: optional(oneOf('Utilization', 'Value', 'AverageValue')),
  averageUtilization: optional(int({ min: 1 })),
  averageValue: optional(quantity()),
  value: optional(quantity()),
});

export const AUTO_SCALING = object({
  metrics: optional(
    list(
      object({
        type: required(oneOf('Resource', 'External', 'PodMetric')),
        resource: optional(object({ name: required(oneOf('cpu', 'memory')), target: required(TARGET) })),
        external: optional(
          object({
            metric: required(
              object({
                backend: required(oneOf('prometheus', 'graphite')),
                serverAddress: optional(str()),
                query: required(str()),
                namespace: ignored('there is one tenant'),
              }),
            ),
            target: required(TARGET),
            authenticationRef: ignored("the query is answered from the fleet's own metrics"),
          }),
        ),
        podmetric: refused('the OpenTelemetry scaler does not run here; use type External with backend prometheus'),
      }),
    ),
  ),
  behavior: optional(BEHAVIOR),
});

type AutoScaling = ReadBy<typeof AUTO_SCALING>;
type Metric = NonNullable<AutoScaling['metrics']>[number];

export interface ScalingScope {
  readonly cx: ObjectContext;
  readonly mode: Mode;
  readonly annotations: Readonly<Record<string, string>>;
  readonly read: ReadObject<unknown>;
}

export interface IsvcScaling {
  readonly scaling: ScalingSpec;
  readonly scaledByItself: string | null;
}

const PREDICTOR = ['spec', 'predictor'];
const CLASS = 'serving.kserve.io/autoscalerClass';
const CLASSES = ['hpa', 'keda', 'external', 'none'];

export function isvcScaling(predictor: Predictor, scope: ScalingScope): IsvcScaling {
  const { cx, mode, annotations } = scope;
  const { minReplicas, maxReplicas } = predictor;
  if (minReplicas !== null && maxReplicas && minReplicas > maxReplicas) {
    cx.error([...PREDICTOR, 'maxReplicas'], `is ${maxReplicas}, below minReplicas ${minReplicas}`);
  }
  if (mode === 'knative') return { scaling: knative(predictor, scope), scaledByItself: 'Knative mode scales it' };
  const given = annotations[CLASS] ?? 'hpa';
  if (!CLASSES.includes(given))
    cx.error(
      ['metadata', 'annotations', CLASS],
      `is ${JSON.stringify(given)}; it must be one of ${CLASSES.join(', ')}`,
    );
  if (given === 'keda') return { scaling: keda(predictor, scope), scaledByItself: `its ${CLASS} is keda` };
  if (given === 'hpa') return { scaling: hpa(predictor, scope), scaledByItself: `its ${CLASS} is hpa` };
  noticeUnread(predictor, given, cx);
  const count = minReplicas ?? 1;
  const scaling: ScalingSpec = { minReplicas: count, maxReplicas: count, standby: 0, rule: { kind: 'fixed' } };
  return { scaling, scaledByItself: given === 'none' ? `its ${CLASS} is none` : null };
}

function noticeUnread(predictor: Predictor, given: string, cx: ObjectContext): void {
  for (const field of ['maxReplicas', 'scaleTarget', 'scaleMetric', 'scaleMetricType', 'autoScaling'] as const) {
    if (predictor[field] !== null) cx.notice([...PREDICTOR, field], `has no effect with ${CLASS} ${given}`);
  }
}

/** KServe's own HorizontalPodAutoscaler: never to zero, `behavior` written as an empty object whatever the file says. */
function hpa(predictor: Predictor, { cx, annotations }: ScalingScope): ScalingSpec {
  if (predictor.minReplicas === 0) {
    cx.notice(
      [...PREDICTOR, 'minReplicas'],
      `becomes 1 with ${CLASS} hpa, as on a cluster; keda or Knative mode go to zero`,
    );
  }
  if (predictor.autoScaling?.behavior) {
    cx.notice(
      [...PREDICTOR, 'autoScaling', 'behavior'],
      `is dropped by KServe with ${CLASS} hpa: the defaults of the API hold`,
    );
  }
  const minReplicas = Math.max(1, predictor.minReplicas ?? 1);
  const maxReplicas = Math.max(predictor.maxReplicas ?? 0, minReplicas);
  const metrics =
    predictor.autoScaling === null ? [legacyMetric(predictor, annotations, cx)] : hpaMetrics(predictor.autoScaling, cx);
  return { minReplicas, maxReplicas, standby: 0, rule: { kind: 'hpa', behavior: {}, metrics } };
}

const CPU_PERCENT = 80;

function resourceMetric(resource: 'cpu' | 'memory', target: number, utilization: boolean): SignalTarget {
  const query: TriggerQuery = { kind: 'resource', resource, target, utilization };
  return { query, metricType: utilization ? 'Utilization' : 'AverageValue', target };
}

/** scaleMetric and scaleTarget, or the annotations from before them. */
function legacyMetric(predictor: Predictor, annotations: ScalingScope['annotations'], cx: ObjectContext): SignalTarget {
  const metric = predictor.scaleMetric ?? annotations['serving.kserve.io/metrics'] ?? 'cpu';
  const written = annotations['serving.kserve.io/targetUtilizationPercentage'];
  const target = predictor.scaleTarget ?? (written === undefined ? null : Number(written));
  if (metric !== 'cpu' && metric !== 'memory') {
    cx.error([...PREDICTOR, 'scaleMetric'], `${metric} needs Knative mode; cpu and memory are for ${CLASS} hpa`);
    return resourceMetric('cpu', CPU_PERCENT, true);
  }
  if (target !== null && !(Number.isInteger(target) && target > 0)) {
    cx.error(
      ['metadata', 'annotations', 'serving.kserve.io/targetUtilizationPercentage'],
      'must be a whole number above 0',
    );
  }
  if (metric === 'memory' && target === null) cx.error([...PREDICTOR, 'scaleMetric'], 'memory needs a scaleTarget');
  return resourceMetric(metric, target ?? CPU_PERCENT, true);
}

function hpaMetrics({ metrics }: AutoScaling, cx: ObjectContext): SignalTarget[] {
  const found = (metrics ?? []).flatMap((metric, i) => {
    const path = [...PREDICTOR, 'autoScaling', 'metrics', i];
    if (metric.type === 'Resource') return resourceOf(metric, path, cx);
    cx.error([...path, 'type'], `${metric.type} needs ${CLASS} keda; hpa reads cpu and memory only`);
    return [];
  });
  return found.length > 0 ? found : [resourceMetric('cpu', CPU_PERCENT, true)];
}

function resourceOf({ resource }: Metric, path: Path, cx: ObjectContext): SignalTarget[] {
  if (resource === null) {
    cx.error(path, 'resource is missing: type Resource needs it');
    return [];
  }
  const { name, target } = resource;
  const at = [...path, 'resource', 'target'];
  // Of cpu KServe's HorizontalPodAutoscaler knows utilisation alone.
  const type = target.type ?? 'Utilization';
  if (type === 'Value') {
    cx.error(at, 'Value is not for cpu and memory; use Utilization or AverageValue');
    return [];
  }
  const given = type === 'Utilization' ? target.averageUtilization : (target.averageValue?.value ?? null);
  const value = given ?? (type === 'Utilization' && name === 'cpu' ? CPU_PERCENT : null);
  if (value === null || value <= 0) {
    cx.error(at, `${type === 'Utilization' ? 'averageUtilization' : 'averageValue'} is missing or 0`);
    return [];
  }
  return [resourceMetric(name, value, type === 'Utilization')];
}

const WINDOWS = { scaleUp: 0, scaleDown: 300 };

/** KServe's ScaledObject: of `behavior` the two windows, of the rest KEDA's defaults. */
function keda(predictor: Predictor, { cx, annotations }: ScalingScope): ScalingSpec {
  const minReplicas = predictor.minReplicas ?? 1;
  const maxReplicas = Math.max(predictor.maxReplicas ?? 0, minReplicas);
  const path = [...PREDICTOR, 'autoScaling'];
  if (predictor.scaleMetric !== null || predictor.scaleTarget !== null) {
    const field = predictor.scaleMetric === null ? 'scaleTarget' : 'scaleMetric';
    cx.error([...PREDICTOR, field], `gives no trigger with ${CLASS} keda; use autoScaling.metrics`);
  }
  const metrics = predictor.autoScaling?.metrics ?? [];
  if (metrics.length === 0 && !cx.gives([...path, 'metrics', 0]))
    cx.error(path, `is empty: ${CLASS} keda needs metrics`);
  const triggers = metrics.flatMap((metric, i) => kedaTrigger(metric, [...path, 'metrics', i], cx));
  const object: ScaledObjectSpec = {
    minReplicaCount: minReplicas,
    maxReplicaCount: maxReplicas,
    triggers: triggers.map(({ spec }) => spec),
  };
  if (triggers.length > 0) admitted(object, { cx, path });
  return {
    minReplicas,
    maxReplicas,
    standby: 0,
    rule: {
      kind: 'keda',
      pollingIntervalMs: POLLING_INTERVAL_MS,
      object,
      behavior: lossyBehavior(predictor.autoScaling, [...path, 'behavior'], cx),
      annotations: kedaAnnotations(annotations),
      queries: triggers.map(({ query }) => query),
    },
  };
}

function lossyBehavior(autoScaling: AutoScaling | null, path: Path, cx: ObjectContext): BehaviorSpec {
  const given = autoScaling?.behavior ?? null;
  const direction = (name: 'scaleUp' | 'scaleDown') => {
    const rules = given?.[name] ?? null;
    for (const field of ['policies', 'selectPolicy', 'tolerance'] as const) {
      if (rules?.[field] != null) {
        cx.notice(
          [...path, name, field],
          `is dropped by KServe with ${CLASS} keda; ${CLASS} external and a ScaledObject keep it`,
        );
      }
    }
    return { stabilizationWindowSeconds: rules?.stabilizationWindowSeconds ?? WINDOWS[name] };
  };
  return { scaleUp: direction('scaleUp'), scaleDown: direction('scaleDown') };
}

interface KedaPart {
  readonly spec: TriggerSpec;
  readonly query: TriggerQuery;
}

function kedaTrigger(metric: Metric, path: Path, cx: ObjectContext): KedaPart[] {
  if (metric.type === 'Resource') {
    return resourceOf(metric, path, cx).map(({ query, target }) => {
      const resource = query.kind === 'resource' ? query.resource : 'cpu';
      return { spec: { type: resource, threshold: target }, query };
    });
  }
  const { external } = metric;
  if (metric.type !== 'External' || external === null) {
    cx.error(
      path,
      `${metric.type === 'External' ? 'external is missing: type External needs it' : 'type PodMetric is not supported'}`,
    );
    return [];
  }
  if (external.metric.backend !== 'prometheus') {
    cx.error([...path, 'external', 'metric', 'backend'], 'only prometheus is supported');
    return [];
  }
  const threshold = externalThreshold(external.target.value, [...path, 'external', 'target'], cx);
  if (external.target.type !== null && external.target.type !== 'AverageValue') {
    cx.notice(
      [...path, 'external', 'target', 'type'],
      'is dropped by KServe: the target is an average value a replica',
    );
  }
  if (external.metric.serverAddress !== null) {
    cx.notice([...path, 'external', 'metric', 'serverAddress'], "the query is answered from the fleet's own metrics");
  }
  const query: TriggerQuery = { kind: 'promql', query: external.metric.query, ignoreNullValues: true };
  return threshold === null ? [] : [{ spec: { type: 'prometheus', threshold }, query }];
}

/** KServe writes six decimals. */
function externalThreshold(value: Quantity | null, path: Path, cx: ObjectContext): number | null {
  if (value !== null) return Number(value.value.toFixed(6));
  cx.error(path, 'value is missing: KServe makes the threshold of it');
  return null;
}

const KNATIVE = 'autoscaling.knative.dev/';

type Setting = Exclude<keyof KpaSpec, 'metric' | 'scaleToZero'>;

/** Annotations of Knative's autoscaler -> settings; `seconds`: written as a duration. */
const SETTINGS: Readonly<Record<string, { readonly field: Setting; readonly seconds?: true }>> = {
  target: { field: 'target' },
  'target-utilization-percentage': { field: 'targetUtilizationPercentage' },
  window: { field: 'windowS', seconds: true },
  'panic-threshold-percentage': { field: 'panicThresholdPercentage' },
  'scale-down-delay': { field: 'scaleDownDelayS', seconds: true },
  'scale-to-zero-pod-retention-period': { field: 'scaleToZeroPodRetentionPeriodS', seconds: true },
  'initial-scale': { field: 'initialScale' },
  'activation-scale': { field: 'activationScale' },
  'target-burst-capacity': { field: 'targetBurstCapacity' },
};

function knative(predictor: Predictor, { cx, annotations }: ScalingScope): ScalingSpec {
  const { scaleMetric } = predictor;
  if (scaleMetric === 'cpu' || scaleMetric === 'memory') {
    cx.error([...PREDICTOR, 'scaleMetric'], `${scaleMetric} is not scaled by in Knative mode; concurrency and rps are`);
  }
  if (predictor.autoScaling !== null) cx.notice([...PREDICTOR, 'autoScaling'], 'has no effect in Knative mode');
  const minScale = predictor.minReplicas ?? 1;
  const maxScale = predictor.maxReplicas ?? 0;
  const policy: Partial<KpaSpec> = {
    ...knativeAnnotations(annotations, cx),
    metric: scaleMetric === 'rps' ? 'rps' : 'concurrency',
    containerConcurrency: predictor.containerConcurrency ?? 0,
    ...(predictor.scaleTarget !== null && { target: predictor.scaleTarget }),
    minScale,
    maxScale,
  };
  try {
    kpaPolicy(policy);
  } catch (error) {
    if (!(error instanceof TokenmillError)) throw error;
    cx.error(PREDICTOR, reasonOf(error));
  }
  return {
    minReplicas: minScale,
    maxReplicas: maxScale || UNBOUNDED_REPLICAS,
    standby: 0,
    rule: { kind: 'kpa', policy },
  };
}

function knativeAnnotations(annotations: ScalingScope['annotations'], cx: ObjectContext): Partial<KpaSpec> {
  const settings: Partial<Record<Setting, number>> = {};
  for (const [key, text] of Object.entries(annotations)) {
    if (!key.startsWith(KNATIVE)) continue;
    const path = ['metadata', 'annotations', key];
    const name = key.slice(KNATIVE.length);
    const setting = Object.hasOwn(SETTINGS, name) ? SETTINGS[name] : undefined;
    if (name === 'class' && !text.startsWith('kpa'))
      cx.error(path, `${text} is not supported; kpa.autoscaling.knative.dev is`);
    if (setting === undefined) {
      if (name !== 'class') cx.notice(path, 'is not read; replicas and metric are fields of the predictor');
      continue;
    }
    const ms = setting.seconds ? parseDuration(text) : null;
    const value = setting.seconds
      ? ms === null
        ? Number.NaN
        : ms / 1000
      : text.trim() === ''
        ? Number.NaN
        : Number(text);
    if (Number.isFinite(value)) settings[setting.field] = value;
    else
      cx.error(
        path,
        `is ${JSON.stringify(text)}; it must be ${setting.seconds ? 'a duration such as 60s' : 'a number'}`,
      );
  }
  return settings;
}
