/** InferenceService `serving.kserve.io/v1beta1` (KServe 0.20): predictor, canaries, both deployment modes. */
import { KNATIVE_ROLLOUT, ROLLOUT, TRAFFIC } from '../defaults.ts';
import type { CanarySpec, RolloutSpec, ServiceSpec } from '../fleet_spec.ts';
import type { Kind, Objects, ReadObject } from '../objects.ts';
import type { ObjectContext, Path } from '../problems.ts';
import {
  countOrPercent,
  ignored,
  ignoredAll,
  int,
  list,
  map,
  object,
  oneOf,
  optional,
  type ReadBy,
  refused,
  refusedAll,
  required,
  str,
} from '../schema.ts';
import type { ServiceDraft } from '../service_draft.ts';
import { type Claims, type ModelPlace, placeOf } from '../storage.ts';
import {
  CONTAINER,
  CONTAINER_FIELDS,
  type ConfigSource,
  type ContainerDraft,
  type ContainerScope,
  type ContainerValue,
  containerDraft,
  mergeContainers,
  POD_FIELDS,
} from './container.ts';
import { AUTO_SCALING, isvcScaling, type Mode } from './inference_service_scaling.ts';
import { OBJECT } from './metadata.ts';
import { chooseRuntime, fillTemplate, type Runtime, type TemplateMeta } from './serving_runtime.ts';
import { MODEL_MOUNT, replicaTemplate, type TemplateResult } from './template.ts';

const NAME = /^[a-z]([-a-z0-9]*[a-z0-9])?$/;

const MODEL_FIELDS = {
  ...CONTAINER_FIELDS,
  name: ignored('a replica has one container'),
  storageUri: optional(str()),
  storage: refused('credentials of object stores are not read here; use storageUri'),
  protocolVersion: optional(str()),
  runtimeVersion: ignored('replicas run this version of Tokenmill'),
  confidential: refused('encrypted models cannot be opened here'),
};

const MODEL = object({
  ...MODEL_FIELDS,
  modelFormat: required(object({ name: required(str()), version: optional(str()) })),
  runtime: optional(str()),
});

const FRAMEWORKS = [
  'sklearn',
  'xgboost',
  'tensorflow',
  'pytorch',
  'triton',
  'onnx',
  'pmml',
  'lightgbm',
  'paddle',
] as const;

const PREDICTOR = object({
  ...POD_FIELDS,
  name: optional(str({ pattern: NAME, form: 'a name of small letters, digits and -' })),
  model: optional(MODEL),
  huggingface: optional(object(MODEL_FIELDS)),
  containers: optional(list(CONTAINER)),
  storageUris: optional(list(object({ uri: required(str()), mountPath: optional(str()) }), { max: 1 })),
  storageContainerName: ignored('models are fetched by Tokenmill itself'),
  minReplicas: optional(int({ min: 0 })),
  maxReplicas: optional(int({ min: 0 })),
  scaleTarget: optional(int({ min: 1 })),
  scaleMetric: optional(oneOf('cpu', 'memory', 'concurrency', 'rps')),
  scaleMetricType: optional(oneOf('Utilization', 'Value', 'AverageValue')),
  autoScaling: optional(AUTO_SCALING),
  containerConcurrency: optional(int({ min: 0 })),
  timeout: optional(int({ min: 0 })),
  canaryTrafficPercent: optional(int({ min: 0, max: 100 })),
  labels: optional(map(str({ allowEmpty: true }))),
  annotations: optional(map(str({ allowEmpty: true }))),
  deploymentStrategy: optional(
    object({
      type: optional(oneOf('RollingUpdate', 'Recreate')),
      rollingUpdate: optional(
        object({ maxSurge: optional(countOrPercent()), maxUnavailable: optional(countOrPercent()) }),
      ),
    }),
  ),
  ...ignoredAll(['logger', 'batcher'], 'there is no agent beside a replica; the engine batches by itself'),
  workerSpec: refused('a model runs in one process on one machine'),
  ...refusedAll(FRAMEWORKS, 'Tokenmill serves language models; use model with modelFormat huggingface or vLLM'),
});

export type Predictor = ReadBy<typeof PREDICTOR>;

const table = object({
  ...OBJECT,
  spec: required(
    object({
      predictor: required(PREDICTOR),
      canary: optional(
        list(object({ predictor: required(PREDICTOR), trafficPercent: required(int({ min: 0, max: 100 })) })),
      ),
      transformer: refused('only predictors run here'),
      explainer: refused('only predictors run here'),
    }),
  ),
});

