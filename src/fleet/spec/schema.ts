/**
 * Tables of fields, and how a YAML tree is read by one: every field is known by name, has a type, and is used, has no effect here
 * (a notice), or is refused with the reason. The same tables write docs/fleet_file.md and are held against the CRDs.
 */
import { nearestName } from '../../base/nearest.ts';
import { show } from '../../base/show.ts';
import { parseQuantity } from '../quantity.ts';
import { parseDuration } from './duration.ts';
import type { ObjectContext, Path } from './problems.ts';
import type { YamlMap, YamlNode, YamlScalar } from './yaml_tree.ts';

/** How a type looks from outside. */
export interface Shape {
  readonly kind: 'string' | 'int' | 'number' | 'bool' | 'intOrString' | 'list' | 'map' | 'object' | 'any' | 'either';
  /** As a person reads it: `a whole number from 0`. */
  readonly text: string;
  /** All values that are allowed. */
  readonly choices?: readonly string[];
  readonly of?: Shape;
  readonly either?: readonly Shape[];
  readonly fields?: Fields;
}

export interface Type<T> {
  readonly shape: Shape;
  /** undefined: it was reported. */
  read(node: YamlNode, path: Path, cx: ObjectContext): T | undefined;
}

export interface Field<T> {
  readonly type: Type<unknown>;
  readonly use: 'required' | 'optional' | 'ignored' | 'refused';
  /** What it means; of `ignored` and `refused` the reason. */
  readonly doc: string;
  /** Keeps T apart; has no value. */
  readonly value?: T;
}

export type Fields = Readonly<Record<string, Field<unknown>>>;
export type ValuesOf<F extends Fields> = { readonly [K in keyof F]: F[K] extends Field<infer T> ? T : never };
export type ReadBy<T> = T extends Type<infer V> ? V : never;

export const required = <T>(type: Type<T>, doc = ''): Field<T> => ({ type, use: 'required', doc });
export const optional = <T>(type: Type<T>, doc = ''): Field<T | null> => ({ type, use: 'optional', doc });
/** Accepted with a notice. */
export const ignored = (doc: string): Field<null> => ({ type: any(), use: 'ignored', doc });
/** An error, unless it is null, false or an empty list, which ask for nothing. */
export const refused = (doc: string): Field<null> => ({ type: any(), use: 'refused', doc });

/** The same reason for many fields. */
export function ignoredAll<const K extends string>(names: readonly K[], doc: string): Record<K, Field<null>> {
  return Object.fromEntries(names.map((name) => [name, ignored(doc)])) as Record<K, Field<null>>;
}

export function refusedAll<const K extends string>(names: readonly K[], doc: string): Record<K, Field<null>> {
  return Object.fromEntries(names.map((name) => [name, refused(doc)])) as Record<K, Field<null>>;
}

/** Anything; not looked into. */
export function any(): Type<unknown> {
  return { shape: { kind: 'any', text: 'anything' }, read: () => null };
}

function scalar<T>(shape: Shape, parse: (node: YamlScalar) => T | undefined): Type<T> {
  return {
    shape,
    read(node, path, cx) {
      const value = node.kind === 'scalar' ? parse(node) : undefined;
      if (value === undefined) cx.error(path, `is ${showNode(node)}; it must be ${shape.text}${hint(shape, node)}`);
      return value;
    },
  };
}

function showNode(node: YamlNode): string {
  if (node.kind === 'map') return 'an object';
  if (node.kind === 'list') return `a list of ${node.items.length}`;
  if (node.value === null) return 'empty';
  return typeof node.value === 'number' ? node.text.slice(0, 80) : show(node.value);
}

/** YAML 1.1, which Kubernetes reads, takes these for true and false. */
const OLD_BOOLEANS: Readonly<Record<string, boolean>> = { yes: true, on: true, no: false, off: false };
const oldBoolean = (node: YamlScalar) => (node.quoted ? undefined : OLD_BOOLEANS[node.text.toLowerCase()]);

function hint(shape: Shape, node: YamlNode): string {
  if (node.kind !== 'scalar' || node.value === null) return '';
  if (shape.kind === 'string' && (typeof node.value !== 'string' || oldBoolean(node) !== undefined)) {
    return `; write "${node.text}" in quotes`;
  }
  return '';
}

export interface StringRules {
  readonly pattern?: RegExp;
  /** What the pattern asks for, as a person says it. */
  readonly form?: string;
  readonly maxLength?: number;
  readonly allowEmpty?: boolean;
}

const MAX_STRING = 65_536;

