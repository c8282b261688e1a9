import type { Budget } from './budget.ts';
import { bind, wantInt, wantString } from './call.ts';
import { JinjaError, typeError } from './errors.ts';
import { braceFormat, type FormatSource } from './format.ts';
import { equal } from './operators.ts';
import { repr } from './text_of.ts';
import type { CallArgs, Value } from './values.ts';
import {
  codePointLength,
  codePoints,
  isSpace,
  iterate,
  PyDict,
  PyFloat,
  PyFunction,
  PyTuple,
  PyView,
  truthy,
  typeName,
} from './values.ts';

export interface MethodContext {
  readonly budget: Budget;
  readonly attribute: FormatSource['attribute'];
  readonly item: FormatSource['item'];
}

/** What `value.name` finds before items are looked at: bound methods of str, dict, list, tuple and float. */
export function method(value: Value, name: string, context: MethodContext): PyFunction | undefined {
  const bound = (run: (call: CallArgs) => Value): PyFunction => new PyFunction(name, run);
  if (typeof value === 'string') {
    const run = Object.hasOwn(STRING_METHODS, name) ? STRING_METHODS[name] : undefined;
    return run && bound((call) => run(value, call, context));
  }
  if (value instanceof PyDict) return dictMethod(value, name, bound);
  if (Array.isArray(value) || value instanceof PyTuple) {
    const items = Array.isArray(value) ? value : value.items;
    if (name === 'index' || name === 'count') return bound((call) => search(items, name, call, context.budget));
    return name === 'copy' && Array.isArray(value) ? bound(() => [...items]) : undefined;
  }
  if (value instanceof PyFloat && name === 'is_integer') return bound(() => Number.isInteger(value.value));
  return undefined;
}

/** Methods that change their object: present in Python, refused by the immutable sandbox that transformers uses. */
const MUTATORS: Readonly<Record<string, readonly string[]>> = {
  dict: ['clear', 'pop', 'popitem', 'setdefault', 'update'],
  list: ['append', 'clear', 'extend', 'insert', 'pop', 'remove', 'reverse', 'sort'],
};

export function isMutator(value: Value, name: string): boolean {
  return MUTATORS[typeName(value)]?.includes(name) ?? false;
}

function dictMethod(
  dict: PyDict,
  name: string,
  bound: (run: (call: CallArgs) => Value) => PyFunction,
): PyFunction | undefined {
  switch (name) {
    case 'get':
      return bound((call) => {
        const [key = null, fallback = null] = bind('get', call, ['key', 'default'], 1);
        const found = dict.get(key);
        return found === undefined ? fallback : found;
      });
    case 'items':
      return bound(
        () =>
          new PyView(
            'dict_items',
            dict.pairs().map(([key, item]) => new PyTuple([key, item])),
          ),
      );
    case 'keys':
      return bound(() => new PyView('dict_keys', dict.keys()));
    case 'values':
      return bound(() => new PyView('dict_values', dict.values()));
    case 'copy':
      return bound(() => PyDict.of(dict.pairs()));
    default:
      return undefined;
  }
}

function search(items: readonly Value[], name: 'index' | 'count', call: CallArgs, budget: Budget): Value {
  const [wanted = null] = bind(name, call, ['value'], 1);
  budget.spend(items.length);
  if (name === 'count') return items.filter((item) => equal(item, wanted, budget)).length;
  const at = items.findIndex((item) => equal(item, wanted, budget));
  if (at < 0) throw new JinjaError('ValueError', `${repr(wanted, budget)} is not in list`);
  return at;
}

type StringMethod = (self: string, call: CallArgs, context: MethodContext) => Value;

const simple =
  (name: string, run: (self: string, budget: Budget) => Value): StringMethod =>
  (self, call, { budget }) => {
    bind(name, call, [], 0);
    budget.spendChars(self.length);
    return run(self, budget);
  };

