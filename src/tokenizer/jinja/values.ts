import { JinjaError, typeError } from './errors.ts';

/** A Python float. JavaScript numbers stand for Python ints, so that `1` and `1.0` print differently. */
export class PyFloat {
  readonly value: number;
  constructor(value: number) {
    this.value = value;
  }
}

/** Text that `safe` or `escape` marked: adding to it escapes the other side. In all else it is its text. */
export class Markup {
  readonly text: string;
  constructor(text: string) {
    this.text = text;
  }
}

/** The string of marked text; anything else as it is. */
export function plain(value: Value): Value {
  return value instanceof Markup ? value.text : value;
}

const HTML: Readonly<Record<string, string>> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&#34;', "'": '&#39;' };

export function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (char) => HTML[char] as string);
}

export class PyTuple {
  readonly items: readonly Value[];
  /** Names of the items of a named tuple (`groupby` gives `grouper` and `list`). */
  readonly names: readonly string[];
  constructor(items: readonly Value[], names: readonly string[] = []) {
    this.items = items;
    this.names = names;
  }
}

/** What jinja2 calls Undefined: prints as nothing, and raises when it is used for anything else. */
export class Undefined {
  readonly message: string;
  readonly kind: 'UndefinedError' | 'SecurityError';
  constructor(message: string, kind: 'UndefinedError' | 'SecurityError' = 'UndefinedError') {
    this.message = message;
    this.kind = kind;
  }

  raise(): never {
    throw new JinjaError(this.kind, this.message);
  }
}

/** A generator, as `map` and `select` give: no length, no JSON, iterated once. */
export class PyGenerator {
  private items: readonly Value[];
  readonly label: string;
  constructor(items: readonly Value[], label: string) {
    this.items = items;
    this.label = label;
  }

  take(): readonly Value[] {
    const items = this.items;
    this.items = [];
    return items;
  }
}

/** `dict_items`, `dict_keys`, `dict_values` and `range`: sized, iterable, printed with their name. */
export class PyView {
  readonly label: 'dict_items' | 'dict_keys' | 'dict_values' | 'range';
  readonly items: readonly Value[];
  readonly text: string | null;
  constructor(label: PyView['label'], items: readonly Value[], text: string | null = null) {
    this.label = label;
    this.items = items;
    this.text = text;
  }
}

export interface CallArgs {
  readonly args: readonly Value[];
  readonly kwargs: ReadonlyMap<string, Value>;
}

export class PyFunction {
  readonly label: string;
  readonly call: (call: CallArgs) => Value;
  /** What `macro.name` and the like answer. */
  readonly attributes: ReadonlyMap<string, Value>;
  constructor(label: string, call: (call: CallArgs) => Value, attributes: ReadonlyMap<string, Value> = new Map()) {
    this.label = label;
    this.call = call;
    this.attributes = attributes;
  }
}

/** `namespace(...)`: the one object a template may assign attributes of. */
export class Namespace {
  readonly attributes: Map<string, Value>;
  constructor(attributes: Map<string, Value>) {
    this.attributes = attributes;
  }
}

/** An object with named attributes that templates read only: `loop`, `cycler`. May be callable. */
export class PyObject {
  readonly label: string;
  readonly attribute: (name: string) => Value | undefined;
  readonly call: ((call: CallArgs) => Value) | null;
  constructor(label: string, attribute: PyObject['attribute'], call: PyObject['call'] = null) {
    this.label = label;
    this.attribute = attribute;
    this.call = call;
  }
}

/** A Python dict: insertion order, and 1, 1.0 and True are the same key. */
export class PyDict {
  private readonly entries = new Map<string | number | null, readonly [Value, Value]>();

  static of(pairs: Iterable<readonly [Value, Value]>): PyDict {
    const dict = new PyDict();
    for (const [key, value] of pairs) dict.set(key, value);
    return dict;
  }

  get size(): number {
    return this.entries.size;
  }

  get(key: Value): Value | undefined {
    return this.entries.get(hashKey(key))?.[1];
  }

  has(key: Value): boolean {
    return this.entries.has(hashKey(key));
  }

  set(key: Value, value: Value): void {
    const hash = hashKey(key);
    this.entries.set(hash, [this.entries.get(hash)?.[0] ?? key, value]);
  }

  keys(): Value[] {
    return Array.from(this.entries.values(), (entry) => entry[0]);
  }

  values(): Value[] {
    return Array.from(this.entries.values(), (entry) => entry[1]);
  }

  pairs(): (readonly [Value, Value])[] {
    return [...this.entries.values()];
  }
}

export type Value =
  | null
  | boolean
  | number
  | string
  | PyFloat
  | Markup
  | PyTuple
  | Undefined
  | PyGenerator
  | PyView
  | PyFunction
  | PyObject
  | Namespace
  | PyDict
  | Value[];

function hashKey(key: Value): string | number | null {
  if (typeof key === 'string' || typeof key === 'number' || key === null) return key;
  if (key instanceof Markup) return key.text;
  if (typeof key === 'boolean') return Number(key);
  if (key instanceof PyFloat) return key.value;
  throw typeError(`unhashable type: '${typeName(key)}'`);
}

