/** The documents of all files as objects: who they are, by kind, each once. */
import { nearestName } from '../../base/nearest.ts';
import { NAMESPACE } from './defaults.ts';
import { ObjectContext, type Problems } from './problems.ts';
import type { Type } from './schema.ts';
import type { YamlMap, YamlNode } from './yaml_tree.ts';

export interface Kind<T> {
  readonly group: string;
  readonly versions: readonly string[];
  readonly kind: string;
  readonly table: Type<T>;
  /** Has no namespace. */
  readonly cluster?: true;
}

export interface Manifest {
  readonly apiVersion: string;
  readonly kind: string;
  readonly namespace: string;
  readonly name: string;
  /** Its kind has no namespaces: it is known in all of them. */
  readonly cluster: boolean;
  readonly cx: ObjectContext;
}

/** An object whose form is sound. */
export interface ReadObject<T> extends Manifest {
  readonly value: T;
}

export interface DocumentSorts {
  readonly manifests: readonly Manifest[];
  /** Documents of the short form. */
  readonly native: readonly YamlMap[];
}

/** Tells manifests from the short form; a `List` is opened. */
export function sortDocuments(
  documents: readonly YamlNode[],
  clusterKinds: ReadonlySet<string>,
  problems: Problems,
): DocumentSorts {
  const manifests: Manifest[] = [];
  const native: YamlMap[] = [];
  for (const node of documents.flatMap(openList)) {
    if (node.kind !== 'map') {
      problems.add(node.at, 'a document must be an object: one with apiVersion and kind, or one with models');
    } else if (node.entries.has('apiVersion') || node.entries.has('kind')) {
      const manifest = manifestOf(node, clusterKinds, problems);
      if (manifest !== null) manifests.push(manifest);
    } else native.push(node);
  }
  return { manifests, native };
}

function openList(node: YamlNode): readonly YamlNode[] {
  const items = textOf(node, 'kind') === 'List' && node.kind === 'map' ? node.entries.get('items')?.value : undefined;
  return items?.kind === 'list' ? items.items : [node];
}

function textOf(node: YamlNode | undefined, key: string): string | null {
  const value = node?.kind === 'map' ? node.entries.get(key)?.value : undefined;
  return value?.kind === 'scalar' && typeof value.value === 'string' ? value.value : null;
}

function manifestOf(node: YamlMap, clusterKinds: ReadonlySet<string>, problems: Problems): Manifest | null {
  const [apiVersion, kind] = [textOf(node, 'apiVersion'), textOf(node, 'kind')];
  if (apiVersion === null || kind === null) {
    problems.add(node.at, `an object of Kubernetes needs ${apiVersion === null ? 'apiVersion' : 'kind'}`);
    return null;
  }
  const metadata = node.entries.get('metadata')?.value;
  const name = textOf(metadata, 'name') ?? '?';
  const namespace = textOf(metadata, 'namespace') ?? NAMESPACE;
  const cluster = clusterKinds.has(kind);
  const object = cluster ? `${kind} ${name}` : `${kind} ${namespace}/${name}`;
  return { apiVersion, kind, namespace, name, cluster, cx: new ObjectContext(object, node, problems) };
}

export class Objects {
  private readonly manifests: readonly Manifest[];
  private readonly names = new Map<string, Manifest>();

  constructor(manifests: readonly Manifest[]) {
    this.manifests = manifests;
    for (const manifest of manifests) {
      const key = keyOf(manifest.kind, manifest.cluster ? '' : manifest.namespace, manifest.name);
      const first = this.names.get(key);
      if (first === undefined) this.names.set(key, manifest);
      else if (sameGroup(first, manifest)) {
        const { file, line } = first.cx.at;
        manifest.cx.error([], `is given twice, first at ${file}:${line}`);
      }
    }
  }

  /** Whether the files have one in the namespace or for all, sound or not: a reference to a broken object is not a second problem. */
  has(kind: string, namespace: string, name: string): boolean {
    return this.names.has(keyOf(kind, namespace, name)) || this.names.has(keyOf(kind, '', name));
  }

  /** Every object of a kind that could be read; others were reported. */
  read<T>(kind: Kind<T>): ReadObject<T>[] {
    const found = this.manifests.filter((manifest) => manifest.kind === kind.kind && groupOf(manifest) === kind.group);
    return found.flatMap((manifest) => {
      const version = manifest.apiVersion.split('/').at(-1) as string;
      if (!kind.versions.includes(version)) {
        const versions = kind.versions.map((known) => [kind.group, known].filter(Boolean).join('/'));
        manifest.cx.error(
          ['apiVersion'],
          `${manifest.apiVersion} is not read here; ${versions.join(' and ')} ${versions.length > 1 ? 'are' : 'is'}`,
        );
        return [];
      }
      const value = kind.table.read(manifest.cx.root, [], manifest.cx);
      return value === undefined ? [] : [{ ...manifest, value }];
    });
  }

  /** Kinds that nobody reads are refused by name. */
  refuseOthers(
    known: readonly { readonly group: string; readonly kind: string }[],
    reasons: Readonly<Record<string, string>>,
  ): void {
    for (const manifest of this.manifests) {
      const group = groupOf(manifest);
      if (known.some((kind) => kind.kind === manifest.kind && kind.group === group)) continue;
      const reason = Object.hasOwn(reasons, manifest.kind) ? reasons[manifest.kind] : null;
      const sameName = known.find((kind) => kind.kind === manifest.kind);
      const near = nearestName(
        manifest.kind,
        known.map(({ kind }) => kind),
      );
      if (reason) manifest.cx.error(['kind'], `is not supported: ${reason}`);
      else if (sameName)
        manifest.cx.error(['apiVersion'], `${manifest.apiVersion} has no ${manifest.kind}; ${sameName.group} has`);
      else
        manifest.cx.error(
          ['kind'],
          `${manifest.kind} of ${manifest.apiVersion} is not known here${near ? `; did you mean ${near}?` : ''}`,
        );
    }
  }
}

const keyOf = (kind: string, namespace: string, name: string) => `${kind} ${namespace}/${name}`;
const groupOf = ({ apiVersion }: Manifest) => (apiVersion.includes('/') ? (apiVersion.split('/')[0] as string) : '');
const sameGroup = (a: Manifest, b: Manifest) => groupOf(a) === groupOf(b);
