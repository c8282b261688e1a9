/** Our tables against the CRDs of the projects: same fields, same types, and sample files that a cluster would take. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { parse, parseAllDocuments } from 'yaml';
import { KINDS } from './read_fleet.ts';
import type { Fields, Shape } from './schema.ts';

interface CrdSchema {
  readonly type?: string;
  readonly properties?: Readonly<Record<string, CrdSchema>>;
  readonly additionalProperties?: CrdSchema | boolean;
  readonly items?: CrdSchema;
  readonly required?: readonly string[];
  readonly enum?: readonly unknown[];
  readonly 'x-kubernetes-int-or-string'?: boolean;
  readonly 'x-kubernetes-preserve-unknown-fields'?: boolean;
}

interface Crd {
  readonly spec: {
    readonly group: string;
    readonly names: { readonly kind: string };
    readonly versions: readonly { readonly name: string; readonly schema: { readonly openAPIV3Schema: CrdSchema } }[];
  };
}

const ROOT = fileURLToPath(new URL('../../../../shared/crds', import.meta.url));
const present = existsSync(ROOT);
if (!present) console.warn(`skipped: the CRDs are not at ${ROOT}`);

/** Of the kinds we read. */
const FILES =
  /inferenceservices|servingruntimes|inferencegraphs|scaledobjects|triggerauthentications|httproutes|_gateways|inferencepools|inferenceobjectives/;

/** `group/Kind` -> schema by version. */
function readCrds(): Map<string, Map<string, CrdSchema>> {
  const found = new Map<string, Map<string, CrdSchema>>();
  if (!present) return found;
  for (const folder of readdirSync(ROOT, { withFileTypes: true }).filter((entry) => entry.isDirectory())) {
    for (const file of readdirSync(`${ROOT}/${folder.name}`).filter((name) => FILES.test(name))) {
      const { spec } = parse(readFileSync(`${ROOT}/${folder.name}/${file}`, 'utf8')) as Crd;
      const versions = spec.versions.map(({ name, schema }) => [name, schema.openAPIV3Schema] as const);
      found.set(`${spec.group}/${spec.names.kind}`, new Map(versions));
    }
  }
  return found;
}

const crds = readCrds();
const kinds = KINDS.filter(({ group, kind }) => crds.has(`${group}/${kind}`));

const TYPES: Readonly<Record<Shape['kind'], readonly string[]>> = {
  string: ['string'],
  int: ['integer'],
  number: ['number', 'integer'],
  bool: ['boolean'],
  intOrString: ['string', 'integer'],
  list: ['array'],
  map: ['object'],
  object: ['object'],
  any: [],
  either: [],
};

/** What of the table is not as the CRD has it. `versions` are the schemas of the same place. */
function differences(shape: Shape, versions: readonly CrdSchema[], path: string): string[] {
  if (versions.some((schema) => schema['x-kubernetes-preserve-unknown-fields'])) return [];
  const wrongType = versions.filter((schema) => shape.kind !== 'any' && !fits(shape, schema));
  if (wrongType.length > 0) return [`${path}: ${shape.kind}, the CRD has ${wrongType.map(({ type }) => type)}`];
  if (shape.kind === 'list' && shape.of)
    return differences(
      shape.of,
      all(versions, ({ items }) => items),
      `${path}[]`,
    );
  if (shape.kind === 'map' && shape.of) {
    const values = all(versions, ({ additionalProperties }) =>
      typeof additionalProperties === 'object' ? additionalProperties : undefined,
    );
    return differences(shape.of, values, `${path}.*`);
  }
  const { choices } = shape;
  const unknownChoices = (choices ?? []).filter((choice) =>
    versions.some((schema) => schema.enum && !schema.enum.includes(choice)),
  );
  if (unknownChoices.length > 0) return [`${path}: the CRD has no ${unknownChoices}`];
  return shape.fields ? objectDifferences(shape.fields, versions, path) : [];
}

function fits(shape: Shape, schema: CrdSchema): boolean {
  if (schema['x-kubernetes-int-or-string']) return shape.kind === 'intOrString';
  return TYPES[shape.kind].includes(schema.type ?? '');
}

const all = (versions: readonly CrdSchema[], of: (schema: CrdSchema) => CrdSchema | undefined) =>
  versions.map(of).filter((schema) => schema !== undefined);

