/** ServingRuntime and ClusterServingRuntime: what a service's container begins with, and which one fits a format (KServe 1.8). */
import { nearestName } from '../../../base/nearest.ts';
import type { Kind, Objects, ReadObject } from '../objects.ts';
import type { ObjectContext, Path } from '../problems.ts';
import {
  bool,
  ignoredAll,
  int,
  list,
  map,
  object,
  optional,
  type ReadBy,
  refused,
  refusedAll,
  required,
  str,
} from '../schema.ts';
import { CONTAINER, type ContainerValue } from './container.ts';
import { OBJECT } from './metadata.ts';
import { MODEL_MOUNT } from './template.ts';

const MODEL_MESH = 'ModelMesh does not run here; one runtime serves one model';

const SPEC = object({
  supportedModelFormats: optional(
    list(
      object({
        name: required(str()),
        version: optional(str()),
        autoSelect: optional(bool()),
        priority: optional(int({ min: 1 })),
      }),
    ),
  ),
  disabled: optional(bool()),
  protocolVersions: optional(list(str())),
  containers: required(list(CONTAINER, { min: 1 })),
  labels: optional(map(str({ allowEmpty: true }))),
  annotations: optional(map(str({ allowEmpty: true }))),
  ...refusedAll(
    [
      'multiModel',
      'grpcEndpoint',
      'grpcDataEndpoint',
      'httpDataEndpoint',
      'replicas',
      'storageHelper',
      'builtInAdapter',
    ],
    MODEL_MESH,
  ),
  workerSpec: refused('a model runs in one process on one machine'),
  hostIPC: refused('replicas are processes of this machine already'),
  resourceClaims: refused('devices are not claimed on one machine'),
  ...ignoredAll(
    ['affinity', 'nodeSelector', 'tolerations', 'volumes', 'imagePullSecrets', 'schedulerName'],
    'has no meaning on one machine',
  ),
});

const table = object({ ...OBJECT, spec: required(SPEC) });
type RuntimeObject = ReadBy<typeof table>;

const KSERVE = { group: 'serving.kserve.io', versions: ['v1alpha1'] } as const;
export const SERVING_RUNTIME: Kind<RuntimeObject> = { ...KSERVE, kind: 'ServingRuntime', table };
export const CLUSTER_SERVING_RUNTIME: Kind<RuntimeObject> = {
  ...KSERVE,
  kind: 'ClusterServingRuntime',
  table,
  cluster: true,
};

export interface Runtime {
  readonly name: string;
  /** null: of the cluster. */
  readonly namespace: string | null;
  readonly spec: RuntimeObject['spec'];
  readonly container: ContainerValue;
  readonly path: Path;
  readonly cx: ObjectContext | null;
}

const CONTAINER_NAME = 'kserve-container';

const NOTHING: ContainerValue = Object.freeze(
  Object.fromEntries(Object.keys(CONTAINER.shape.fields ?? {}).map((name) => [name, null])),
) as unknown as ContainerValue;

/** As KServe 0.20 ships them; our replicas take the place of their images. */
const SHIPPED: readonly Runtime[] = [
  shipped('kserve-huggingfaceserver', 'huggingface', ['--model_name={{.Name}}']),
  shipped('kserve-vllmserver', 'vLLM', ['--served-model-name={{.Name}}', `--model=${MODEL_MOUNT}`]),
];

function shipped(name: string, format: string, args: readonly string[]): Runtime {
  const formats = [{ name: format, version: '1', autoSelect: true, priority: 1 }];
  const spec = {
    supportedModelFormats: formats,
    disabled: null,
    protocolVersions: null,
    labels: null,
    annotations: null,
  };
  return {
    name,
    namespace: null,
    spec: spec as unknown as Runtime['spec'],
    container: { ...NOTHING, args },
    path: [],
    cx: null,
  };
}

export function readRuntimes(objects: Objects): Runtime[] {
  const own = objects.read(SERVING_RUNTIME).flatMap((read) => runtimeOf(read, read.namespace));
  const cluster = objects.read(CLUSTER_SERVING_RUNTIME).flatMap((read) => runtimeOf(read, null));
  const named = new Set(cluster.map(({ name }) => name));
  return [...own, ...cluster, ...SHIPPED.filter(({ name }) => !named.has(name))];
}

