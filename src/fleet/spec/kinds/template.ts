/** A container and the place of its model -> template of a replica. */
import { posix } from 'node:path';
import { TEMPLATE } from '../defaults.ts';
import type { ReplicaTemplate } from '../fleet_spec.ts';
import type { Path } from '../problems.ts';
import { serveArgs } from '../serve_args.ts';
import type { ModelPlace } from '../storage.ts';
import type { ContainerDraft, ContainerScope } from './container.ts';

/** Where KServe puts the files of a model: a name in arguments, no folder of this machine. */
export const MODEL_MOUNT = posix.join('/mnt', 'models');

export interface TemplateInput {
  readonly container: ContainerDraft;
  readonly place: ModelPlace | null;
  /** Fields that errors about arguments, resources and the model are told at. */
  readonly argsPath: Path;
  readonly resourcesPath: Path;
  readonly modelPath: Path;
  readonly graceSeconds: number | null;
  readonly graceDefaultMs: number;
}

export interface TemplateResult {
  readonly template: ReplicaTemplate;
  /** Names given in the arguments. */
  readonly names: readonly string[];
}

export function replicaTemplate(input: TemplateInput, scope: ContainerScope): TemplateResult {
  const { container, argsPath, graceSeconds, graceDefaultMs } = input;
  const { cx } = scope;
  const expand = (text: string) => expandVariables(text, container.env);
  const extra = (container.env.get('VLLM_ADDITIONAL_ARGS') ?? '').split(/\s+/).filter(Boolean);
  const served = serveArgs((container.command ?? []).map(expand), [...container.args.map(expand), ...extra], {
    error: (text) => cx.error(argsPath, text),
    notice: (text) => cx.notice(argsPath, text),
  });
  const place = placed(input, served.model, scope);
  const terminationGraceMs = graceSeconds === null ? graceDefaultMs : graceSeconds * 1000;
  const preStopMs = container.preStopMs ?? 0;
  if (preStopMs > terminationGraceMs) {
    cx.error(
      [],
      `the pre-stop delay of ${preStopMs / 1000} s is longer than the grace of ${terminationGraceMs / 1000} s`,
    );
  }
  const template: ReplicaTemplate = {
    model: place.model,
    args: [...served.args, ...place.args],
    env: Object.fromEntries(container.env),
    cpuMilli: amount(container, 'cpu', 1000, input, scope),
    memoryBytes: amount(container, 'memory', 1, input, scope),
    readiness: container.readiness ?? TEMPLATE.readiness,
    liveness: container.liveness ?? TEMPLATE.liveness,
    startup: container.startup ?? TEMPLATE.startup,
    terminationGraceMs,
    preStopMs,
    minReadyMs: 0,
  };
  noticeDevices(container, input.resourcesPath, scope);
  return { template, names: served.names };
}

/** `$(NAME)` as the kubelet puts it in; `$$` is a dollar. */
function expandVariables(text: string, env: ReadonlyMap<string, string>): string {
  return text.replace(/\$\$|\$\(([\w.-]+)\)/g, (whole, name) => (whole === '$$' ? '$' : (env.get(name) ?? whole)));
}

function placed(
  { place, argsPath, modelPath }: TemplateInput,
  named: string | null,
  { cx }: ContainerScope,
): ModelPlace {
  const mounted = named?.startsWith(MODEL_MOUNT) ? named.slice(MODEL_MOUNT.length).replace(/^\//, '') : null;
  if (place === null) {
    if ((named === null || mounted !== null) && !cx.gives([...modelPath, 'storageUri'])) {
      cx.error(modelPath, 'no model is named: give storageUri, or --model_id in args');
    }
    return { model: named ?? '', args: [] };
  }
  if (named !== null && mounted === null) {
    cx.error(argsPath, `name the model ${named} and storageUri names ${place.model}; give one of them`);
  }
  if (!mounted) return place;
  if (mounted.split('/').includes('..')) cx.error(argsPath, `${named} leaves the model's folder`);
  return { ...place, model: posix.join(place.model, mounted) };
}

/** Kubernetes takes the limit for a request that is not given. */
function amount(
  { requests, limits }: ContainerDraft,
  name: string,
  factor: number,
  { resourcesPath }: TemplateInput,
  { cx }: ContainerScope,
): number | null {
  const limit = limits.get(name);
  const request = requests.get(name) ?? limit;
  if (request === undefined) return null;
  if (limit !== undefined && limit < request) cx.error(resourcesPath, `the limit of ${name} is below its request`);
  if (limit !== undefined && limit > request) {
    cx.notice([...resourcesPath, 'limits'], `a replica gets the ${name} it requests; the higher limit has no effect`);
  }
  return Math.ceil(request * factor);
}

function noticeDevices({ requests, limits }: ContainerDraft, path: Path, { cx }: ContainerScope): void {
  const others = [...new Set([...requests.keys(), ...limits.keys()])].filter(
    (name) => name !== 'cpu' && name !== 'memory',
  );
  for (const name of others) {
    const asked = Math.max(requests.get(name) ?? 0, limits.get(name) ?? 0);
    if (asked > 0) cx.notice(path, `${name} is not given out here; the model runs on the CPU`);
  }
}