function objectDifferences(fields: Fields, versions: readonly CrdSchema[], path: string): string[] {
  const found: string[] = [];
  const known = new Set(versions.flatMap((schema) => Object.keys(schema.properties ?? {})));
  for (const [name, field] of Object.entries(fields)) {
    const here = path === '' ? name : `${path}.${name}`;
    if (here === 'metadata' || here === 'status') continue;
    if (!known.has(name)) {
      found.push(`${here}: the CRD has no such field`);
      continue;
    }
    const inner = all(versions, (schema) => schema.properties?.[name]);
    const asked = versions.some((schema) => schema.required?.includes(name));
    if (asked && field.use === 'optional') found.push(`${here}: the CRD requires it`);
    if (field.use === 'required' || field.use === 'optional') found.push(...differences(field.type.shape, inner, here));
  }
  // An unknown field is an error, so what a cluster takes must be known, be it refused.
  for (const name of known)
    if (!Object.hasOwn(fields, name)) found.push(`${path}.${name}: is in the CRD and not in the table`);
  return found;
}

/** Differences that are meant. */
const MEANT: readonly string[] = [
  // A debugging aid that the stable predictor of the same CRD does not have.
  'spec.canary[].predictor.ephemeralContainers: is in the CRD and not in the table',
  // KServe's copies of the types of KEDA and of the Gateway API, an older one and one of the experimental channel.
  'spec.scaling.keda.fallback.behavior: the CRD has no scalingModifiers',
  'spec.router.route.http.spec.rules[].filters[].externalAuth: is in the CRD and not in the table',
  'spec.router.route.http.spec.rules[].retry: is in the CRD and not in the table',
  'spec.router.route.http.spec.rules[].sessionPersistence: is in the CRD and not in the table',
  'spec.router.route.http.spec.useDefaultGateways: is in the CRD and not in the table',
];

describe.skipIf(!present)('tables and CRDs', () => {
  it('all kinds of the projects have their CRD', () => {
    const own = KINDS.filter(({ group, kind }) => group !== '' && kind !== 'HorizontalPodAutoscaler');
    expect(own.filter(({ group, kind }) => !crds.has(`${group}/${kind}`))).toEqual([]);
  });

  it.each(kinds.map((kind) => [`${kind.group} ${kind.kind}`, kind] as const))(
    '%s',
    (_name, { group, kind, versions, table }) => {
      const schemas = versions.map((version) => crds.get(`${group}/${kind}`)?.get(version));
      expect(schemas).not.toContain(undefined);
      expect(differences(table.shape, schemas as CrdSchema[], '').filter((line) => !MEANT.includes(line))).toEqual([]);
    },
  );

  it('sample files have only fields of the CRDs', () => {
    const text = readFileSync(new URL('testdata/accepted.txt', import.meta.url), 'utf8');
    const samples = text
      .split(/^@@ /m)
      .slice(1)
      .flatMap((part) => {
        const yaml = part.slice(part.indexOf('\n') + 1, part.search(/^=>$/m));
        return parseAllDocuments(yaml, { merge: true }).map((document) => document.toJS() as Sample);
      });
    const checked = samples.filter(({ apiVersion }) => apiVersion !== undefined).map(unknownFields);
    expect(checked.length).toBeGreaterThan(25);
    expect(checked.flat()).toEqual([]);
  });
});

interface Sample {
  readonly apiVersion?: string;
  readonly kind?: string;
}

function unknownFields(sample: Sample): string[] {
  const [group = '', version = ''] = (sample.apiVersion ?? '').split('/');
  const schema = crds.get(`${group}/${sample.kind}`)?.get(version);
  if (schema === undefined) return [];
  const walk = (value: unknown, at: CrdSchema, path: string): string[] => {
    if (Array.isArray(value))
      return value.flatMap((item, i) => (at.items ? walk(item, at.items, `${path}[${i}]`) : []));
    if (typeof value !== 'object' || value === null || at.properties === undefined) return [];
    return Object.entries(value).flatMap(([key, item]) => {
      const inner = at.properties?.[key];
      return inner === undefined ? [`${sample.kind} ${path}.${key}`] : walk(item, inner, `${path}.${key}`);
    });
  };
  return walk(sample, schema, '');
}
