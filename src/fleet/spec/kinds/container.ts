/** The parts of a pod and its container that a process on this machine has: arguments, environment, resources, probes, its end. */
import { PROBE_FIELDS } from '../defaults.ts';
import type { ProbeSpec } from '../fleet_spec.ts';
import type { ObjectContext, Path } from '../problems.ts';
import {
  bool,
  ignored,
  ignoredAll,
  int,
  list,
  map,
  object,
  optional,
  type Quantity,
  quantity,
  type ReadBy,
  refused,
  refusedAll,
  required,
  str,
} from '../schema.ts';

const NOT_A_CONTAINER = 'replicas are processes of this machine, not containers';
const NOT_A_POD = 'has no meaning on one machine';

const HTTP_GET = object({
  path: optional(str()),
  port: ignored('probes go to the port that the fleet gave the replica'),
  host: ignored('probes go to the replica itself'),
  scheme: ignored('replicas speak plain HTTP on the loopback'),
  httpHeaders: refused('probes send no headers of their own'),
});

const seconds = () => optional(int({ min: 0 }));

const PROBE = object({
  httpGet: optional(HTTP_GET),
  tcpSocket: ignored('an HTTP probe of the same kind is used'),
  exec: refused('no commands are run in a replica; use httpGet'),
  grpc: refused('replicas speak HTTP; use httpGet'),
  initialDelaySeconds: seconds(),
  periodSeconds: seconds(),
  timeoutSeconds: seconds(),
  successThreshold: seconds(),
  failureThreshold: seconds(),
  terminationGracePeriodSeconds: ignored('the grace of the pod counts'),
});

const KEY_REF = object({ name: required(str()), key: required(str()), optional: optional(bool()) });

const ENV = object({
  name: required(str({ pattern: /^[A-Za-z_.-][\w.-]*$/, form: 'the name of a variable' })),
  value: optional(str({ allowEmpty: true })),
  valueFrom: optional(
    object({
      secretKeyRef: optional(KEY_REF),
      configMapKeyRef: optional(KEY_REF),
      fieldRef: optional(object({ fieldPath: required(str()), apiVersion: optional(str()) })),
      fileKeyRef: refused('there are no volumes'),
      resourceFieldRef: refused('there are no containers to ask'),
    }),
  ),
});

const WHOLE_REF = object({ name: required(str()), optional: optional(bool()) });

const ENV_FROM = object({
  prefix: optional(str()),
  secretRef: optional(WHOLE_REF),
  configMapRef: optional(WHOLE_REF),
});

const LIFECYCLE = object({
  preStop: optional(
    object({
      sleep: optional(object({ seconds: required(int({ min: 0 })) })),
      exec: optional(object({ command: required(list(str())) })),
      httpGet: refused('use sleep'),
      tcpSocket: refused('use sleep'),
    }),
  ),
  postStart: refused('nothing is run in a replica after its start'),
  stopSignal: ignored('replicas are stopped by SIGTERM'),
});

const RESOURCES = object({
  requests: optional(map(quantity())),
  limits: optional(map(quantity())),
  claims: refused('devices are not claimed on one machine'),
});

export const CONTAINER_FIELDS = {
  command: optional(list(str({ allowEmpty: true }))),
  args: optional(list(str({ allowEmpty: true }))),
  env: optional(list(ENV)),
  envFrom: optional(list(ENV_FROM)),
  resources: optional(RESOURCES),
  readinessProbe: optional(PROBE),
  livenessProbe: optional(PROBE),
  startupProbe: optional(PROBE),
  lifecycle: optional(LIFECYCLE),
  ...ignoredAll(
    [
      'image',
      'imagePullPolicy',
      'resizePolicy',
      'restartPolicy',
      'restartPolicyRules',
      'securityContext',
      'stdin',
      'stdinOnce',
      'terminationMessagePath',
      'terminationMessagePolicy',
      'tty',
      'volumeDevices',
      'volumeMounts',
      'workingDir',
    ],
    NOT_A_CONTAINER,
  ),
  ports: ignored('the fleet chooses where its replicas listen'),
};

