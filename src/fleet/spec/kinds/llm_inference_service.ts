/** LLMInferenceService `serving.kserve.io` v1alpha1 and v1alpha2: the parts of one process a replica. */
import { ROLLOUT, TRAFFIC } from '../defaults.ts';
import type { RouteSpec, ScalingSpec, ServiceSpec } from '../fleet_spec.ts';
import type { Kind, ReadObject } from '../objects.ts';
import type { ObjectContext } from '../problems.ts';
import {
  any,
  bool,
  countOrPercent,
  type Field,
  ignored,
  int,
  list,
  map,
  object,
  oneOf,
  optional,
  type ReadBy,
  refused,
  required,
  str,
} from '../schema.ts';
import type { ServiceDraft } from '../service_draft.ts';
import { placeOf } from '../storage.ts';
import { CONTAINER, type ContainerDraft, type ContainerScope, containerDraft, POD_FIELDS } from './container.ts';
import type { ServiceScope } from './inference_service.ts';
import { OBJECT } from './metadata.ts';
import { type Destinations, ROUTE_SPEC, routeSpec } from './routing.ts';
import { replicaTemplate } from './template.ts';
import { KEDA_FIELDS, kedaScaling } from './triggers.ts';

const ONE_PROCESS = 'a model runs in one process on one machine';
const OWN_PICKER = 'the gateway picks the replicas itself';

/** Switches a default on by being there, which is on here anyway. */
const switchedOn = (): Field<unknown> => ({ type: any(), use: 'optional', doc: '' });

const texts = () => optional(map(str({ allowEmpty: true })));
const ranks = () => optional(int({ min: 1 }));

const SPEC = object({
  model: required(
    object({
      uri: required(str()),
      name: optional(str()),
      lora: refused('adapters are not loaded'),
      confidential: refused('encrypted models cannot be opened here'),
      criticality: optional(oneOf('Critical', 'Standard', 'Sheddable')),
    }),
  ),
  replicas: optional(int({ min: 0 })),
  scaling: optional(
    object({
      minReplicas: optional(int({ min: 1 })),
      maxReplicas: required(int({ min: 1 })),
      keda: optional(object(KEDA_FIELDS)),
      wva: refused('the workload variant autoscaler does not run here; use scaling.keda'),
    }),
  ),
  parallelism: optional(
    object({
      tensor: ranks(),
      pipeline: ranks(),
      data: ranks(),
      dataLocal: ranks(),
      dataRPCPort: ignored('there is one rank'),
      expert: refused(ONE_PROCESS),
    }),
  ),
  template: optional(
    object({
      ...POD_FIELDS,
      containers: optional(list(CONTAINER)),
      ephemeralContainers: ignored('nothing is run beside a replica'),
    }),
  ),
  labels: texts(),
  annotations: texts(),
  rolloutStrategy: optional(
    object({ maxSurge: optional(countOrPercent()), maxUnavailable: optional(countOrPercent()) }),
  ),
  router: optional(
    object({
      route: optional(
        object({
          http: optional(
            object({ spec: optional(ROUTE_SPEC), refs: optional(list(object({ name: required(str()) }))) }),
          ),
          group: refused('give the services weights in an HTTPRoute'),
          weight: refused('give the services weights in an HTTPRoute'),
        }),
      ),
      gateway: switchedOn(),
      ingress: ignored('there is one gateway'),
      scheduler: optional(
        object({
          config: ignored(OWN_PICKER),
          pool: ignored(OWN_PICKER),
          template: ignored(OWN_PICKER),
          tokenizer: ignored(OWN_PICKER),
          replicas: ignored(OWN_PICKER),
          labels: ignored(OWN_PICKER),
          annotations: ignored(OWN_PICKER),
        }),
      ),
    }),
  ),
  storageInitializer: optional(object({ enabled: optional(bool()) })),
  tracing: ignored('replicas send no traces'),
  kvCacheOffloading: refused('the KV cache is in memory only'),
  prefill: refused(`prefill and decode are not split: ${ONE_PROCESS}`),
  worker: refused(ONE_PROCESS),
  baseRefs: refused('LLMInferenceServiceConfig is not read; write its fields here'),
});

