/** Objects that scale a service of another object: ScaledObject (keda.sh/v1alpha1), HorizontalPodAutoscaler (autoscaling/v2). */
import { nearestName } from '../../../base/nearest.ts';
import type { ScalingSpec, SignalTarget } from '../fleet_spec.ts';
import type { Kind, Objects, ReadObject } from '../objects.ts';
import type { ObjectContext, Path } from '../problems.ts';
import { int, list, object, oneOf, optional, quantity, type ReadBy, refused, required, str } from '../schema.ts';
import { type ServiceDraft, withScaling } from '../service_draft.ts';
import { OBJECT } from './metadata.ts';
import { BEHAVIOR, behaviorSpec, KEDA_FIELDS, kedaScaling } from './triggers.ts';

const scaledObjectTable = object({
  ...OBJECT,
  spec: required(
    object({
      scaleTargetRef: required(
        object({
          name: required(str()),
          apiVersion: optional(str()),
          kind: optional(str()),
          envSourceContainerName: optional(str()),
        }),
      ),
      minReplicaCount: optional(int({ min: 0 })),
      maxReplicaCount: optional(int({ min: 1 })),
      ...KEDA_FIELDS,
    }),
  ),
});

export const SCALED_OBJECT: Kind<ReadBy<typeof scaledObjectTable>> = {
  group: 'keda.sh',
  versions: ['v1alpha1'],
  kind: 'ScaledObject',
  table: scaledObjectTable,
};

const HPA_TARGET = object({
  type: required(oneOf('Utilization', 'AverageValue', 'Value')),
  averageUtilization: optional(int({ min: 1 })),
  averageValue: optional(quantity()),
  value: optional(quantity()),
});

const RESOURCE_METRIC = {
  name: required(oneOf('cpu', 'memory')),
  target: required(HPA_TARGET),
};

const NO_ADAPTER = 'there is no metrics adapter; use a ScaledObject with a prometheus trigger';

const hpaTable = object({
  ...OBJECT,
  spec: required(
    object({
      scaleTargetRef: required(object({ name: required(str()), kind: required(str()), apiVersion: optional(str()) })),
      minReplicas: optional(int({ min: 1 })),
      maxReplicas: required(int({ min: 1 })),
      metrics: optional(
        list(
          object({
            type: required(oneOf('Resource', 'ContainerResource', 'Pods', 'Object', 'External')),
            resource: optional(object(RESOURCE_METRIC)),
            containerResource: optional(object({ ...RESOURCE_METRIC, container: required(str()) })),
            pods: refused(NO_ADAPTER),
            object: refused(NO_ADAPTER),
            external: refused(NO_ADAPTER),
          }),
        ),
      ),
      behavior: optional(BEHAVIOR),
    }),
  ),
});

export const HORIZONTAL_POD_AUTOSCALER: Kind<ReadBy<typeof hpaTable>> = {
  group: 'autoscaling',
  versions: ['v2'],
  kind: 'HorizontalPodAutoscaler',
  table: hpaTable,
};

/** The services with what their scalers say put in. */
export function applyScalers(drafts: readonly ServiceDraft[], objects: Objects): ServiceDraft[] {
  const scaled = new Map(drafts.map((draft) => [draft.service.id, draft]));
  const takenBy = new Map<string, string>();
  const attach = (
    read: ReadObject<unknown>,
    target: string,
    kind: string | null,
    scaling: () => ScalingSpec | null,
  ) => {
    const spec = scaling();
    const draft = targetOf(read, target, kind, drafts, objects);
    if (draft === null) return;
    const { id } = draft.service;
    const first = takenBy.get(id);
    if (first !== undefined) read.cx.error(TARGET, `${target} is scaled by ${first} already; a service has one scaler`);
    takenBy.set(id, read.cx.object);
    if (spec !== null && !read.cx.failed) scaled.set(id, withScaling(draft, spec));
  };
  for (const read of objects.read(SCALED_OBJECT)) {
    const { spec, metadata } = read.value;
    attach(read, spec.scaleTargetRef.name, spec.scaleTargetRef.kind, () =>
      kedaScaling(
        spec,
        { min: spec.minReplicaCount, max: spec.maxReplicaCount, annotations: metadata.annotations ?? {} },
        { cx: read.cx, path: ['spec'], namespace: read.namespace, objects },
      ),
    );
  }
  for (const read of objects.read(HORIZONTAL_POD_AUTOSCALER)) {
    const { scaleTargetRef } = read.value.spec;
    attach(read, scaleTargetRef.name, scaleTargetRef.kind, () => hpaScaling(read));
  }
  return [...scaled.values()];
}

