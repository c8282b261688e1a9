/** InferenceGraph `serving.kserve.io/v1alpha1`. */
import type { GraphNode, GraphSpec, GraphStep } from '../fleet_spec.ts';
import type { Kind, Objects, ReadObject } from '../objects.ts';
import type { Path } from '../problems.ts';
import { ignoredAll, int, list, map, object, oneOf, optional, type ReadBy, refused, required, str } from '../schema.ts';
import { OBJECT } from './metadata.ts';
import type { Destinations } from './routing.ts';

const STEP = object({
  name: optional(str()),
  nodeName: optional(str()),
  serviceName: optional(str()),
  serviceUrl: optional(str({ pattern: /^https?:\/\/[^\s/]+/, form: 'a URL of http or https' })),
  data: optional(oneOf('$request', '$response')),
  weight: optional(int({ min: 0, max: 100 })),
  condition: optional(str({ maxLength: 1024 })),
  dependency: optional(oneOf('Soft', 'Hard')),
  mapPredictionsToInstances: refused('answers are handed on as they are'),
});

const table = object({
  ...OBJECT,
  spec: required(
    object({
      nodes: required(
        map(
          object({
            routerType: required(oneOf('Sequence', 'Splitter', 'Ensemble', 'Switch')),
            steps: optional(list(STEP, { max: 64 })),
          }),
        ),
      ),
      ...ignoredAll(
        [
          'affinity',
          'maxReplicas',
          'minReplicas',
          'nodeName',
          'nodeSelector',
          'resources',
          'routerTimeouts',
          'scaleMetric',
          'scaleTarget',
          'serviceAccountName',
          'timeout',
          'tolerations',
        ],
        'the gateway runs the graph itself',
      ),
    }),
  ),
});

type Graph = ReadBy<typeof table>;
type StepValue = ReadBy<typeof STEP>;

export const INFERENCE_GRAPH: Kind<Graph> = {
  group: 'serving.kserve.io',
  versions: ['v1alpha1'],
  kind: 'InferenceGraph',
  table,
};

const ROOT = 'root';
const MAX_NODES = 256;

export function readGraphs(objects: Objects, destinations: Destinations): GraphSpec[] {
  return objects.read(INFERENCE_GRAPH).flatMap((read) => {
    if (read.value.metadata.annotations?.['serving.kserve.io/stop'] === 'true') return [];
    const nodes: Record<string, GraphNode> = Object.create(null);
    for (const [name, { routerType, steps }] of Object.entries(read.value.spec.nodes)) {
      const path = ['spec', 'nodes', name];
      checkNode(read, routerType, steps ?? [], path);
      nodes[name] = {
        router: routerType,
        steps: (steps ?? []).flatMap((step, i) => stepOf(step, i, path, read, objects, destinations)),
      };
    }
    if (!Object.hasOwn(nodes, ROOT))
      read.cx.error(['spec', 'nodes'], `has no node named ${ROOT}, where a graph begins`);
    const count = Object.keys(nodes).length;
    if (count > MAX_NODES) read.cx.error(['spec', 'nodes'], `has ${count} nodes; it takes at most ${MAX_NODES}`);
    const cycle = count > MAX_NODES ? null : cycleOf(nodes);
    if (cycle !== null)
      read.cx.error(['spec', 'nodes', cycle[0] as string], `leads back to itself: ${cycle.join(' -> ')}`);
    return read.cx.failed ? [] : [{ id: `${read.namespace}/${read.name}`, at: read.cx.at, nodes }];
  });
}

function checkNode(
  { cx }: ReadObject<Graph>,
  router: GraphNode['router'],
  steps: readonly StepValue[],
  path: Path,
): void {
  if (steps.length === 0) cx.error(path, 'has no steps');
  if (router === 'Splitter') {
    const sum = steps.reduce((total, { weight }) => total + (weight ?? 0), 0);
    if (sum !== 100) cx.error([...path, 'steps'], `the weights of a Splitter add up to ${sum}; they must make 100`);
  }
  for (const [i, { condition }] of steps.entries()) {
    if (router === 'Switch' && condition === null)
      cx.error([...path, 'steps', i], 'condition is missing: a Switch asks each step for one');
  }
}

function stepOf(
  step: StepValue,
  index: number,
  node: Path,
  { cx, namespace, value }: ReadObject<Graph>,
  objects: Objects,
  { services }: Destinations,
): GraphStep[] {
  const path = [...node, 'steps', index];
  const { nodeName, serviceName, serviceUrl } = step;
  const given = [nodeName, serviceName, serviceUrl].filter((name) => name !== null);
  if (given.length !== 1) {
    cx.error(path, `names ${given.length} targets; it takes one of nodeName, serviceName, serviceUrl`);
    return [];
  }
  let target: GraphStep['target'];
  if (nodeName !== null) {
    target = { node: nodeName };
    if (!Object.hasOwn(value.spec.nodes, nodeName)) cx.error([...path, 'nodeName'], `there is no node ${nodeName}`);
  } else if (serviceName !== null) {
    const id = services.get(`${namespace}/${serviceName}`);
    target = { service: id ?? serviceName };
    if (id === undefined && !objects.has('InferenceService', namespace, serviceName)) {
      cx.error([...path, 'serviceName'], `there is no InferenceService ${namespace}/${serviceName}`);
    }
  } else target = { url: serviceUrl as string };
  return [
    {
      name: step.name ?? nodeName ?? serviceName ?? String(index),
      target,
      data: step.data ?? '$request',
      weight: step.weight,
      condition: step.condition,
      dependency: step.dependency ?? 'Soft',
    },
  ];
}

/** Nodes of a cycle, the first also last; null = none. */
function cycleOf(nodes: Readonly<Record<string, GraphNode>>): string[] | null {
  const done = new Set<string>();
  const visit = (name: string, path: readonly string[]): string[] | null => {
    const before = path.indexOf(name);
    if (before >= 0) return [...path.slice(before), name];
    if (done.has(name) || !Object.hasOwn(nodes, name)) return null;
    for (const { target } of (nodes[name] as GraphNode).steps) {
      const cycle = 'node' in target ? visit(target.node, [...path, name]) : null;
      if (cycle !== null) return cycle;
    }
    done.add(name);
    return null;
  };
  for (const name of Object.keys(nodes)) {
    const cycle = visit(name, []);
    if (cycle !== null) return cycle;
  }
  return null;
}