const table = object({ ...OBJECT, spec: required(SPEC) });
type LlmService = ReadBy<typeof table>;

export const LLM_INFERENCE_SERVICE: Kind<LlmService> = {
  group: 'serving.kserve.io',
  versions: ['v1alpha2', 'v1alpha1'],
  kind: 'LLMInferenceService',
  table,
};

export interface LlmServices {
  readonly drafts: readonly ServiceDraft[];
  /** Once it is known where names lead. */
  readonly routes: (destinations: Destinations) => RouteSpec[];
}

export function readLlmServices(scope: ServiceScope): LlmServices {
  const found = scope.objects.read(LLM_INFERENCE_SERVICE);
  const drafts = found.map((read) => readOne(read, scope));
  return { drafts, routes: (destinations) => found.flatMap((read) => routeOf(read, scope, destinations)) };
}

/** The preset gives 60 s. */
const GRACE_MS = 60_000;

const PRIORITIES = { Critical: 1, Standard: 0, Sheddable: -1 } as const;

function readOne(read: ReadObject<LlmService>, scope: ServiceScope): ServiceDraft {
  const { cx, namespace, name, value } = read;
  const { model, template, labels, router } = value.spec;
  checkParallelism(value.spec.parallelism, cx);
  const container = mainContainer(read, { cx, namespace, name, config: scope.config });
  const place = placeOf(model.uri, cx.at.file, namespace, scope.claims);
  if ('error' in place) cx.error(['spec', 'model', 'uri'], `${JSON.stringify(model.uri)}: ${place.error}`);
  else if (!/^(hf|pvc):/.test(model.uri)) cx.notice(['spec', 'model', 'uri'], 'is understood here and not by KServe');
  const path = ['spec', 'template', 'containers', container.index];
  const result = replicaTemplate(
    {
      container: container.draft,
      place: 'error' in place ? { model: model.uri, args: [] } : place,
      argsPath: [...path, 'args'],
      resourcesPath: [...path, 'resources'],
      modelPath: ['spec', 'model', 'uri'],
      graceSeconds: template?.terminationGracePeriodSeconds ?? null,
      graceDefaultMs: GRACE_MS,
    },
    { cx, namespace, name, config: scope.config },
  );
  const served = model.name ?? name;
  const { rolloutStrategy } = value.spec;
  if (isZero(rolloutStrategy?.maxSurge) && isZero(rolloutStrategy?.maxUnavailable)) {
    cx.error(['spec', 'rolloutStrategy'], 'maxSurge and maxUnavailable cannot both be 0');
  }
  const { scaling, scaledByItself } = scalingOf(read, scope);
  const service: ServiceSpec = {
    id: `${namespace}/${name}`,
    kind: 'LLMInferenceService',
    at: cx.at,
    models: [...new Set([served, `publishers/${namespace}/models/${served}`, ...result.names])],
    template: result.template,
    canaries: [],
    canaryTrafficPercent: null,
    scaling,
    rollout: {
      ...ROLLOUT,
      maxSurge: rolloutStrategy?.maxSurge ?? ROLLOUT.maxSurge,
      maxUnavailable: rolloutStrategy?.maxUnavailable ?? ROLLOUT.maxUnavailable,
    },
    traffic: { ...TRAFFIC, priority: PRIORITIES[model.criticality ?? 'Standard'] },
    stopped: value.metadata.annotations?.['serving.kserve.io/stop'] === 'true',
    labels: {
      ...labels,
      'app.kubernetes.io/name': name,
      'app.kubernetes.io/part-of': 'llminferenceservice',
      'app.kubernetes.io/component': 'llminferenceservice-workload',
      'kserve.io/component': 'workload',
    },
  };
  return {
    service,
    cx,
    path: [],
    namespace,
    deployment: `${name}-kserve`,
    canaryDeployments: [],
    addresses: [`${name}-kserve-workload-svc`],
    pools: router?.scheduler == null ? [] : [`${name}-inference-pool`],
    scaledByItself,
  };
}

const isZero = (value: number | { readonly percent: number } | null | undefined) =>
  value === 0 || (typeof value === 'object' && value?.percent === 0);

