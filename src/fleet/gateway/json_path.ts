/**
 * Conditions of an InferenceGraph: paths of tidwall/gjson that are asked whether they lead anywhere. Supported: keys with the wildcards
 * `*` and `?`, escapes by `\`, indexes, `#`, `#(key op value)`, `#(...)#`, `@this` and `[@this]`. The rest is refused by name.
 */
import { TokenmillError } from '../../base/errors.ts';

export type Condition = (value: unknown) => boolean;

type Step = (value: unknown) => unknown;

const MAX_PATH_CHARS = 4096;
const MAX_STEPS = 64;

function refuse(path: string, why: string): never {
  throw new TokenmillError('invalid_manifest', `The condition ${JSON.stringify(path.slice(0, 200))} ${why}.`, {
    remedy: 'Write it with keys, indexes, #, #(key op value) and @this.',
  });
}

/** Parts between dots that are neither escaped nor within brackets or quotes. */
function split(path: string): string[] {
  const parts: string[] = [];
  let part = '';
  let depth = 0;
  let quoted = false;
  for (let i = 0; i < path.length; i++) {
    const char = path[i] as string;
    if (char === '\\' && i + 1 < path.length) {
      part += char + path[++i];
      continue;
    }
    if (char === '"') quoted = !quoted;
    if (!quoted && (char === '(' || char === '[')) depth++;
    if (!quoted && (char === ')' || char === ']')) depth--;
    if (char === '|' && depth === 0 && !quoted) refuse(path, 'has a pipe, which is not supported');
    if (char === '.' && depth === 0 && !quoted) {
      parts.push(part);
      part = '';
    } else part += char;
  }
  if (depth !== 0 || quoted) refuse(path, 'has a bracket or a quote without its other');
  parts.push(part);
  return parts;
}

const unescaped = (text: string): string => text.replace(/\\(.)/g, '$1');

