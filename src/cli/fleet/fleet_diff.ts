/** What changes from one fleet to another, by object and field: `tokenmill diff`. Values of variables are not shown. */
import type { FleetSpec } from '../../fleet/spec/fleet_spec.ts';

/** Lines of text; '' when nothing changes. */
export function fleetDiff(before: FleetSpec, after: FleetSpec): string {
  return [
    ...listDiff('service', before.services, after.services, ({ kind }) => ` (${kind})`),
    ...listDiff('route', before.routes, after.routes),
    ...listDiff('graph', before.graphs, after.graphs),
    ...changed('gateway', fieldDiff(before.gateway, after.gateway)),
  ]
    .map((line) => `${line}\n`)
    .join('');
}

interface Named {
  readonly id: string;
}

function listDiff<T extends Named>(
  what: string,
  before: readonly T[],
  after: readonly T[],
  mark: (item: T) => string = () => '',
): string[] {
  const old = new Map(before.map((item) => [item.id, item]));
  const current = new Map(after.map((item) => [item.id, item]));
  return [
    ...before.flatMap((item) => (current.has(item.id) ? [] : [`- ${what} ${item.id}${mark(item)}`])),
    ...after.flatMap((item) => {
      const was = old.get(item.id);
      return was === undefined
        ? [`+ ${what} ${item.id}${mark(item)}`]
        : changed(`${what} ${item.id}`, fieldDiff(was, item));
    }),
  ];
}

interface Change {
  readonly path: string;
  readonly text: string;
}

function changed(name: string, changes: readonly Change[]): string[] {
  if (changes.length === 0) return [];
  const revision = changes.some(({ path }) => path.startsWith('template.')) ? ': makes a new revision' : '';
  return [`~ ${name}${revision}`, ...changes.map(({ path, text }) => `    ${path}: ${text}`)];
}

/** Where an object stands in its file is no change of it. */
const UNREAD = new Set(['at']);
const HIDDEN = /(^|\.)env\./;

function fieldDiff(before: object, after: object): Change[] {
  const old = flatten(before);
  const current = flatten(after);
  const paths = [...new Set([...old.keys(), ...current.keys()])];
  return paths.flatMap((path) => {
    const [was, is] = [old.get(path), current.get(path)];
    if (was === is) return [];
    if (HIDDEN.test(path))
      return [{ path, text: was === undefined ? 'set' : is === undefined ? 'removed' : 'changed' }];
    return [{ path, text: `${was ?? 'not given'} -> ${is ?? 'not given'}` }];
  });
}

/** Path of each leaf -> its text. Lists of objects go by name, or by place; other lists are leaves. */
function flatten(value: object): Map<string, string> {
  const leaves = new Map<string, string>();
  const walk = (part: unknown, path: string) => {
    if (Array.isArray(part) && part.some((item) => typeof item === 'object' && item !== null)) {
      const seen = new Set<string>();
      for (const [i, item] of part.entries()) {
        const name = (item as { name?: unknown } | null)?.name;
        const key = typeof name === 'string' && !seen.has(name) ? name : String(i);
        seen.add(key);
        walk(item, `${path}[${key}]`);
      }
    } else if (Array.isArray(part)) leaves.set(path, part.length === 0 ? 'none' : part.map(String).join(' '));
    else if (typeof part === 'object' && part !== null) {
      for (const [key, item] of Object.entries(part)) {
        if (path !== '' || !UNREAD.has(key)) walk(item, path === '' ? key : `${path}.${key}`);
      }
    } else leaves.set(path, part === null || part === undefined ? 'none' : part === '' ? "''" : String(part));
  };
  walk(value, '');
  return leaves;
}