const TARGET = ['spec', 'scaleTargetRef', 'name'];

function targetOf(
  { cx, namespace }: ReadObject<unknown>,
  target: string,
  kind: string | null,
  drafts: readonly ServiceDraft[],
  objects: Objects,
): ServiceDraft | null {
  const near = drafts.filter((draft) => draft.namespace === namespace);
  const found = near.find((draft) => draft.deployment === target);
  if (kind !== null && kind !== 'Deployment') {
    cx.error(
      ['spec', 'scaleTargetRef', 'kind'],
      `${kind} is not scaled here; a Deployment is, that of a service: ${names(near)}`,
    );
    return null;
  }
  if (found !== undefined) {
    if (found.scaledByItself === null) return found;
    cx.error(
      TARGET,
      `${target} cannot be scaled by this: ${found.scaledByItself}. On a cluster two scalers would fight`,
    );
    return null;
  }
  if (near.some((draft) => draft.canaryDeployments.includes(target))) {
    cx.error(TARGET, `${target} is a canary, which has a share of its service's replicas`);
  } else if (!belongsToBroken(target, namespace, objects)) {
    const guess = nearestName(
      target,
      near.map(({ deployment }) => deployment),
    );
    cx.error(TARGET, `there is no ${target}; ${guess ? `did you mean ${guess}?` : `there are ${names(near)}`}`);
  }
  return null;
}

const names = (drafts: readonly ServiceDraft[]) =>
  drafts.map(({ deployment }) => deployment).join(', ') || 'none in this namespace';

/** Its service could not be read, which was reported. */
function belongsToBroken(target: string, namespace: string, objects: Objects): boolean {
  const stem = target.replace(/-predictor$|-kserve$/, '');
  return objects.has('InferenceService', namespace, stem) || objects.has('LLMInferenceService', namespace, stem);
}

const CPU_PERCENT = 80;

function hpaScaling({ cx, value }: ReadObject<ReadBy<typeof hpaTable>>): ScalingSpec | null {
  const { minReplicas, maxReplicas, metrics, behavior } = value.spec;
  const least = minReplicas ?? 1;
  if (least > maxReplicas) cx.error(['spec', 'maxReplicas'], `is ${maxReplicas}, below minReplicas ${least}`);
  const targets = (metrics ?? []).flatMap(({ type, resource, containerResource }, i) => {
    const path = ['spec', 'metrics', i];
    const metric = type === 'Resource' ? resource : containerResource;
    if (type !== 'Resource' && type !== 'ContainerResource') {
      cx.error([...path, 'type'], `${type} is not supported: ${NO_ADAPTER}`);
      return [];
    }
    if (metric === null) {
      cx.error(path, `${type === 'Resource' ? 'resource' : 'containerResource'} is missing: type ${type} needs it`);
      return [];
    }
    return resourceTarget(
      metric.name,
      metric.target,
      [...path, type === 'Resource' ? 'resource' : 'containerResource', 'target'],
      cx,
    );
  });
  const cpu: SignalTarget = {
    query: { kind: 'resource', resource: 'cpu', target: CPU_PERCENT, utilization: true },
    metricType: 'Utilization',
    target: CPU_PERCENT,
  };
  return {
    minReplicas: least,
    maxReplicas,
    standby: 0,
    // Without metrics the API server fills in 80 percent of the CPU.
    rule: { kind: 'hpa', behavior: behaviorSpec(behavior), metrics: targets.length > 0 ? targets : [cpu] },
  };
}

function resourceTarget(
  resource: 'cpu' | 'memory',
  { type, averageUtilization, averageValue }: ReadBy<typeof HPA_TARGET>,
  path: Path,
  cx: ObjectContext,
): SignalTarget[] {
  const target = type === 'Utilization' ? averageUtilization : (averageValue?.value ?? null);
  if (type === 'Value' || target === null || target <= 0) {
    const wanted = type === 'Utilization' ? 'averageUtilization' : 'type AverageValue with averageValue';
    cx.error(path, `must have ${wanted} above 0`);
    return [];
  }
  const utilization = type === 'Utilization';
  return [{ query: { kind: 'resource', resource, target, utilization }, metricType: type, target }];
}