export function str({ pattern, form, maxLength = MAX_STRING, allowEmpty = false }: StringRules = {}): Type<string> {
  return scalar({ kind: 'string', text: form ?? 'text' }, (node) => {
    if (typeof node.value !== 'string' || oldBoolean(node) !== undefined) return undefined;
    const fits = node.value.length <= maxLength && (allowEmpty || node.value !== '') && !node.value.includes('\0');
    return fits && (pattern === undefined || pattern.test(node.value)) ? node.value : undefined;
  });
}

/** Words, numbers and booleans alike, as they are written. */
export function looseText(): Type<string> {
  return scalar({ kind: 'string', text: 'text or a number' }, (node) =>
    node.value === null || node.text.includes('\0') ? undefined : node.text,
  );
}

export function oneOf<const T extends string>(...choices: readonly T[]): Type<T> {
  const text = choices.length === 1 ? (choices[0] as string) : `one of ${choices.join(', ')}`;
  return scalar({ kind: 'string', text, choices }, (node) => choices.find((choice) => choice === node.value));
}

export function bool(): Type<boolean> {
  return scalar({ kind: 'bool', text: 'true or false' }, (node) =>
    typeof node.value === 'boolean' ? node.value : oldBoolean(node),
  );
}

export interface Range {
  readonly min?: number;
  readonly max?: number;
}

const INT32_MAX = 2 ** 31 - 1;

function rangeText(what: string, { min, max }: Range): string {
  if (min !== undefined && max !== undefined) return `${what} from ${min} to ${max}`;
  if (min !== undefined) return `${what} from ${min}`;
  return max === undefined ? what : `${what} up to ${max}`;
}

const within = (value: number, { min = Number.NEGATIVE_INFINITY, max = Number.POSITIVE_INFINITY }: Range) =>
  value >= min && value <= max;

export function int(range: Range = {}): Type<number> {
  const limits = { min: range.min ?? -INT32_MAX, max: range.max ?? INT32_MAX };
  return scalar({ kind: 'int', text: rangeText('a whole number', range) }, (node) => {
    // 010 is 8 for Kubernetes and 10 here: neither is meant with certainty.
    const octal = /^[+-]?0\d/.test(node.text);
    return Number.isSafeInteger(node.value) && !octal && within(node.value as number, limits)
      ? (node.value as number)
      : undefined;
  });
}

export function number(range: Range = {}): Type<number> {
  return scalar({ kind: 'number', text: rangeText('a number', range) }, (node) =>
    typeof node.value === 'number' && Number.isFinite(node.value) && within(node.value, range) ? node.value : undefined,
  );
}

export interface Quantity {
  readonly value: number;
  readonly text: string;
}

/** `500m`, `2Gi`: from 0 unless `signed`. */
export function quantity({ signed = false } = {}): Type<Quantity> {
  return scalar({ kind: 'intOrString', text: 'a quantity such as 2, 500m or 4Gi' }, (node) => {
    if (node.value === null || typeof node.value === 'boolean') return undefined;
    try {
      const value = parseQuantity(node.text);
      return Number.isFinite(value) && (signed || value >= 0) ? { value, text: node.text } : undefined;
    } catch {
      return undefined;
    }
  });
}

/** `25%` or a count. */
export function countOrPercent(): Type<number | { readonly percent: number }> {
  return scalar({ kind: 'intOrString', text: 'a whole number or a percentage such as 25%' }, (node) => {
    if (typeof node.value === 'number')
      return Number.isSafeInteger(node.value) && node.value >= 0 ? node.value : undefined;
    const percent = /^(\d{1,3})%$/.exec(node.text);
    return percent === null || Number(percent[1]) > 100 ? undefined : { percent: Number(percent[1]) };
  });
}

/** ms. */
export function duration(): Type<number> {
  return scalar({ kind: 'string', text: 'a duration such as 500ms, 30s or 5m' }, (node) => {
    if (node.value === 0) return 0;
    return typeof node.value === 'string' ? (parseDuration(node.value) ?? undefined) : undefined;
  });
}

const MAX_ITEMS = 1000;

export function list<T>(of: Type<T>, { max = MAX_ITEMS, min = 0 } = {}): Type<readonly T[]> {
  const text = `a list, each ${of.shape.text}`;
  return {
    shape: { kind: 'list', text, of: of.shape },
    read(node, path, cx) {
      if (node.kind !== 'list') {
        cx.error(path, `is ${showNode(node)}; it must be ${text}`);
        return undefined;
      }
      if (node.items.length > max || node.items.length < min) {
        const wanted = node.items.length > max ? `at most ${max}` : `at least ${min}`;
        cx.error(path, `has ${node.items.length} entries; it takes ${wanted}`);
        return undefined;
      }
      const items = node.items.map((item, i) => of.read(item, [...path, i], cx));
      return items.includes(undefined) ? undefined : (items as T[]);
    },
  };
}