export function typeName(value: Value): string {
  if (value === null) return 'NoneType';
  if (typeof value === 'string') return 'str';
  if (typeof value === 'boolean') return 'bool';
  if (typeof value === 'number') return 'int';
  if (Array.isArray(value)) return 'list';
  if (value instanceof PyFloat) return 'float';
  if (value instanceof Markup) return 'Markup';
  if (value instanceof PyTuple) return 'tuple';
  if (value instanceof PyDict) return 'dict';
  if (value instanceof Undefined) return 'Undefined';
  if (value instanceof Namespace) return 'Namespace';
  if (value instanceof PyGenerator) return 'generator';
  if (value instanceof PyView) return value.label;
  if (value instanceof PyFunction) return 'function';
  return value.label;
}

export function truthy(value: Value): boolean {
  if (value === null) return false;
  if (typeof value !== 'object') return Boolean(value);
  if (Array.isArray(value)) return value.length > 0;
  if (value instanceof PyFloat) return value.value !== 0;
  if (value instanceof Markup) return value.text !== '';
  if (value instanceof PyTuple || value instanceof PyView) return value.items.length > 0;
  if (value instanceof PyDict) return value.size > 0;
  return !(value instanceof Undefined);
}

/** The items a `for` would visit. @throws TypeError for what Python cannot iterate. */
export function iterate(value: Value): readonly Value[] {
  if (Array.isArray(value)) return value;
  if (typeof value === 'string') return Array.from(value);
  if (value instanceof Markup) return Array.from(value.text);
  if (value instanceof PyTuple || value instanceof PyView) return value.items;
  if (value instanceof PyDict) return value.keys();
  if (value instanceof PyGenerator) return value.take();
  if (value instanceof Undefined) return [];
  throw typeError(`'${typeName(value)}' object is not iterable`);
}

export function isIterable(value: Value): boolean {
  return (
    typeof value === 'string' ||
    Array.isArray(value) ||
    value instanceof PyTuple ||
    value instanceof PyView ||
    value instanceof PyDict ||
    value instanceof PyGenerator ||
    value instanceof Undefined
  );
}

/** Python's `len`: code points for strings. */
export function length(value: Value): number {
  if (typeof value === 'string') return codePointLength(value);
  if (Array.isArray(value)) return value.length;
  if (value instanceof PyTuple || value instanceof PyView) return value.items.length;
  if (value instanceof PyDict) return value.size;
  if (value instanceof Undefined) return 0;
  throw typeError(`object of type '${typeName(value)}' has no len()`);
}

const SURROGATE = /[\ud800-\udfff]/;

export function codePointLength(text: string): number {
  if (!SURROGATE.test(text)) return text.length;
  let count = 0;
  for (const _ of text) count++;
  return count;
}

/** Characters that can be indexed as Python does; the string itself when it has no surrogate pairs. */
export function codePoints(text: string): string | string[] {
  return SURROGATE.test(text) ? Array.from(text) : text;
}

/** The number behind an int, bool or float; null for anything else. */
export function numeric(value: Value): number | null {
  if (typeof value === 'number') return value;
  if (typeof value === 'boolean') return Number(value);
  return value instanceof PyFloat ? value.value : null;
}

export function isInteger(value: Value): value is number | boolean {
  return typeof value === 'number' || typeof value === 'boolean';
}

/** Whole numbers beyond 2^53 would lose digits in silence, so they are refused. */
export function int(value: number): number {
  if (!Number.isSafeInteger(value)) throw new JinjaError('OverflowError', 'integers beyond 2^53 are not supported');
  return value === 0 ? 0 : value;
}

const MAX_INPUT_DEPTH = 200;

/** Turns plain JSON-like data of the caller into template values. `undefined` members are left out. */
export function fromJs(value: unknown, depth = 0): Value {
  if (depth > MAX_INPUT_DEPTH) throw new JinjaError('LimitError', `the input nests deeper than ${MAX_INPUT_DEPTH}`);
  if (value === null || value === undefined) return null;
  if (typeof value === 'string' || typeof value === 'boolean') return value;
  if (typeof value === 'number') return Number.isSafeInteger(value) ? value : new PyFloat(value);
  if (typeof value === 'bigint') return int(Number(value));
  if (Array.isArray(value)) return value.map((item) => fromJs(item, depth + 1));
  if (isTemplateObject(value)) return value;
  if (typeof value === 'object') {
    const dict = new PyDict();
    for (const [key, item] of Object.entries(value)) {
      if (item !== undefined) dict.set(key, fromJs(item, depth + 1));
    }
    return dict;
  }
  throw typeError(`a ${typeof value} cannot be passed to a template`);
}

function isTemplateObject(value: unknown): value is PyDict | PyFunction {
  return value instanceof PyDict || value instanceof PyFunction;
}

/** Whether Python's `str.isspace` holds for one UTF-16 unit: JavaScript's spaces less U+FEFF, and a few controls. */
export function isSpace(unit: number): boolean {
  if (unit < 0x80) return unit === 0x20 || (unit >= 0x09 && unit <= 0x0d) || (unit >= 0x1c && unit <= 0x1f);
  return unit === 0x85 || (unit !== 0xfeff && SPACE.test(String.fromCharCode(unit)));
}

const SPACE = /\s/;