/** True when the text is not empty and every character matches. */
const every = (name: string, pattern: RegExp): StringMethod => simple(name, (self) => pattern.test(self));

const STRING_METHODS: Readonly<Record<string, StringMethod>> = {
  upper: simple('upper', (self) => self.toUpperCase()),
  lower: simple('lower', (self) => self.toLowerCase()),
  casefold: simple('casefold', (self) => self.toLowerCase().replaceAll('ß', 'ss')),
  capitalize: simple('capitalize', capitalize),
  title: simple('title', title),
  swapcase: simple('swapcase', (self) =>
    Array.from(self, (c) => (c === c.toUpperCase() ? c.toLowerCase() : c.toUpperCase())).join(''),
  ),
  isalnum: every('isalnum', /^[\p{L}\p{N}]+$/u),
  isalpha: every('isalpha', /^\p{L}+$/u),
  isdigit: every('isdigit', /^[\p{Nd}\u00b2\u00b3\u00b9\u2070\u2074-\u2079\u2080-\u2089]+$/u),
  isdecimal: every('isdecimal', /^\p{Nd}+$/u),
  isnumeric: every('isnumeric', /^\p{N}+$/u),
  isspace: simple('isspace', (self) => self !== '' && stripSpace(self, true, false) === ''),
  islower: simple('islower', (self) => /\p{Ll}/u.test(self) && !/\p{Lu}|\p{Lt}/u.test(self)),
  isupper: simple('isupper', (self) => /\p{Lu}/u.test(self) && !/\p{Ll}|\p{Lt}/u.test(self)),
  istitle: simple('istitle', (self) => /\p{L}/u.test(self) && title(self) === self),
  strip: (self, call, context) => strip(self, call, 'strip', context),
  lstrip: (self, call, context) => strip(self, call, 'lstrip', context),
  rstrip: (self, call, context) => strip(self, call, 'rstrip', context),
  split: (self, call, context) => split(self, call, 'split', context),
  rsplit: (self, call, context) => split(self, call, 'rsplit', context),
  splitlines: (self, call, { budget }) => {
    const [keep = false] = bind('splitlines', call, ['keepends'], 0);
    budget.spend(self.length);
    return splitLines(self, truthy(keep));
  },
  startswith: (self, call) => affix('startswith', self, call, (text, part) => text.startsWith(part)),
  endswith: (self, call) => affix('endswith', self, call, (text, part) => text.endsWith(part)),
  removeprefix: (self, call) => {
    const prefix = wantString(bind('removeprefix', call, ['prefix'], 1)[0] ?? null, 'removeprefix');
    return self.startsWith(prefix) ? self.slice(prefix.length) : self;
  },
  removesuffix: (self, call) => {
    const suffix = wantString(bind('removesuffix', call, ['suffix'], 1)[0] ?? null, 'removesuffix');
    return suffix !== '' && self.endsWith(suffix) ? self.slice(0, -suffix.length) : self;
  },
  replace: (self, call, { budget }) => {
    const [old = null, fresh = null, count = -1] = bind('replace', call, ['old', 'new', 'count'], 2);
    return replace(self, wantString(old, 'replace'), wantString(fresh, 'replace'), wantInt(count, 'replace'), budget);
  },
  find: (self, call, context) => find(self, call, 'find', context.budget),
  rfind: (self, call, context) => find(self, call, 'rfind', context.budget),
  index: (self, call, context) => find(self, call, 'index', context.budget),
  rindex: (self, call, context) => find(self, call, 'rindex', context.budget),
  count: (self, call, { budget }) => {
    const part = wantString(bind('count', call, ['sub'], 1)[0] ?? null, 'count');
    budget.spend(self.length);
    return part === '' ? codePointLength(self) + 1 : self.split(part).length - 1;
  },
  join: (self, call, { budget }) => {
    const items = iterate(bind('join', call, ['iterable'], 1)[0] ?? null);
    const texts = items.map((item, i) => {
      if (typeof item !== 'string')
        throw typeError(`sequence item ${i}: expected str instance, ${typeName(item)} found`);
      return item;
    });
    budget.spend(texts.length);
    budget.spendChars(texts.reduce((sum, text) => sum + text.length + self.length, 0));
    return texts.join(self);
  },
  format: (self, call, context) =>
    braceFormat(self, { ...call, attribute: context.attribute, item: context.item }, context.budget),
  center: (self, call, context) => justify(self, call, 'center', context.budget),
  ljust: (self, call, context) => justify(self, call, 'ljust', context.budget),
  rjust: (self, call, context) => justify(self, call, 'rjust', context.budget),
  zfill: (self, call, { budget }) => {
    const width = wantInt(bind('zfill', call, ['width'], 1)[0] ?? null, 'zfill');
    budget.spendChars(Math.max(width, 0));
    const sign = /^[+-]/.exec(self)?.[0] ?? '';
    return sign + '0'.repeat(Math.max(0, width - codePointLength(self))) + self.slice(sign.length);
  },
  partition: (self, call) => partition(self, call, 'partition', (part) => self.indexOf(part)),
  rpartition: (self, call) => partition(self, call, 'rpartition', (part) => self.lastIndexOf(part)),
};

