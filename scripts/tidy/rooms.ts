/** Who may import whom. Nothing imports upward, or sideways beyond this table; docs/architecture.md prints it. */
import { posix } from 'node:path';
import { isTest, lineAt, type Source } from './sources.ts';

/** A room, or one file of a room, and what it may import: rooms or single files. */
export const MAY_IMPORT: Readonly<Record<string, readonly string[] | 'any'>> = {
  base: [],
  config: ['base'],
  metrics: ['base'],
  tokenizer: ['base'],
  hub: ['base'],
  quant: ['base'],
  ops: ['base', 'quant'],
  program: ['base', 'ops'],
  models: ['base', 'program'],
  backends: ['base', 'quant', 'ops', 'program'],
  weights: ['base', 'quant', 'program', 'backends/backend.ts'],
  engine: ['base', 'config'],
  // StepInputs, which the executor fills and a backend reads, is part of the op table's contract.
  executor: ['base', 'config', 'engine', 'ops/define_op.ts', 'program', 'models', 'weights', 'backends'],
  client: ['base', 'config', 'metrics', 'tokenizer', 'hub', 'engine'],
  'client/engine_thread.ts': ['base', 'config', 'metrics', 'tokenizer', 'hub', 'engine', 'executor'],
  server: ['base', 'config', 'metrics', 'client'],
  fleet: ['base', 'config', 'metrics'],
  cli: 'any',
  'index.ts': 'any',
};

/** Rooms that stand on Node alone: no package of the registry. */
export const WITHOUT_PACKAGES = [
  'base',
  'quant',
  'ops',
  'program',
  'models',
  'backends',
  'weights',
  'engine',
  'executor',
];

interface Import {
  readonly specifier: string;
  readonly line: number;
}

export function importsOf({ text, parsed }: Source): Import[] {
  const { staticImports, staticExports, dynamicImports } = parsed.module;
  const found: Import[] = staticImports.map(({ moduleRequest, start }) => ({
    specifier: moduleRequest.value,
    line: lineAt(text, start),
  }));
  for (const { entries, start } of staticExports) {
    const request = entries.find((entry) => entry.moduleRequest != null)?.moduleRequest;
    if (request != null) found.push({ specifier: request.value, line: lineAt(text, start) });
  }
  for (const { moduleRequest, start } of dynamicImports) {
    const literal = /^(['"`])([^'"`]*)\1$/.exec(text.slice(moduleRequest.start, moduleRequest.end));
    if (literal !== null) found.push({ specifier: literal[2] as string, line: lineAt(text, start) });
  }
  return found;
}

const roomOf = (path: string) => path.split('/')[0] as string;

/** A backend is a room of its own inside `backends`: reference and cpu do not know each other. */
function isOtherBackend(from: string, to: string): boolean {
  const [, fromBackend, fromFile] = from.split('/');
  const [, toBackend, toFile] = to.split('/');
  return fromFile !== undefined && toFile !== undefined && fromBackend !== toBackend;
}

/** Imports of `source` (a file below src/) that the table does not allow, as sentences. */
export function importViolations(source: Source): string[] {
  if (!source.path.startsWith('src/') || isTest(source.path)) return [];
  const from = source.path.slice('src/'.length);
  const room = roomOf(from);
  const allowed = MAY_IMPORT[from] ?? MAY_IMPORT[room];
  if (allowed === undefined) return [`${source.path}: src/${room} is not a room of the table in scripts/tidy/rooms.ts`];
  const violations: string[] = [];
  for (const { specifier, line } of importsOf(source)) {
    const where = `${source.path}:${line}`;
    if (!specifier.startsWith('.')) {
      const isPackage = !specifier.startsWith('node:');
      if (isPackage && WITHOUT_PACKAGES.includes(room))
        violations.push(`${where}: ${room} uses no package, found ${specifier}`);
      continue;
    }
    const to = posix.normalize(posix.join(posix.dirname(from), specifier));
    if (to.startsWith('..')) violations.push(`${where}: ${specifier} leaves src/`);
    else if (roomOf(to) === room) {
      if (room === 'backends' && isOtherBackend(from, to))
        violations.push(`${where}: one backend imports another, ${to}`);
    } else if (allowed !== 'any' && !allowed.includes(roomOf(to)) && !allowed.includes(to)) {
      violations.push(`${where}: ${room} may not import ${to}`);
    }
  }
  return violations;
}
