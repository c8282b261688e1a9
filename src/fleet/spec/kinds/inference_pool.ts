/** InferencePool (which services a route's pool means), InferenceObjective (names of priorities) and Gateway (where to listen). */
import { GATEWAY_HOST, GATEWAY_PORT } from '../defaults.ts';
import type { GatewaySpec } from '../fleet_spec.ts';
import type { Kind, Objects } from '../objects.ts';
import { ignored, int, list, map, object, oneOf, optional, type ReadBy, refused, required, str } from '../schema.ts';
import type { ServiceDraft } from '../service_draft.ts';
import { OBJECT } from './metadata.ts';
import type { Destinations } from './routing.ts';

const poolTable = object({
  ...OBJECT,
  spec: required(
    object({
      selector: required(object({ matchLabels: required(map(str({ allowEmpty: true }))) })),
      targetPorts: required(list(object({ number: required(int({ min: 1, max: 65_535 })) }), { min: 1, max: 8 })),
      appProtocol: optional(oneOf('http', 'kubernetes.io/h2c')),
      endpointPickerRef: ignored('the gateway picks the replicas itself'),
    }),
  ),
});

export const INFERENCE_POOL: Kind<ReadBy<typeof poolTable>> = {
  group: 'inference.networking.k8s.io',
  versions: ['v1'],
  kind: 'InferencePool',
  table: poolTable,
};

const objectiveTable = object({
  ...OBJECT,
  spec: required(
    object({
      priority: optional(int()),
      poolRef: required(object({ name: required(str()), group: optional(str()), kind: optional(str()) })),
    }),
  ),
});

type Objective = ReadBy<typeof objectiveTable>;
const OBJECTIVE = { versions: ['v1alpha2'], kind: 'InferenceObjective', table: objectiveTable } as const;
export const INFERENCE_OBJECTIVE: Kind<Objective> = { ...OBJECTIVE, group: 'llm-d.ai' };
export const INFERENCE_OBJECTIVE_BEFORE: Kind<Objective> = { ...OBJECTIVE, group: 'inference.networking.x-k8s.io' };

/** What routes may name. */
export function destinationsOf(drafts: readonly ServiceDraft[], objects: Objects): Destinations {
  const services = new Map<string, string>();
  const pools = new Map<string, readonly string[]>();
  for (const { service, namespace, addresses, pools: own } of drafts) {
    for (const address of addresses) services.set(`${namespace}/${address}`, service.id);
    for (const pool of own) pools.set(`${namespace}/${pool}`, [service.id]);
  }
  for (const { cx, namespace, name, value } of objects.read(INFERENCE_POOL)) {
    const { selector, targetPorts } = value.spec;
    const labels = Object.entries(selector.matchLabels);
    const selected = drafts.filter(
      (draft) => draft.namespace === namespace && labels.every(([key, text]) => draft.service.labels[key] === text),
    );
    if (selected.length === 0) cx.notice(['spec', 'selector'], 'selects no service of the files');
    if (targetPorts.length > 1) cx.notice(['spec', 'targetPorts'], 'a replica has one port, which the fleet chooses');
    pools.set(
      `${namespace}/${name}`,
      selected.map(({ service }) => service.id),
    );
  }
  return { services, pools };
}

export function readObjectives(objects: Objects, { pools }: Destinations): Readonly<Record<string, number>> {
  const found: Record<string, number> = Object.create(null);
  for (const { cx, namespace, name, value } of [INFERENCE_OBJECTIVE, INFERENCE_OBJECTIVE_BEFORE].flatMap((kind) =>
    objects.read(kind),
  )) {
    const pool = value.spec.poolRef.name;
    if (!pools.has(`${namespace}/${pool}`) && !objects.has('InferencePool', namespace, pool)) {
      cx.error(['spec', 'poolRef', 'name'], `there is no InferencePool ${namespace}/${pool}`);
    }
    if (Object.hasOwn(found, name))
      cx.error(['metadata', 'name'], `${name} is given twice; requests name objectives without a namespace`);
    found[name] = value.spec.priority ?? 0;
  }
  return found;
}

const gatewayTable = object({
  ...OBJECT,
  spec: required(
    object({
      gatewayClassName: required(str()),
      listeners: required(
        list(
          object({
            name: required(str()),
            port: required(int({ min: 1, max: 65_535 })),
            protocol: required(str()),
            hostname: ignored('hosts are those of the routes'),
            allowedRoutes: ignored('all routes of the files are taken'),
            tls: refused('the gateway speaks HTTP; put a TLS proxy before it'),
          }),
          { min: 1 },
        ),
      ),
      addresses: optional(list(object({ type: optional(str()), value: optional(str()) }))),
      infrastructure: ignored('has no meaning on one machine'),
      allowedListeners: ignored('has no meaning on one machine'),
      tls: refused('the gateway speaks HTTP; put a TLS proxy before it'),
    }),
  ),
});

export const GATEWAY: Kind<ReadBy<typeof gatewayTable>> = {
  group: 'gateway.networking.k8s.io',
  versions: ['v1', 'v1beta1'],
  kind: 'Gateway',
  table: gatewayTable,
};

export const DEFAULT_GATEWAY: GatewaySpec = {
  host: GATEWAY_HOST,
  port: GATEWAY_PORT,
  externals: [],
  scorers: {},
  objectives: {},
  requireKey: false,
};

/** The first HTTP listener of the one Gateway. */
export function readGateways(objects: Objects, base: GatewaySpec): GatewaySpec {
  let gateway = base;
  for (const [at, { cx, value }] of objects.read(GATEWAY).entries()) {
    const { listeners, addresses } = value.spec;
    if (at > 0) cx.error([], 'is the second Gateway; one listens here');
    const index = listeners.findIndex(({ protocol }) => protocol === 'HTTP');
    const listener = listeners[index];
    if (listener === undefined) {
      cx.error(['spec', 'listeners'], 'has no listener of protocol HTTP, the one that the gateway speaks');
      continue;
    }
    for (const i of listeners.keys())
      if (i !== index) cx.notice(['spec', 'listeners', i], 'one listener is opened, the first of HTTP');
    const address = addresses?.[0]?.value ?? null;
    if (address === null)
      cx.notice(['spec', 'listeners', index], `listens on ${base.host}; spec.addresses says otherwise`);
    gateway = { ...gateway, port: listener.port, host: address ?? gateway.host };
  }
  return gateway;
}