export const CONTAINER = object({ name: required(str()), ...CONTAINER_FIELDS });

/** Fields of a PodSpec beside its containers. */
export const POD_FIELDS = {
  terminationGracePeriodSeconds: optional(int({ min: 0 })),
  ...ignoredAll(
    [
      'activeDeadlineSeconds',
      'affinity',
      'automountServiceAccountToken',
      'dnsConfig',
      'dnsPolicy',
      'enableServiceLinks',
      'hostAliases',
      'hostNetwork',
      'hostUsers',
      'hostname',
      'hostnameOverride',
      'imagePullSecrets',
      'nodeName',
      'nodeSelector',
      'os',
      'overhead',
      'preemptionPolicy',
      'priority',
      'priorityClassName',
      'readinessGates',
      'restartPolicy',
      'runtimeClassName',
      'schedulerName',
      'schedulingGates',
      'securityContext',
      'serviceAccount',
      'serviceAccountName',
      'setHostnameAsFQDN',
      'shareProcessNamespace',
      'subdomain',
      'tolerations',
      'topologySpreadConstraints',
      'volumes',
    ],
    NOT_A_POD,
  ),
  ...refusedAll(['initContainers'], 'nothing is run before a replica'),
  ...refusedAll(['hostIPC', 'hostPID'], 'replicas are processes of this machine already'),
  resourceClaims: refused('devices are not claimed on one machine'),
  resources: ignored('resources of the pod; those of the container count'),
};

export type ContainerValue = Omit<ReadBy<typeof CONTAINER>, 'name'>;

/** Values of Secrets and ConfigMaps of the same files. */
export interface ConfigSource {
  /** undefined: there is no such object. */
  values(kind: 'Secret' | 'ConfigMap', namespace: string, name: string): ReadonlyMap<string, string> | undefined;
}

export interface ContainerDraft {
  readonly command: readonly string[] | null;
  readonly args: readonly string[];
  readonly env: ReadonlyMap<string, string>;
  readonly requests: ReadonlyMap<string, number>;
  readonly limits: ReadonlyMap<string, number>;
  readonly readiness: ProbeSpec | null;
  readonly liveness: ProbeSpec | null;
  readonly startup: ProbeSpec | null;
  readonly preStopMs: number | null;
}

export interface ContainerScope {
  readonly cx: ObjectContext;
  readonly namespace: string;
  readonly name: string;
  readonly config: ConfigSource;
}

export function containerDraft(value: ContainerValue, path: Path, scope: ContainerScope): ContainerDraft {
  return {
    command: value.command,
    args: value.args ?? [],
    env: environment(value, path, scope),
    requests: amounts(value.resources?.requests ?? null),
    limits: amounts(value.resources?.limits ?? null),
    readiness: probe(value.readinessProbe, '/ready'),
    liveness: probe(value.livenessProbe, '/health'),
    startup: probe(value.startupProbe, '/ready'),
    preStopMs: preStop(value.lifecycle, [...path, 'lifecycle', 'preStop'], scope.cx),
  };
}

/** KServe's merge of a runtime's container with what the service says: arguments one after another, the rest by name. */
export function mergeContainers(base: ContainerDraft, over: ContainerDraft): ContainerDraft {
  return {
    command: over.command ?? base.command,
    args: [...base.args, ...over.args],
    env: new Map([...base.env, ...over.env]),
    requests: new Map([...base.requests, ...over.requests]),
    limits: new Map([...base.limits, ...over.limits]),
    readiness: over.readiness ?? base.readiness,
    liveness: over.liveness ?? base.liveness,
    startup: over.startup ?? base.startup,
    preStopMs: over.preStopMs ?? base.preStopMs,
  };
}

function amounts(given: Readonly<Record<string, Quantity>> | null): Map<string, number> {
  return new Map(Object.entries(given ?? {}).map(([name, { value }]) => [name, value]));
}