function checkParallelism(parallelism: LlmService['spec']['parallelism'], cx: ObjectContext): void {
  for (const field of ['tensor', 'pipeline', 'data', 'dataLocal'] as const) {
    const asked = parallelism?.[field] ?? 1;
    if (asked > 1) cx.error(['spec', 'parallelism', field], `is ${asked}: ${ONE_PROCESS}; replicas share the load`);
  }
}

interface MainContainer {
  readonly draft: ContainerDraft;
  readonly index: number;
}

function mainContainer({ cx, value }: ReadObject<LlmService>, scope: ContainerScope): MainContainer {
  const containers = value.spec.template?.containers ?? [];
  const index = containers.findIndex(({ name }) => name === 'main');
  for (const [i, other] of containers.entries()) {
    if (i !== index) cx.notice(['spec', 'template', 'containers', i], `container ${other.name} is not run; main is`);
  }
  const path = ['spec', 'template', 'containers', Math.max(0, index)];
  const empty = Object.fromEntries(Object.keys(CONTAINER.shape.fields ?? {}).map((field) => [field, null]));
  const main = containers[index] ?? (empty as unknown as (typeof containers)[number]);
  return { draft: containerDraft(main, path, scope), index: Math.max(0, index) };
}

function scalingOf(
  read: ReadObject<LlmService>,
  { objects }: ServiceScope,
): Pick<ServiceDraft, 'scaledByItself'> & { scaling: ScalingSpec } {
  const { cx, namespace, value } = read;
  const { replicas, scaling } = value.spec;
  const count = replicas ?? 1;
  const fixed: ScalingSpec = { minReplicas: count, maxReplicas: count, standby: 0, rule: { kind: 'fixed' } };
  if (scaling === null) return { scaling: fixed, scaledByItself: replicas === null ? null : 'its replicas are given' };
  const path = ['spec', 'scaling'];
  if (replicas !== null) cx.error(['spec', 'replicas'], 'and scaling are both given; give one');
  const min = scaling.minReplicas ?? 1;
  if (min > scaling.maxReplicas)
    cx.error([...path, 'maxReplicas'], `is ${scaling.maxReplicas}, below minReplicas ${min}`);
  if (scaling.keda === null) {
    if (!cx.gives([...path, 'keda'])) cx.error(path, 'keda is missing: it says what to scale by');
    return { scaling: fixed, scaledByItself: 'it has scaling' };
  }
  const annotations = value.spec.annotations ?? {};
  const scope = { cx, path: [...path, 'keda'], namespace, objects };
  const keda = kedaScaling(scaling.keda, { min, max: scaling.maxReplicas, annotations }, scope);
  return { scaling: keda ?? fixed, scaledByItself: 'it has scaling' };
}

/** `router.route`: the owner's HTTPRoute, or the paths that KServe gives every service. */
function routeOf(read: ReadObject<LlmService>, { objects }: ServiceScope, destinations: Destinations): RouteSpec[] {
  const { cx, namespace, name, value } = read;
  const route = value.spec.router?.route ?? null;
  if (route === null) return [];
  const id = `${namespace}/${name}-kserve-route`;
  const { refs, spec } = route.http ?? { refs: null, spec: null };
  const path = ['spec', 'router', 'route', 'http'];
  for (const [i, ref] of (refs ?? []).entries()) {
    if (!objects.has('HTTPRoute', namespace, ref.name))
      cx.error([...path, 'refs', i], `there is no HTTPRoute ${namespace}/${ref.name}`);
  }
  if (spec !== null) return [routeSpec(id, spec, [...path, 'spec'], { cx, namespace, objects, destinations })];
  if (refs?.length) return [];
  const service = `${namespace}/${name}`;
  const prefixes = [`/${namespace}/${name}`, `/publishers/${namespace}/models/${value.spec.model.name ?? name}`];
  const rules = prefixes.map((prefix) => ({
    matches: [{ path: { type: 'PathPrefix' as const, value: prefix }, method: null, headers: [], query: [] }],
    backends: [{ service, weight: 1 }],
    setHeaders: {},
    removeHeaders: [],
    pathPrefixTo: '/',
    mirrorTo: null,
    requestTimeoutMs: 0,
  }));
  return [{ id, at: cx.at, hostnames: [], rules }];
}