function runtimeOf({ name, cx, value }: ReadObject<RuntimeObject>, namespace: string | null): Runtime[] {
  const { containers } = value.spec;
  const at = containers.findIndex((container) => container.name === CONTAINER_NAME);
  if (at < 0) {
    cx.error(['spec', 'containers'], `has no container named ${CONTAINER_NAME}`);
    return [];
  }
  for (const [i, other] of containers.entries()) {
    if (i !== at) cx.notice(['spec', 'containers', i], `container ${other.name} is not run`);
  }
  const path = ['spec', 'containers', at];
  return [{ name, namespace, spec: value.spec, container: containers[at] as ContainerValue, path, cx }];
}

export interface Wanted {
  readonly namespace: string;
  readonly runtime: string | null;
  readonly format: { readonly name: string; readonly version: string | null };
  readonly protocol: string | null;
}

/** The runtime that KServe would choose, or why there is none. */
export function chooseRuntime(runtimes: readonly Runtime[], wanted: Wanted): Runtime | { readonly error: string } {
  const near = runtimes.filter(({ namespace }) => namespace === null || namespace === wanted.namespace);
  if (wanted.runtime !== null) return namedRuntime(near, wanted, wanted.runtime);
  const fit = near.filter(
    (runtime) => !runtime.spec.disabled && speaks(runtime, wanted) && formatOf(runtime, wanted, true),
  );
  const [first] = fit.sort(
    (a, b) => rank(a) - rank(b) || priority(b, wanted) - priority(a, wanted) || (a.name < b.name ? -1 : 1),
  );
  if (first !== undefined) return first;
  const formats = [...new Set(near.flatMap(({ spec }) => spec.supportedModelFormats?.map(({ name }) => name) ?? []))];
  const { name, version } = wanted.format;
  return {
    error: `no runtime serves the format ${name}${version ? ` ${version}` : ''}; there are runtimes for ${formats.join(', ')}`,
  };
}

function namedRuntime(near: readonly Runtime[], wanted: Wanted, name: string): Runtime | { readonly error: string } {
  const found = near.filter((runtime) => runtime.name === name).sort((a, b) => rank(a) - rank(b))[0];
  if (found === undefined) {
    const names = near.map((runtime) => runtime.name);
    const guess = nearestName(name, names);
    return {
      error: `there is no runtime ${name}; ${guess ? `did you mean ${guess}?` : `there are ${names.join(', ')}`}`,
    };
  }
  if (found.spec.disabled) return { error: `runtime ${name} is disabled` };
  if (!formatOf(found, wanted, false))
    return { error: `runtime ${name} does not serve the format ${wanted.format.name}` };
  return speaks(found, wanted) ? found : { error: `runtime ${name} does not speak ${wanted.protocol}` };
}

const rank = ({ namespace }: Runtime) => (namespace === null ? 1 : 0);
const priority = (runtime: Runtime, wanted: Wanted) => formatOf(runtime, wanted, true)?.priority ?? 0;

function formatOf({ spec }: Runtime, { format }: Wanted, automatic: boolean) {
  return spec.supportedModelFormats?.find(
    ({ name, version, autoSelect }) =>
      name === format.name && (format.version === null || version === format.version) && (autoSelect || !automatic),
  );
}

function speaks({ spec }: Runtime, { protocol }: Wanted): boolean {
  return protocol === null || !spec.protocolVersions?.length || spec.protocolVersions.includes(protocol);
}

export interface TemplateMeta {
  readonly name: string;
  readonly namespace: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
}

/** The variables of Go's templates that KServe offers, put into a runtime's container. */
export function fillTemplate(
  container: ContainerValue,
  meta: TemplateMeta,
  report: (text: string) => void,
): ContainerValue {
  const fill = (text: string) => {
    const filled = text.replace(/\{\{\s*\.(\w+)(?:\.([\w./-]+))?\s*\}\}/g, (whole, field: string, key?: string) => {
      if (field === 'Name') return meta.name;
      if (field === 'Namespace') return meta.namespace;
      if (field === 'Labels' && key) return meta.labels[key] ?? '';
      if (field === 'Annotations' && key) return meta.annotations[key] ?? '';
      return whole;
    });
    if (/\{\{\s*\./.test(filled))
      report(`${filled} has a variable that is not known: .Name, .Namespace, .Labels.x, .Annotations.x are`);
    return filled;
  };
  return {
    ...container,
    command: container.command?.map(fill) ?? null,
    args: container.args?.map(fill) ?? null,
    env: container.env?.map((item) => ({ ...item, value: item.value === null ? null : fill(item.value) })) ?? null,
  };
}