/** Keys of the owner's choice. Without a prototype, so that no key means more than itself. */
export function map<T>(of: Type<T>): Type<Readonly<Record<string, T>>> {
  const text = `an object, its values ${of.shape.text}`;
  return {
    shape: { kind: 'map', text, of: of.shape },
    read(node, path, cx) {
      if (node.kind !== 'map') {
        cx.error(path, `is ${showNode(node)}; it must be ${text}`);
        return undefined;
      }
      const values: Record<string, T> = Object.create(null);
      let complete = true;
      for (const [key, { value }] of node.entries) {
        const read = of.read(value, [...path, key], cx);
        if (read === undefined) complete = false;
        else values[key] = read;
      }
      return complete ? values : undefined;
    },
  };
}

/** Of that type, and read later by whoever wants it: one broken entry does not hide the problems of its neighbours. */
export function deferred(type: Type<unknown>): Type<YamlNode> {
  return { shape: type.shape, read: (node) => node };
}

/** By what stands there: a value of the first type, or else of the second. */
export function either<A, B>(first: Type<A>, isFirst: (node: YamlNode) => boolean, second: Type<B>): Type<A | B> {
  const text = `${first.shape.text}, or ${second.shape.text}`;
  return {
    shape: { kind: 'either', text, either: [first.shape, second.shape] },
    read(node, path, cx) {
      if (isFirst(node)) return first.read(node, path, cx);
      if (second.shape.kind === 'object' && node.kind !== 'map') {
        cx.error(path, `is ${showNode(node)}; it must be ${text}`);
        return undefined;
      }
      return second.read(node, path, cx);
    },
  };
}

export function object<F extends Fields>(fields: F, text = 'an object'): Type<ValuesOf<F>> {
  return {
    shape: { kind: 'object', text, fields },
    read(node, path, cx) {
      if (node.kind !== 'map') {
        cx.error(path, `is ${showNode(node)}; it must be ${text} with ${someNames(fields)}`);
        return undefined;
      }
      return readFields(fields, node, path, cx);
    },
  };
}

function someNames(fields: Fields): string {
  const names = usable(fields);
  return names.length > 6 ? `${names.slice(0, 6).join(', ')} ...` : names.join(', ');
}

const usable = (fields: Fields) =>
  Object.entries(fields).flatMap(([name, { use }]) => (use === 'required' || use === 'optional' ? [name] : []));

/** Of one object; the next ones look like these. */
const MAX_UNKNOWN = 50;

function readFields<F extends Fields>(
  fields: F,
  node: YamlMap,
  path: Path,
  cx: ObjectContext,
): ValuesOf<F> | undefined {
  const values: Record<string, unknown> = Object.create(null);
  let complete = true;
  for (const [name, field] of Object.entries(fields)) {
    const entry = node.entries.get(name);
    values[name] = null;
    if (entry === undefined || isNull(entry.value)) {
      if (field.use !== 'required') continue;
      cx.error(path, `${name} is missing: it is ${field.type.shape.text}`);
      complete = false;
      continue;
    }
    const read = readField(field, entry.value, [...path, name], cx);
    // Without a field that may be left out the rest can still be looked at.
    if (read !== undefined) values[name] = read;
    else if (field.use === 'required') complete = false;
  }
  let unknown = 0;
  for (const name of node.entries.keys()) {
    if (Object.hasOwn(fields, name)) continue;
    if (++unknown > MAX_UNKNOWN) break;
    const near = nearestName(name, Object.keys(fields));
    cx.error(
      [...path, name],
      `unknown field; ${near === null ? `known are ${someNames(fields)}` : `did you mean ${near}?`}`,
    );
  }
  return complete ? (values as ValuesOf<F>) : undefined;
}

function readField(field: Field<unknown>, node: YamlNode, path: Path, cx: ObjectContext): unknown {
  if (field.use === 'refused') {
    if (asksForNothing(node)) return null;
    cx.error(path, `is not supported: ${field.doc}`);
    return null;
  }
  if (field.use !== 'ignored') return field.type.read(node, path, cx);
  if (!asksForNothing(node)) cx.notice(path, field.doc);
  return null;
}

const isNull = (node: YamlNode) => node.kind === 'scalar' && node.value === null;

function asksForNothing(node: YamlNode): boolean {
  return node.kind === 'list' ? node.items.length === 0 : node.kind === 'scalar' && node.value === false;
}
