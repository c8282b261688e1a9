/** Rules about single files: the engine room's purity, sizes, names. */
import { basename } from 'node:path';
import { Visitor } from 'oxc-parser';
import { isTest, lineAt, type Source } from './sources.ts';

export const MAX_FILE_LINES = 500;
export const MAX_FUNCTION_LINES = 70;

/** What a step may not read or wait for: a step is deterministic because nothing interleaves with it. */
const IMPURE_NAMES = new Set([
  'setTimeout',
  'setInterval',
  'setImmediate',
  'queueMicrotask',
  'Promise',
  'Date',
  'performance',
  'process',
]);

/** `async`, promises, timers, clocks, randomness and the environment in src/engine, as sentences. */
export function engineViolations({ path, text, parsed }: Source): string[] {
  if (!path.startsWith('src/engine/') || isTest(path)) return [];
  const violations: string[] = [];
  const report = (start: number, what: string) =>
    violations.push(`${path}:${lineAt(text, start)}: ${what} in the engine room`);
  const checkFunction = (node: { async: boolean; start: number }) => {
    if (node.async) report(node.start, 'an async function');
  };
  new Visitor({
    FunctionDeclaration: checkFunction,
    FunctionExpression: checkFunction,
    ArrowFunctionExpression: checkFunction,
    AwaitExpression: (node) => report(node.start, 'await'),
    Identifier: (node) => {
      if (IMPURE_NAMES.has(node.name)) report(node.start, node.name);
    },
    MemberExpression: (node) => {
      if (text.slice(node.start, node.end) === 'Math.random') report(node.start, 'Math.random');
    },
  }).visit(parsed.program);
  return violations;
}

const countLines = (text: string) => text.split('\n').length - (text.endsWith('\n') ? 1 : 0);

/** Lines of every file and function beyond the limit, by `path` or `path:function`. */
export function oversized({ path, text, parsed }: Source): Record<string, number> {
  const found: Record<string, number> = {};
  if (countLines(text) > MAX_FILE_LINES) found[path] = countLines(text);
  const measure = (name: string, node: { start: number; end: number }) => {
    const lines = lineAt(text, node.end) - lineAt(text, node.start) + 1;
    // The callbacks of describe() in tests hold many small functions; the file limit is theirs.
    if (lines > MAX_FUNCTION_LINES && !path.endsWith('.test.ts')) found[`${path}:${name}`] = lines;
  };
  new Visitor({
    FunctionDeclaration: (node) => measure(node.id?.name ?? 'default', node),
    MethodDefinition: (node) => measure(text.slice(node.key.start, node.key.end), node),
    VariableDeclarator: (node) => {
      const kind = node.init?.type;
      if (kind === 'ArrowFunctionExpression' || kind === 'FunctionExpression') {
        measure(text.slice(node.id.start, node.id.end).split(':')[0] as string, node);
      }
    },
  }).visit(parsed.program);
  return found;
}

/** C++ is held to the file limit only. */
export function oversizedText(path: string, text: string): Record<string, number> {
  return countLines(text) > MAX_FILE_LINES ? { [path]: countLines(text) } : {};
}

/**
 * Compares with the recorded excess. The record may only shrink: something new over the limit is a violation, and so is
 * an entry that is larger than what it records.
 */
export function ratchetViolations(
  found: Readonly<Record<string, number>>,
  recorded: Readonly<Record<string, number>>,
): string[] {
  const violations: string[] = [];
  for (const [name, lines] of Object.entries(found)) {
    const limit = recorded[name];
    if (limit === undefined)
      violations.push(
        `${name}: ${lines} lines; the limits are ${MAX_FILE_LINES} a file and ${MAX_FUNCTION_LINES} a function`,
      );
    else if (lines > limit) violations.push(`${name}: ${lines} lines, grown from ${limit}`);
  }
  for (const [name, limit] of Object.entries(recorded)) {
    const lines = found[name];
    if (lines === undefined)
      violations.push(`${name}: within the limits now; remove it from scripts/tidy_ratchet.json`);
    else if (lines < limit)
      violations.push(`${name}: ${lines} lines now; lower it from ${limit} in scripts/tidy_ratchet.json`);
  }
  return violations;
}

export function nameViolation(path: string): string | null {
  const name = basename(path);
  const snake = /^[a-z0-9]+(_[a-z0-9]+)*(\.[a-z0-9_]+)*$/;
  return snake.test(name) ? null : `${path}: file names are snake_case`;
}