type InferenceService = ReadBy<typeof table>;

export const INFERENCE_SERVICE: Kind<InferenceService> = {
  group: 'serving.kserve.io',
  versions: ['v1beta1'],
  kind: 'InferenceService',
  table,
};

export interface ServiceScope {
  readonly objects: Objects;
  readonly config: ConfigSource;
  readonly claims: Claims;
  readonly runtimes: readonly Runtime[];
}

const KSERVE = 'serving.kserve.io/';

const MODES: Readonly<Record<string, Mode>> = {
  Standard: 'standard',
  RawDeployment: 'standard',
  Knative: 'knative',
  Serverless: 'knative',
};

/** What a reader of the object needs again and again. */
interface Isvc extends ContainerScope {
  readonly read: ReadObject<InferenceService>;
  readonly scope: ServiceScope;
  readonly mode: Mode;
  readonly annotations: Readonly<Record<string, string>>;
}

export function readInferenceServices(scope: ServiceScope): ServiceDraft[] {
  return scope.objects.read(INFERENCE_SERVICE).map((read) => readOne(read, scope));
}

function readOne(read: ReadObject<InferenceService>, scope: ServiceScope): ServiceDraft {
  const { cx, namespace, name, value } = read;
  const { predictor } = value.spec;
  const given = value.metadata.annotations ?? {};
  const annotations = { ...given, ...predictor.annotations };
  const isvc: Isvc = { read, scope, cx, namespace, name, config: scope.config, annotations, mode: modeOf(given, cx) };
  if (!NAME.test(name))
    cx.error(['metadata', 'name'], 'must begin with a letter and have small letters, digits and - only');
  noticeAnnotations(given, cx);
  const stable = readTemplate(predictor, ['spec', 'predictor'], isvc);
  const { scaling, scaledByItself } = isvcScaling(predictor, isvc);
  const deployment = deploymentName(name, predictor.name);
  const canaries = readCanaries(isvc);
  const service: ServiceSpec = {
    id: `${namespace}/${name}`,
    kind: 'InferenceService',
    at: cx.at,
    models: stable.names.length > 0 ? stable.names : [name],
    template: stable.template,
    canaries,
    canaryTrafficPercent: isvc.mode === 'knative' ? predictor.canaryTrafficPercent : null,
    scaling,
    rollout: rolloutOf(predictor, isvc),
    traffic: predictor.timeout === null ? TRAFFIC : { ...TRAFFIC, idleTimeoutMs: predictor.timeout * 1000 },
    stopped: given[`${KSERVE}stop`] === 'true',
    labels: {
      ...stable.labels,
      app: `isvc.${deployment}`,
      'serving.kserve.io/inferenceservice': name,
      component: 'predictor',
    },
  };
  noticeModeFields(predictor, isvc);
  const canaryDeployments = canaries.map((canary) => deploymentName(name, canary.name));
  const addresses = [name, deployment];
  return { service, cx, path: [], namespace, deployment, canaryDeployments, addresses, pools: [], scaledByItself };
}

function deploymentName(name: string, predictor: string | null): string {
  return predictor === null ? `${name}-predictor` : `${name}-${predictor}-predictor`;
}

const MODE_PATH = ['metadata', 'annotations', `${KSERVE}deploymentMode`];

function modeOf(annotations: Readonly<Record<string, string>>, cx: ObjectContext): Mode {
  const written = annotations[`${KSERVE}deploymentMode`];
  if (written === undefined) {
    const text = `without the annotation ${KSERVE}deploymentMode KServe takes Knative mode, and so does this; Standard is the other`;
    cx.notice(['metadata', 'annotations'], text);
    return 'knative';
  }
  const mode = Object.hasOwn(MODES, written) ? MODES[written] : undefined;
  if (mode === undefined) cx.error(MODE_PATH, `is ${JSON.stringify(written)}; it must be Standard or Knative`);
  return mode ?? 'standard';
}

/** Annotations of KServe that are read somewhere. */
const READ = ['deploymentMode', 'autoscalerClass', 'stop', 'metrics', 'targetUtilizationPercentage'];

function noticeAnnotations(annotations: Readonly<Record<string, string>>, cx: ObjectContext): void {
  for (const key of Object.keys(annotations)) {
    const own = key.startsWith(KSERVE) && !READ.includes(key.slice(KSERVE.length));
    if (own || key === 'serving.knative.dev/rollout-duration') {
      cx.notice(['metadata', 'annotations', key], 'has no effect on one machine');
    }
  }
}

