/** docs/fleet_file.md from the tables. */
import { CONTAINER_FIELDS, POD_FIELDS } from './kinds/container.ts';
import { NATIVE } from './kinds/native_table.ts';
import { NOTICED, REFUSED_KINDS } from './kinds/noticed.ts';
import { TRIGGER_METADATA } from './kinds/triggers.ts';
import { KINDS } from './read_fleet.ts';
import type { Field, Fields, Shape } from './schema.ts';
import { YAML_LIMITS } from './yaml_tree.ts';

const HEAD = `# The fleet file

Generated from \`src/fleet/spec/kinds\`; do not edit.

\`tokenmill up fleet.yaml\` reads one file or several, of one document or many. A document with \`apiVersion\` and \`kind\` is an object
of Kubernetes and means what it means on a cluster; one without is the short form. Both may stand in one file and refer to each other.

- Unknown fields are errors. What has no effect on one machine is accepted with a notice; what cannot be done is refused by name.
- All problems are told at once, each as \`file:line:column object field: what is wrong; what would work\`.
- \`tokenmill up --dry-run\` shows what was understood; \`tokenmill diff\` what would change.
- Aliases (\`*a\`) and merge keys (\`<<\`) are written out. A key that stands twice is an error.
- At most ${YAML_LIMITS.bytes / 1024 / 1024} MiB and ${YAML_LIMITS.documents} documents a file, ${YAML_LIMITS.depth} levels, ${YAML_LIMITS.tokens} words and signs (more than ten thousand lines).
- Durations are written \`500ms\`, \`30s\`, \`5m\`, \`1h30m\`; quantities \`500m\`, \`2\`, \`4Gi\`.

## The short form

\`\`\`yaml
models:
  - name: llama
    model: meta-llama/Llama-3.2-1B-Instruct
    args: [--quantization, int4, --max-model-len, 8k]
    replicas: {min: 0, max: 4}
    scaling: {ttftP95Ms: 800, tpotP95Ms: 60, idle: 10m}
  - name: small                 # no model: the embedded one
    replicas: 2
gateway: {port: 8080}
\`\`\`
`;

/** What a kind becomes here. */
const MEANING: Readonly<Record<string, string>> = {
  InferenceService: 'A service: replicas of one model behind one name.',
  ServingRuntime: 'Arguments and environment that a service of a format begins with.',
  ClusterServingRuntime:
    'The same for all namespaces. `kserve-huggingfaceserver` and `kserve-vllmserver` are there already.',
  LLMInferenceService: 'A service of one process a replica.',
  InferenceGraph: 'A graph of services that the gateway runs.',
  ScaledObject:
    'Scales the Deployment `NAME-predictor` of an InferenceService with `autoscalerClass: external`, `NAME-kserve` of an LLMInferenceService without replicas, or a model of the short form without replicas.',
  TriggerAuthentication: 'Must be there when a trigger names it; queries ask for no credentials.',
  ClusterTriggerAuthentication: 'The same.',
  HorizontalPodAutoscaler: 'Scales the same targets by CPU and memory.',
  HTTPRoute: 'Rules of the gateway.',
  Gateway: 'Where the gateway listens: its first HTTP listener.',
  InferencePool: 'The services whose labels it selects, as a backend of routes.',
  InferenceObjective: 'The name of a priority.',
  Secret: 'Values for variables.',
  ConfigMap: 'Values for variables.',
  PersistentVolume: 'A folder: `hostPath` or `local`.',
  PersistentVolumeClaim: 'What `pvc://claim/path` names: the folder of its `volumeName`.',
};

export function describeFleetFile(): string {
  return [
    HEAD,
    ...tables('', NATIVE.shape.fields ?? {}),
    '## Kinds of Kubernetes',
    '',
    '| kind | versions | what it is here |',
    '|---|---|---|',
    ...KINDS.map(({ group, kind, versions }) => {
      const written = versions.map((version) => `\`${group ? `${group}/` : ''}${version}\``).join(', ');
      return `| ${kind} | ${written} | ${MEANING[kind] ?? ''} |`;
    }),
    ...NOTICED.map(({ group, kinds, text }) => `| ${kinds.join(', ')} | \`${group || 'v1'}\` | ${capital(text)}. |`),
    ...Object.entries(REFUSED_KINDS).map(([kind, reason]) => `| ${kind} | | Refused: ${reason}. |`),
    '',
    'Every object has `metadata` with `name`, `namespace`, `labels` and `annotations`; `status` and what the API server writes are not read.',
    '',
    ...shared('A container', CONTAINER_FIELDS),
    ...shared('A pod', POD_FIELDS),
    ...[...new Set(KINDS.map(({ kind }) => kind))].flatMap(kindSection),
    '### Metadata of triggers',
    '',
    ...Object.entries(TRIGGER_METADATA).flatMap(([type, { shape }]) => lines(`\`${type}\``, shape.fields ?? {})),
  ].join('\n');
}