/** Wildcards as gjson has them, without backtracking beyond the last star. */
function globMatches(pattern: string, text: string): boolean {
  let p = 0;
  let t = 0;
  let star = -1;
  let mark = 0;
  while (t < text.length) {
    if (pattern[p] === '*') {
      star = p++;
      mark = t;
    } else if (pattern[p] === '?' || (pattern[p] === '\\' ? pattern[p + 1] === text[t] : pattern[p] === text[t])) {
      p += pattern[p] === '\\' ? 2 : 1;
      t++;
    } else if (star >= 0) {
      p = star + 1;
      t = ++mark;
    } else return false;
  }
  while (pattern[p] === '*') p++;
  return p === pattern.length;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function keyStep(part: string): Step {
  const wild = /(?<!\\)[*?]/.test(part);
  const key = unescaped(part);
  const index = /^\d{1,9}$/.test(key) ? Number(key) : -1;
  return (value) => {
    if (Array.isArray(value)) return index >= 0 ? value[index] : undefined;
    if (!isObject(value)) return undefined;
    if (!wild) return Object.hasOwn(value, key) ? value[key] : undefined;
    const found = Object.keys(value).find((name) => globMatches(part, name));
    return found === undefined ? undefined : value[found];
  };
}

const COMPARE: Readonly<Record<string, (a: string | number, b: string | number) => boolean>> = {
  '==': (a, b) => a === b,
  '=': (a, b) => a === b,
  '!=': (a, b) => a !== b,
  '<': (a, b) => a < b,
  '<=': (a, b) => a <= b,
  '>': (a, b) => a > b,
  '>=': (a, b) => a >= b,
};

interface Comparison {
  readonly left: string;
  readonly operator: string;
  readonly right: string;
}

/** The first operator that is not within quotes or an inner query. */
function comparisonOf(query: string): Comparison | null {
  let depth = 0;
  let quoted = false;
  for (let i = 0; i < query.length; i++) {
    const char = query[i] as string;
    if (char === '\\') i++;
    else if (char === '"') quoted = !quoted;
    else if (!quoted && char === '(') depth++;
    else if (!quoted && char === ')') depth--;
    else if (!quoted && depth === 0) {
      const operator = /^(?:==|!=|<=|>=|!%|=|<|>|%)/.exec(query.slice(i, i + 2))?.[0];
      if (operator === undefined) continue;
      return { left: query.slice(0, i).trim(), operator, right: query.slice(i + operator.length).trim() };
    }
  }
  return null;
}

/** `key op value` of a query; gjson compares strings with strings and numbers with numbers. */
function queryTest(path: string, query: string): Condition {
  const comparison = comparisonOf(query);
  if (comparison === null) {
    const exists = compileSteps(path, query.trim());
    return (item) => exists(item) !== undefined;
  }
  const left: Step = comparison.left === '' ? (item) => item : compileSteps(path, comparison.left);
  const { operator } = comparison;
  const right = literal(path, comparison.right);
  if (operator === '%' || operator === '!%') {
    const pattern = String(right);
    return (item) => {
      const value = left(item);
      return typeof value === 'string' && globMatches(pattern, value) === (operator === '%');
    };
  }
  const compare = COMPARE[operator] as (a: string | number, b: string | number) => boolean;
  return (item) => {
    const value = left(item);
    if (typeof right === 'boolean' || right === null) return compare(String(value), String(right));
    return typeof value === typeof right && compare(value as string | number, right);
  };
}

function literal(path: string, text: string): string | number | boolean | null {
  try {
    const value: unknown = JSON.parse(text);
    if (value === null || typeof value !== 'object') return value as string | number | boolean | null;
  } catch {
    // Told below.
  }
  return refuse(path, `compares with ${text.slice(0, 40)}, which is no string, number, true, false or null`);
}

function listStep(path: string, part: string): { readonly step: Step; readonly spreads: boolean } {
  if (part === '#') return { step: (value) => (Array.isArray(value) ? value : undefined), spreads: true };
  const query = /^#\((.*)\)(#?)$/s.exec(part);
  if (query === null) return refuse(path, `has ${part.slice(0, 40)}, which is not supported`);
  const test = queryTest(path, query[1] as string);
  if (query[2] === '#') {
    return { step: (value) => (Array.isArray(value) ? value.filter(test) : undefined), spreads: true };
  }
  return { step: (value) => (Array.isArray(value) ? value.find(test) : undefined), spreads: false };
}

function compileSteps(path: string, text: string): Step {
  const parts = split(text);
  if (parts.length > MAX_STEPS) refuse(path, `has more than ${MAX_STEPS} parts`);
  return parts.reduceRight<Step>(
    (rest, part) => {
      if (part === '@this') return rest;
      if (part === '[@this]') return (value) => rest([value]);
      if (part.startsWith('@') || part.startsWith('[') || part.startsWith('{') || part.startsWith('!'))
        return refuse(path, `has ${part.slice(0, 40)}, which is not supported`);
      if (!part.startsWith('#')) {
        const step = keyStep(part);
        return (value) => {
          const next = step(value);
          return next === undefined ? undefined : rest(next);
        };
      }
      const { step, spreads } = listStep(path, part);
      const last = parts.at(-1) === part;
      return (value) => {
        const next = step(value);
        if (next === undefined) return undefined;
        // Behind `#` every item is asked, and a list is there even when it is empty.
        return spreads && !last ? (next as unknown[]).map(rest).filter((item) => item !== undefined) : rest(next);
      };
    },
    (value) => value,
  );
}

/** @throws TokenmillError invalid_manifest */
export function compileCondition(path: string): Condition {
  if (path === '' || path.length > MAX_PATH_CHARS) refuse(path, `is empty or longer than ${MAX_PATH_CHARS} characters`);
  const find = compileSteps(path, path);
  return (value) => find(value) !== undefined;
}