function noticeModeFields(predictor: Predictor, { cx, mode }: Isvc): void {
  const at = (field: string) => ['spec', 'predictor', field];
  if (mode === 'standard') {
    if (predictor.canaryTrafficPercent !== null) {
      cx.notice(
        at('canaryTrafficPercent'),
        'has no effect in Standard mode, on a cluster neither; spec.canary is what you want',
      );
    }
    if (predictor.containerConcurrency !== null)
      cx.notice(at('containerConcurrency'), 'has no effect in Standard mode');
  } else if (predictor.deploymentStrategy !== null) {
    cx.notice(at('deploymentStrategy'), 'has no effect in Knative mode');
  }
  if (predictor.timeout !== null) {
    cx.notice(at('timeout'), 'bounds the silence within a stream, not its length: long answers are not cut');
  }
}

function rolloutOf({ deploymentStrategy }: Predictor, { mode }: Isvc): RolloutSpec {
  if (mode === 'knative') return KNATIVE_ROLLOUT;
  const rolling = deploymentStrategy?.rollingUpdate;
  return {
    ...ROLLOUT,
    strategy: deploymentStrategy?.type === 'Recreate' ? 'recreate' : 'rolling',
    maxSurge: rolling?.maxSurge ?? ROLLOUT.maxSurge,
    maxUnavailable: rolling?.maxUnavailable ?? ROLLOUT.maxUnavailable,
  };
}

interface Implementation {
  readonly container: ContainerDraft;
  readonly path: Path;
  readonly storageUri: string | null;
  readonly storagePath: Path;
  /** It is there and could not be read, which was reported. */
  readonly broken?: boolean;
  readonly labels: Readonly<Record<string, string>>;
}

interface TemplateRead extends TemplateResult {
  readonly labels: Readonly<Record<string, string>>;
}

function readTemplate(predictor: Predictor, path: Path, isvc: Isvc): TemplateRead {
  const found = implementation(predictor, path, isvc);
  const given = predictor.storageUris?.[0];
  if (given && given.mountPath !== null && given.mountPath !== MODEL_MOUNT) {
    isvc.cx.error([...path, 'storageUris', 0, 'mountPath'], `the model of a replica is at ${MODEL_MOUNT}`);
  }
  if (given && found.storageUri !== null)
    isvc.cx.error([...path, 'storageUris'], 'and storageUri are both given; give one');
  const uri = given?.uri ?? found.storageUri;
  const storagePath = given ? [...path, 'storageUris', 0, 'uri'] : found.storagePath;
  const result = replicaTemplate(
    {
      container: found.container,
      place: uri === null ? (found.broken ? NOWHERE : null) : resolvePlace(uri, storagePath, isvc),
      argsPath: [...found.path, 'args'],
      resourcesPath: [...found.path, 'resources'],
      modelPath: uri === null ? found.path : storagePath,
      graceSeconds: predictor.terminationGracePeriodSeconds,
      graceDefaultMs: 30_000,
    },
    isvc,
  );
  return { ...result, labels: { ...found.labels, ...isvc.read.value.metadata.labels, ...predictor.labels } };
}

function resolvePlace(uri: string, path: Path, { cx, namespace, scope }: Isvc): ModelPlace {
  const place = placeOf(uri, cx.at.file, namespace, scope.claims);
  if ('error' in place) {
    cx.error(path, `${JSON.stringify(uri)}: ${place.error}`);
    return { model: uri, args: [] };
  }
  if (!uri.includes('://')) cx.notice(path, 'a plain folder is understood here and not by KServe');
  return place;
}

/** The one of `model`, `huggingface` and `containers` that is there, with its runtime put under it. */
function implementation(predictor: Predictor, path: Path, isvc: Isvc): Implementation {
  const { model, huggingface, containers } = predictor;
  const given = [model && 'model', huggingface && 'huggingface', containers?.length && 'containers'].filter(Boolean);
  if (given.length > 1) isvc.cx.error(path, `has ${given.join(' and ')}; give one of them`);
  if (model !== null) {
    const wanted = { runtime: model.runtime, format: model.modelFormat, protocol: model.protocolVersion };
    return withRuntime(model, wanted, [...path, 'model'], isvc);
  }
  if (huggingface !== null) {
    const wanted = {
      runtime: null,
      format: { name: 'huggingface', version: null },
      protocol: huggingface.protocolVersion,
    };
    return withRuntime(huggingface, wanted, [...path, 'huggingface'], isvc);
  }
  const at = Math.max(0, containers?.findIndex(({ name }) => name === 'kserve-container') ?? 0);
  const container = containers?.[at];
  const broken = ['model', 'huggingface', 'containers'].some((field) => isvc.cx.gives([...path, field]));
  if (container === undefined && !broken)
    isvc.cx.error(path, 'has no model; give model: {modelFormat: {name: huggingface}, storageUri: hf://...}');
  for (const [i, other] of (containers ?? []).entries()) {
    if (i !== at) isvc.cx.notice([...path, 'containers', i], `container ${other.name} is not run`);
  }
  const here = [...path, 'containers', at];
  const draft = container === undefined ? EMPTY : containerDraft(container, here, isvc);
  return {
    container: draft,
    path: here,
    storageUri: draft.env.get('STORAGE_URI') ?? null,
    storagePath: here,
    broken: container === undefined,
    labels: {},
  };
}