/** A table for an object, then one for each object in it. */
function tables(path: string, fields: Fields): string[] {
  const inner = Object.entries(fields).flatMap(([name, { type }]) => {
    const found = objectIn(type.shape);
    return found === null
      ? []
      : tables(path === '' ? `${name}${found.suffix}` : `${path}.${name}${found.suffix}`, found.fields);
  });
  const rows = Object.entries(fields).map(([name, { type, use, doc }]) => {
    return `| \`${name}\`${use === 'required' ? ' (required)' : ''} | ${cell(type.shape.text)} | ${cell(doc)} |`;
  });
  return [
    ...(path === '' ? [] : [`### \`${path}\``, '']),
    '| field | value | meaning |',
    '|---|---|---|',
    ...rows,
    '',
    ...inner,
  ];
}

function objectIn(shape: Shape): { readonly fields: Fields; readonly suffix: string } | null {
  if (shape.kind === 'object') return { fields: shape.fields ?? {}, suffix: '' };
  if (shape.kind === 'list' && shape.of?.kind === 'object') return { fields: shape.of.fields ?? {}, suffix: '[]' };
  const inner = shape.either?.map(objectIn).find((found) => found !== null);
  return inner ?? null;
}

/** Fields that many objects share are told once. */
const SHARED = new Set<Field<unknown>>([...Object.values(CONTAINER_FIELDS), ...Object.values(POD_FIELDS)]);

function shared(title: string, fields: Fields): string[] {
  return [`### ${title}`, '', ...lines('', fields, new Set())];
}

function kindSection(kind: string): string[] {
  const spec = KINDS.find((known) => known.kind === kind)?.table.shape.fields ?? {};
  const own = Object.fromEntries(
    Object.entries(spec).filter(([name]) => !['apiVersion', 'kind', 'metadata', 'status'].includes(name)),
  );
  return [`### ${kind}`, '', ...lines('', own)];
}

interface Flat {
  readonly path: string;
  readonly use: Field<unknown>['use'];
  readonly doc: string;
}

function lines(title: string, fields: Fields, shares: ReadonlySet<Field<unknown>> = SHARED): string[] {
  const flat = flatten('', fields, shares);
  const read = flat.filter(({ use }) => use === 'required' || use === 'optional').map(({ path }) => `\`${path}\``);
  const line = (head: string, items: readonly string[]) =>
    items.length === 0 ? [] : [`- ${head}: ${items.join(', ')}.`];
  return [
    ...(title === '' ? [] : [`${title}:`, '']),
    ...line('Read', read),
    ...byReason('No effect', 'ignored', flat),
    ...byReason('Refused', 'refused', flat),
    '',
  ];
}

function byReason(head: string, use: Flat['use'], flat: readonly Flat[]): string[] {
  const found = flat.filter((field) => field.use === use);
  const reasons = [...new Set(found.map(({ doc }) => doc))];
  return reasons.map((reason) => {
    const names = found.filter(({ doc }) => doc === reason).map(({ path }) => `\`${path}\``);
    return `- ${head}, ${reason}: ${names.join(', ')}.`;
  });
}

/** An object of a form that was told before in the same list is told by its name alone. */
function flatten(path: string, fields: Fields, shares: ReadonlySet<Field<unknown>>, told = new Set<Fields>()): Flat[] {
  return Object.entries(fields).flatMap(([name, field]) => {
    if (shares.has(field)) return [];
    const here = path === '' ? name : `${path}.${name}`;
    const inner = field.use === 'optional' || field.use === 'required' ? innerOf(field.type.shape) : null;
    if (inner === null || told.has(inner.fields)) return [{ path: here, use: field.use, doc: field.doc }];
    told.add(inner.fields);
    return flatten(`${here}${inner.suffix}`, inner.fields, shares, told);
  });
}

function innerOf(shape: Shape): { readonly fields: Fields; readonly suffix: string } | null {
  if (shape.kind !== 'map') return objectIn(shape);
  return shape.of?.kind === 'object' ? { fields: shape.of.fields ?? {}, suffix: '.*' } : null;
}

const capital = (text: string) => `${text[0]?.toUpperCase()}${text.slice(1)}`;
const cell = (text: string) => text.replaceAll('|', '\\|').replaceAll('<', '&lt;');