export function capitalize(text: string): string {
  const [first = '', ...rest] = Array.from(text);
  return first.toUpperCase() + rest.join('').toLowerCase();
}

function title(text: string): string {
  return text.replace(/\p{L}+/gu, (word) => capitalize(word));
}

export function stripText(text: string, chars: string | null, left: boolean, right: boolean): string {
  if (chars === null) return stripSpace(text, left, right);
  const set = new Set(chars);
  const units = codePoints(text);
  let from = 0;
  let to = units.length;
  while (left && from < to && set.has(units[from] as string)) from++;
  while (right && to > from && set.has(units[to - 1] as string)) to--;
  return typeof units === 'string' ? units.slice(from, to) : units.slice(from, to).join('');
}

function stripSpace(text: string, left: boolean, right: boolean): string {
  let from = 0;
  let to = text.length;
  while (left && from < to && isSpace(text.charCodeAt(from))) from++;
  while (right && to > from && isSpace(text.charCodeAt(to - 1))) to--;
  return text.slice(from, to);
}

function strip(self: string, call: CallArgs, name: 'strip' | 'lstrip' | 'rstrip', { budget }: MethodContext): string {
  const [chars = null] = bind(name, call, ['chars'], 0);
  budget.spendChars(self.length);
  return stripText(self, chars === null ? null : wantString(chars, name), name !== 'rstrip', name !== 'lstrip');
}

function split(self: string, call: CallArgs, name: 'split' | 'rsplit', { budget }: MethodContext): Value[] {
  const [separator = null, max = -1] = bind(name, call, ['sep', 'maxsplit'], 0);
  budget.spend(1 + self.length);
  const limit = wantInt(max, name) < 0 ? Number.POSITIVE_INFINITY : wantInt(max, name);
  if (separator === null) return splitSpace(self, limit, name === 'rsplit');
  const part = wantString(separator, name);
  if (part === '') throw new JinjaError('ValueError', 'empty separator');
  const pieces = self.split(part);
  if (pieces.length - 1 <= limit) return pieces;
  return name === 'split'
    ? [...pieces.slice(0, limit), pieces.slice(limit).join(part)]
    : [pieces.slice(0, pieces.length - limit).join(part), ...pieces.slice(pieces.length - limit)];
}

/** Words between spaces; past `limit` splits the rest of the text stays whole, at the end or (`fromRight`) the start. */
function splitSpace(text: string, limit: number, fromRight: boolean): string[] {
  const words = wordSpans(text);
  if (words.length - 1 <= limit) return words.map(([from, to]) => text.slice(from, to));
  if (fromRight) {
    const kept = words.slice(words.length - limit).map(([from, to]) => text.slice(from, to));
    const headEnd = (words[words.length - limit - 1] as [number, number])[1];
    return [text.slice(0, headEnd), ...kept];
  }
  const restStart = (words[limit] as [number, number])[0];
  return [...words.slice(0, limit).map(([from, to]) => text.slice(from, to)), text.slice(restStart)];
}