const NOWHERE: ModelPlace = { model: '', args: [] };

const EMPTY: ContainerDraft = {
  command: null,
  args: [],
  env: new Map(),
  requests: new Map(),
  limits: new Map(),
  readiness: null,
  liveness: null,
  startup: null,
  preStopMs: null,
};

type ModelValue = ContainerValue & { readonly storageUri: string | null };
interface WantedRuntime {
  readonly runtime: string | null;
  readonly format: { readonly name: string; readonly version: string | null };
  readonly protocol: string | null;
}

function withRuntime(model: ModelValue, wanted: WantedRuntime, path: Path, isvc: Isvc): Implementation {
  const { cx, name, namespace, scope, annotations, read } = isvc;
  const own = containerDraft(model, path, isvc);
  const result = { path, storageUri: model.storageUri, storagePath: [...path, 'storageUri'] };
  const runtime = chooseRuntime(scope.runtimes, { ...wanted, namespace });
  if ('error' in runtime) {
    cx.error([...path, wanted.runtime === null ? 'modelFormat' : 'runtime'], runtime.error);
    return { ...result, container: own, labels: {} };
  }
  const meta: TemplateMeta = { name, namespace, labels: read.value.metadata.labels ?? {}, annotations };
  const report = (text: string) => cx.error(path, `runtime ${runtime.name}: ${text}`);
  const base = containerDraft(fillTemplate(runtime.container, meta, report), path, isvc);
  return { ...result, container: mergeContainers(base, own), labels: runtime.spec.labels ?? {} };
}

const STABLE_ONLY = ['workerSpec', 'maxReplicas', 'scaleTarget', 'scaleMetric', 'autoScaling'] as const;

function readCanaries(isvc: Isvc): CanarySpec[] {
  const { cx, read, annotations } = isvc;
  const { predictor, canary } = read.value.spec;
  if (canary === null || canary.length === 0) return [];
  if (annotations[`${KSERVE}deploymentMode`] !== 'Standard') {
    cx.error(['spec', 'canary'], `needs the annotation ${KSERVE}deploymentMode: Standard, in exactly these letters`);
  }
  const sum = canary.reduce((total, { trafficPercent }) => total + trafficPercent, 0);
  if (sum > 100) cx.error(['spec', 'canary'], `the shares add up to ${sum} percent; 100 is all there is`);
  const names = new Set<string | null>([predictor.name]);
  return canary.map(({ predictor: own, trafficPercent }, i) => {
    const path = ['spec', 'canary', i, 'predictor'];
    if (own.name === null) cx.error(path, 'name is missing: a canary needs one of its own');
    else if (names.has(own.name))
      cx.error([...path, 'name'], `${own.name} is the name of another predictor of this object`);
    names.add(own.name);
    for (const field of STABLE_ONLY) {
      if (own[field] !== null)
        cx.error([...path, field], 'belongs to the stable predictor; a canary does not scale by itself');
    }
    if (own.minReplicas !== null && own.minReplicas > (predictor.minReplicas ?? 1)) {
      cx.error([...path, 'minReplicas'], `is above that of the stable predictor, ${predictor.minReplicas ?? 1}`);
    }
    const { template } = readTemplate(mergeOver(predictor, own), path, isvc);
    return { name: own.name ?? '', template, percent: trafficPercent, minReplicas: own.minReplicas };
  });
}

/** A copy of `base` with what `over` says; lists are replaced as a whole. */
function mergeOver<T>(base: T, over: T): T {
  if (over === null) return base;
  if (!isRecord(base) || !isRecord(over)) return over;
  const merged: Record<string, unknown> = Object.assign(Object.create(null), base);
  for (const [key, value] of Object.entries(over)) merged[key] = mergeOver(merged[key] ?? null, value);
  return merged as T;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