function environment({ env, envFrom }: ContainerValue, path: Path, scope: ContainerScope): Map<string, string> {
  const values = new Map<string, string>();
  for (const [i, from] of (envFrom ?? []).entries()) {
    const at = [...path, 'envFrom', i];
    for (const [kind, ref] of [['Secret', from.secretRef] as const, ['ConfigMap', from.configMapRef] as const]) {
      if (ref === null) continue;
      const found = lookUp(kind, ref.name, ref.optional ?? false, at, scope);
      for (const [key, value] of found ?? []) values.set(`${from.prefix ?? ''}${key}`, value);
    }
  }
  for (const [i, { name, value, valueFrom }] of (env ?? []).entries()) {
    const at = [...path, 'env', i, 'valueFrom'];
    const given = (value ?? '').replace(/\$\(([\w.-]+)\)/g, (whole, other) => values.get(other) ?? whole);
    const read = valueFrom === null ? given : variableValue(valueFrom, at, scope);
    if (read !== null) values.set(name, read);
  }
  return values;
}

type ValueFrom = NonNullable<ReadBy<typeof ENV>['valueFrom']>;

function variableValue(from: ValueFrom, at: Path, scope: ContainerScope): string | null {
  const { secretKeyRef, configMapKeyRef, fieldRef } = from;
  if (fieldRef !== null) {
    if (fieldRef.fieldPath === 'metadata.namespace') return scope.namespace;
    if (fieldRef.fieldPath === 'metadata.name') return scope.name;
    scope.cx.error(at, `fieldRef ${fieldRef.fieldPath} is not known here; metadata.name and metadata.namespace are`);
    return null;
  }
  const ref = secretKeyRef ?? configMapKeyRef;
  if (ref === null) {
    scope.cx.error(at, 'says nothing; give secretKeyRef, configMapKeyRef or fieldRef');
    return null;
  }
  const kind = secretKeyRef === null ? 'ConfigMap' : 'Secret';
  const found = lookUp(kind, ref.name, ref.optional ?? false, at, scope);
  const value = found?.get(ref.key);
  if (found !== null && value === undefined && !ref.optional) {
    scope.cx.error(at, `${kind} ${ref.name} has no key ${ref.key}; it has ${[...found.keys()].join(', ') || 'none'}`);
  }
  return value ?? null;
}

function lookUp(
  kind: 'Secret' | 'ConfigMap',
  name: string,
  may: boolean,
  at: Path,
  { cx, namespace, config }: ContainerScope,
) {
  const found = config.values(kind, namespace, name);
  if (found === undefined && !may) {
    cx.error(at, `${kind} ${namespace}/${name} is not in the files; only what they hold can be used`);
  }
  return found ?? null;
}

function probe(value: ReadBy<typeof PROBE> | null, path: string): ProbeSpec | null {
  if (value === null) return null;
  const ms = (given: number | null, otherwise: number) => (given === null ? otherwise : given * 1000);
  return {
    path: value.httpGet?.path ?? path,
    initialDelayMs: ms(value.initialDelaySeconds, PROBE_FIELDS.initialDelayMs),
    // The API server takes 0 for "not given".
    periodMs: ms(value.periodSeconds || null, PROBE_FIELDS.periodMs),
    timeoutMs: ms(value.timeoutSeconds || null, PROBE_FIELDS.timeoutMs),
    successThreshold: value.successThreshold || PROBE_FIELDS.successThreshold,
    failureThreshold: value.failureThreshold || PROBE_FIELDS.failureThreshold,
  };
}

/** A sleep is all that a pre-stop hook does in practice; other commands are refused. */
function preStop(lifecycle: ReadBy<typeof LIFECYCLE> | null, path: Path, cx: ObjectContext): number | null {
  const hook = lifecycle?.preStop ?? null;
  if (hook === null) return null;
  if (hook.sleep !== null) return hook.sleep.seconds * 1000;
  const words = (hook.exec?.command ?? [])
    .join(' ')
    .replace(/^(\/bin\/)?(ba)?sh -c /, '')
    .trim();
  const seconds = /^(?:\/bin\/)?sleep (\d{1,5})s?;?$/.exec(words)?.[1];
  if (seconds === undefined) cx.error(path, 'only a sleep is possible here: sleep: {seconds: 15}');
  return seconds === undefined ? null : Number(seconds) * 1000;
}