function wordSpans(text: string): [number, number][] {
  const spans: [number, number][] = [];
  let start = -1;
  for (let i = 0; i <= text.length; i++) {
    const space = i === text.length || isSpace(text.charCodeAt(i));
    if (!space && start < 0) start = i;
    if (space && start >= 0) {
      spans.push([start, i]);
      start = -1;
    }
  }
  return spans;
}

const LINE_ENDS: ReadonlySet<number> = new Set([0x0a, 0x0b, 0x0c, 0x0d, 0x1c, 0x1d, 0x1e, 0x85, 0x2028, 0x2029]);

function splitLines(text: string, keepEnds: boolean): string[] {
  const lines: string[] = [];
  let start = 0;
  for (let i = 0; i < text.length; i++) {
    if (!LINE_ENDS.has(text.charCodeAt(i))) continue;
    const end = text.startsWith('\r\n', i) ? i + 2 : i + 1;
    lines.push(text.slice(start, keepEnds ? end : i));
    start = end;
    i = end - 1;
  }
  if (start < text.length) lines.push(text.slice(start));
  return lines;
}

function affix(name: string, self: string, call: CallArgs, test: (text: string, part: string) => boolean): boolean {
  const [part = null] = bind(name, call, ['prefix'], 1);
  if (part instanceof PyTuple) return part.items.some((item) => test(self, wantString(item, name)));
  return test(self, wantString(part, name));
}

export function replace(text: string, old: string, fresh: string, count: number, budget: Budget): string {
  budget.spend(1 + (text.length >> 6));
  const pieces = old === '' ? ['', ...Array.from(text), ''] : text.split(old);
  const times = count < 0 ? pieces.length - 1 : Math.min(count, pieces.length - 1);
  budget.spendChars(text.length + times * fresh.length);
  return (
    pieces.slice(0, times + 1).join(fresh) +
    pieces
      .slice(times + 1)
      .map((piece) => old + piece)
      .join('')
  );
}

function find(self: string, call: CallArgs, name: string, budget: Budget): number {
  const part = wantString(bind(name, call, ['sub'], 1)[0] ?? null, name);
  budget.spendChars(self.length);
  const at = name.startsWith('r') ? self.lastIndexOf(part) : self.indexOf(part);
  if (at < 0 && name.endsWith('index')) throw new JinjaError('ValueError', 'substring not found');
  return at < 0 ? at : codePointLength(self.slice(0, at));
}

export function justify(self: string, call: CallArgs, name: 'center' | 'ljust' | 'rjust', budget: Budget): string {
  const [width = null, fill = ' '] = bind(name, call, ['width', 'fillchar'], 1);
  const missing = wantInt(width, name) - codePointLength(self);
  if (missing <= 0) return self;
  const char = wantString(fill, name);
  if (codePointLength(char) !== 1) throw typeError('The fill character must be exactly one character long');
  budget.spendChars(missing + self.length);
  const target = wantInt(width, name);
  const before = name === 'ljust' ? 0 : name === 'rjust' ? missing : (missing >> 1) + (missing & target & 1);
  return char.repeat(before) + self + char.repeat(missing - before);
}

function partition(self: string, call: CallArgs, name: string, locate: (part: string) => number): PyTuple {
  const part = wantString(bind(name, call, ['sep'], 1)[0] ?? null, name);
  if (part === '') throw new JinjaError('ValueError', 'empty separator');
  const at = locate(part);
  if (at < 0) return new PyTuple(name === 'partition' ? [self, '', ''] : ['', '', self]);
  return new PyTuple([self.slice(0, at), part, self.slice(at + part.length)]);
}
