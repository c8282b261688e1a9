/** Fleet files -> {@link FleetSpec}: reads every kind, follows every reference, and tells all problems at once. */
import type { FleetSpec, ServiceSpec } from './fleet_spec.ts';
import {
  CLUSTER_TRIGGER_AUTHENTICATION,
  CONFIG_MAP,
  checkAuthentications,
  PERSISTENT_VOLUME,
  PERSISTENT_VOLUME_CLAIM,
  readClaims,
  readConfig,
  SECRET,
  TRIGGER_AUTHENTICATION,
} from './kinds/config.ts';
import { INFERENCE_GRAPH, readGraphs } from './kinds/inference_graph.ts';
import {
  DEFAULT_GATEWAY,
  destinationsOf,
  GATEWAY,
  INFERENCE_OBJECTIVE,
  INFERENCE_OBJECTIVE_BEFORE,
  INFERENCE_POOL,
  readGateways,
  readObjectives,
} from './kinds/inference_pool.ts';
import { INFERENCE_SERVICE, readInferenceServices, type ServiceScope } from './kinds/inference_service.ts';
import { LLM_INFERENCE_SERVICE, readLlmServices } from './kinds/llm_inference_service.ts';
import { readNative } from './kinds/native.ts';
import { NOTICED_KINDS, noticeKinds, REFUSED_KINDS } from './kinds/noticed.ts';
import { HTTP_ROUTE, readRoutes } from './kinds/routing.ts';
import { applyScalers, HORIZONTAL_POD_AUTOSCALER, SCALED_OBJECT } from './kinds/scalers.ts';
import { CLUSTER_SERVING_RUNTIME, readRuntimes, SERVING_RUNTIME } from './kinds/serving_runtime.ts';
import { type Kind, Objects, sortDocuments } from './objects.ts';
import { Problems } from './problems.ts';
import type { ServiceDraft } from './service_draft.ts';
import { readYaml, type SourceFile, YAML_LIMITS } from './yaml_tree.ts';

/** Kinds whose fields are read; what each means is in docs/fleet_file.md. */
export const KINDS: readonly Kind<unknown>[] = [
  INFERENCE_SERVICE,
  SERVING_RUNTIME,
  CLUSTER_SERVING_RUNTIME,
  LLM_INFERENCE_SERVICE,
  INFERENCE_GRAPH,
  SCALED_OBJECT,
  TRIGGER_AUTHENTICATION,
  CLUSTER_TRIGGER_AUTHENTICATION,
  HORIZONTAL_POD_AUTOSCALER,
  HTTP_ROUTE,
  GATEWAY,
  INFERENCE_POOL,
  INFERENCE_OBJECTIVE,
  INFERENCE_OBJECTIVE_BEFORE,
  SECRET,
  CONFIG_MAP,
  PERSISTENT_VOLUME,
  PERSISTENT_VOLUME_CLAIM,
];

const CLUSTER_KINDS = new Set([...KINDS, ...NOTICED_KINDS].flatMap(({ kind, cluster }) => (cluster ? [kind] : [])));

/**
 * One `invalid_manifest` with all problems (up to 50), a line each: `file:line:column object field: what is wrong; what would
 * work`. Pure: `file` is a name for errors and what relative folders are relative to.
 */
export function readFleet(files: readonly SourceFile[]): FleetSpec {
  const problems = new Problems();
  const total = files.reduce((sum, { text }) => sum + text.length, 0);
  const top = { file: files[0]?.file ?? 'fleet', line: 1, column: 1 };
  if (total > YAML_LIMITS.bytes * 4)
    problems.add(top, `all files together are ${total} characters; ${YAML_LIMITS.bytes * 4} are read`);
  problems.throwIfAny();
  const documents = files.flatMap((file) => readYaml(file, ({ at, text }) => problems.add(at, text)));
  const { manifests, native } = sortDocuments(documents, CLUSTER_KINDS, problems);
  const objects = new Objects(manifests);
  objects.refuseOthers([...KINDS, ...NOTICED_KINDS], REFUSED_KINDS);
  const config = readConfig(objects);
  checkAuthentications(objects, config);
  const scope: ServiceScope = { objects, config, claims: readClaims(objects), runtimes: readRuntimes(objects) };
  const short = readNative(native, scope.claims, DEFAULT_GATEWAY, problems);
  const llm = readLlmServices(scope);
  const unscaled = [...short.drafts, ...readInferenceServices(scope), ...llm.drafts];
  checkNames(unscaled);
  const drafts = applyScalers(unscaled, objects);
  const destinations = destinationsOf(drafts, objects);
  const routes = [...readRoutes(objects, destinations), ...llm.routes(destinations)];
  const graphs = readGraphs(objects, destinations);
  const gateway = readGateways(objects, short.gateway);
  const objectives = { ...gateway.objectives, ...readObjectives(objects, destinations) };
  checkFallbacks(
    drafts,
    gateway.externals.map(({ name }) => name),
  );
  noticeKinds(objects);
  if (problems.count === 0 && drafts.length === 0) {
    problems.add(top, 'has no service: give models, or an InferenceService');
  }
  problems.throwIfAny();
  const services: readonly ServiceSpec[] = drafts.map(({ service }) => service);
  return { services, routes, graphs, gateway: { ...gateway, objectives }, notices: problems.notices };
}

/** Ids, served names and names of Deployments are each one service's. */
function checkNames(drafts: readonly ServiceDraft[]): void {
  const taken = new Map<string, ServiceDraft>();
  const claim = (key: string, draft: ServiceDraft, cure: string): boolean => {
    const other = taken.get(key) ?? draft;
    taken.set(key, other);
    if (other === draft) return true;
    const { kind, id, at } = other.service;
    draft.cx.error(draft.path, `${key} is that of ${kind} ${id} at ${at.file}:${at.line} too; ${cure}`);
    return false;
  };
  for (const draft of drafts) {
    const { service, namespace, deployment, canaryDeployments, addresses } = draft;
    if (!claim(`name ${service.id}`, draft, 'give one of them another')) continue;
    for (const name of service.models) claim(`served name ${name}`, draft, 'requests could not tell them apart');
    for (const name of addresses) claim(`Service ${namespace}/${name}`, draft, 'give one of them another name');
    if (service.kind === 'Model') continue;
    for (const name of [deployment, ...canaryDeployments])
      claim(`Deployment ${namespace}/${name}`, draft, 'give one of them another name');
  }
}

function checkFallbacks(drafts: readonly ServiceDraft[], externals: readonly string[]): void {
  const models = new Set(drafts.flatMap(({ service }) => service.models));
  for (const { service, cx, path } of drafts) {
    for (const [i, name] of service.traffic.fallbacks.entries()) {
      if (service.models.includes(name)) cx.error([...path, 'traffic', 'fallbacks', i], `${name} is the model itself`);
      else if (!models.has(name) && !externals.includes(name)) {
        cx.error([...path, 'traffic', 'fallbacks', i], `there is no model and no external ${name}`);
      }
    }
    const to = service.traffic.shadow?.to;
    const known = to === undefined || models.has(to) || service.canaries.some((canary) => canary.name === to);
    if (!known) cx.error([...path, 'traffic', 'shadow', 'to'], `there is no model and no canary ${to}`);
  }
}
