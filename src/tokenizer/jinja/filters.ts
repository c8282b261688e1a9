import type { Budget } from './budget.ts';
import { bind, wantInt, wantString } from './call.ts';
import { JinjaError, typeError } from './errors.ts';
import { percentFormat } from './format.ts';
import { capitalize, justify, replace, stripText } from './methods.ts';
import { SEQUENCE_FILTERS } from './sequence_filters.ts';
import { jsonDumps, str } from './text_of.ts';
import type { CallArgs, Value } from './values.ts';
import {
  codePointLength,
  escapeHtml,
  int,
  isInteger,
  Markup,
  numeric,
  PyFloat,
  PyTuple,
  truthy,
  typeName,
  Undefined,
} from './values.ts';

/** What a filter may use of the interpreter. */
export interface FilterContext {
  readonly budget: Budget;
  /** jinja2's `environment.getattr` and `getitem`. */
  readonly attribute: (object: Value, name: string) => Value;
  /** The attribute alone, without looking at items. */
  readonly pythonAttribute: (object: Value, name: string) => Value;
  readonly item: (object: Value, key: Value) => Value;
  readonly filter: (name: string, input: Value, call: CallArgs) => Value;
  readonly test: (name: string, input: Value, call: CallArgs) => boolean;
}

export type Filter = (input: Value, call: CallArgs, context: FilterContext) => Value;

/** A filter whose input is turned into text first. */
const text =
  (params: readonly string[], run: (input: string, args: (Value | undefined)[], budget: Budget) => Value): Filter =>
  (input, call, { budget }) => {
    const value = str(input, budget);
    budget.spendChars(value.length);
    return run(value, bind('filter', call, params, 0), budget);
  };

const defaultFilter: Filter = (input, call) => {
  const [fallback = '', alsoFalse = false] = bind('default', call, ['default_value', 'boolean'], 0);
  if (input instanceof Undefined) return fallback;
  return truthy(alsoFalse) && !truthy(input) ? fallback : input;
};

const escapeFilter = text([], (value) => new Markup(escapeHtml(value)));

const TEXT_FILTERS: Readonly<Record<string, Filter>> = {
  default: defaultFilter,
  d: defaultFilter,
  string: text([], (value) => value),
  safe: text([], (value) => new Markup(value)),
  escape: escapeFilter,
  e: escapeFilter,
  forceescape: escapeFilter,
  lower: text([], (value) => value.toLowerCase()),
  upper: text([], (value) => value.toUpperCase()),
  capitalize: text([], (value) => capitalize(value)),
  title: text([], (value) => value.replace(/[^-\s({[<]+/g, (word) => capitalize(word))),
  trim: text(['chars'], (value, [chars = null]) =>
    stripText(value, chars === null ? null : wantString(chars, 'trim'), true, true),
  ),
  striptags: text([], (value) =>
    value
      .replace(/<!--[\s\S]*?-->|<[^>]*>/g, '')
      .replace(/\s+/g, ' ')
      .trim(),
  ),
  replace: text(['old', 'new', 'count'], (value, [old = null, fresh = null, count = null], budget) =>
    replace(value, str(old, budget), str(fresh, budget), count === null ? -1 : wantInt(count, 'replace'), budget),
  ),
  center: text(['width'], (value, [width = 80], budget) =>
    justify(value, { args: [width], kwargs: new Map() }, 'center', budget),
  ),
  indent: text(['width', 'first', 'blank'], (value, [width = 4, first = false, blank = false], budget) =>
    indent(
      value,
      typeof width === 'string' ? width : spaces(wantInt(width, 'indent'), budget),
      truthy(first),
      truthy(blank),
      budget,
    ),
  ),
  wordcount: text([], (value) => value.match(/[\p{L}\p{N}_]+/gu)?.length ?? 0),
  truncate: text(
    ['length', 'killwords', 'end', 'leeway'],
    (value, [length = 255, kill = false, end = '...', leeway = 5]) =>
      truncate(
        value,
        wantInt(length, 'truncate'),
        truthy(kill),
        wantString(end, 'truncate'),
        wantInt(leeway, 'truncate'),
      ),
  ),
  urlencode: text([], (value) =>
    encodeURIComponent(value)
      .replace(/[!'()*]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`)
      .replaceAll('%2F', '/'),
  ),
  format: (input, call, { budget }) => {
    if (call.kwargs.size > 0) throw typeError('format filter: keyword arguments are not supported');
    return percentFormat(str(input, budget), new PyTuple(call.args), budget);
  },
  tojson: (input, call, { budget }) => {
    const params = ['ensure_ascii', 'indent', 'separators', 'sort_keys'];
    const [ascii = false, width = null, separators = null, sortKeys = false] = bind('tojson', call, params, 0);
    if (truthy(ascii)) throw typeError('tojson: ensure_ascii=true is not supported');
    const step = width === null ? null : typeof width === 'string' ? width : spaces(wantInt(width, 'tojson'), budget);
    const [item, key] = separatorPair(separators) ?? [step === null ? ', ' : ',', ': '];
    return jsonDumps(
      input,
      { indent: step, itemSeparator: item, keySeparator: key, sortKeys: truthy(sortKeys) },
      budget,
    );
  },
};

function spaces(width: number, budget: Budget): string {
  budget.spendChars(Math.max(0, width));
  return ' '.repeat(Math.max(0, width));
}

function separatorPair(value: Value): readonly [string, string] | null {
  const items = value instanceof PyTuple ? value.items : Array.isArray(value) ? value : null;
  if (items === null || items.length !== 2) return null;
  return [wantString(items[0] as Value, 'tojson'), wantString(items[1] as Value, 'tojson')];
}

function indent(value: string, step: string, first: boolean, blank: boolean, budget: Budget): string {
  const lines = value.split('\n');
  budget.spendChars(value.length + lines.length * step.length);
  const rest = lines.slice(1).map((line) => (blank || line !== '' ? step + line : line));
  return [(first ? step : '') + (lines[0] as string), ...rest].join('\n');
}

function truncate(value: string, length: number, killWords: boolean, end: string, leeway: number): string {
  const chars = Array.from(value);
  if (chars.length <= length + leeway) return value;
  const kept = chars.slice(0, Math.max(0, length - codePointLength(end))).join('');
  if (killWords) return kept + end;
  const space = kept.lastIndexOf(' ');
  return (space < 0 ? kept : kept.slice(0, space)) + end;
}

function wantNumber(value: Value, where: string): number {
  if (value instanceof Undefined) value.raise();
  const number = numeric(value);
  if (number === null) throw typeError(`${where}: a number is required, not ${typeName(value)}`);
  return number;
}

const NUMBER_FILTERS: Readonly<Record<string, Filter>> = {
  abs: (input) => {
    const number = wantNumber(input, 'abs');
    return isInteger(input) ? Math.abs(number) : new PyFloat(Math.abs(number));
  },
  int: (input, call) => {
    const [fallback = 0, base = 10] = bind('int', call, ['default', 'base'], 0);
    return toInt(input, wantInt(base, 'int')) ?? fallback;
  },
  float: (input, call) => {
    const [fallback = new PyFloat(0)] = bind('float', call, ['default'], 0);
    const number = typeof input === 'string' ? parseFloatText(input) : numeric(input);
    return number === null ? fallback : new PyFloat(number);
  },
  round: (input, call) => {
    const [precision = 0, method = 'common'] = bind('round', call, ['precision', 'method'], 0);
    const number = wantNumber(input, 'round');
    const digits = wantInt(precision, 'round');
    if (method === 'ceil' || method === 'floor') {
      return new PyFloat(Math[method](number * 10 ** digits) / 10 ** digits);
    }
    if (method !== 'common') throw new JinjaError('ValueError', 'method must be common, ceil or floor');
    if (isInteger(input) && digits >= 0) return number;
    return isInteger(input) ? int(roundHalfEven(number, digits)) : new PyFloat(roundHalfEven(number, digits));
  },
};

function toInt(input: Value, base: number): number | null {
  if (typeof input !== 'string') {
    const number = numeric(input);
    return number === null || !Number.isFinite(number) ? null : int(Math.trunc(number));
  }
  const digits = input
    .trim()
    .replace(/^([+-]?)0[xob]/i, '$1')
    .replace(/(?<=\w)_(?=\w)/g, '');
  const plain = base === 10 ? input.trim().replace(/(?<=\d)_(?=\d)/g, '') : digits;
  const allowed = '0123456789abcdefghijklmnopqrstuvwxyz'.slice(0, base);
  if (plain !== '' && new RegExp(`^[+-]?[${allowed}]+$`, 'i').test(plain)) return int(Number.parseInt(plain, base));
  const number = parseFloatText(input);
  return number === null || !Number.isFinite(number) ? null : int(Math.trunc(number));
}

function parseFloatText(text: string): number | null {
  const trimmed = text.trim();
  if (/^[+-]?(?:inf|infinity)$/i.test(trimmed)) return trimmed.startsWith('-') ? -Infinity : Infinity;
  if (/^[+-]?nan$/i.test(trimmed)) return Number.NaN;
  return /^[+-]?(?:\d[\d_]*\.?\d*|\.\d+)(?:e[+-]?\d+)?$/i.test(trimmed) ? Number(trimmed.replaceAll('_', '')) : null;
}

/** Python's `round`: ties of the exact binary value go to the even digit, where toFixed goes up. */
function roundHalfEven(value: number, digits: number): number {
  if (digits < 0) {
    const unit = 10 ** -digits;
    const scaled = Math.abs(value) / unit;
    const floor = Math.floor(scaled);
    const up = scaled - floor > 0.5 || (scaled - floor === 0.5 && floor % 2 === 1);
    return Math.sign(value) * (up ? floor + 1 : floor) * unit;
  }
  if (digits > 60 || Math.abs(value) >= 1e21 || Number.isNaN(value)) return value;
  const exact = Math.abs(value).toFixed(Math.min(100, digits + 40));
  const cut = exact.length - Math.min(100, digits + 40) + digits;
  const isTie = /^50*$/.test(exact.slice(cut));
  const even = Number(exact[exact[cut - 1] === '.' ? cut - 2 : cut - 1]) % 2 === 0;
  const rounded = isTie && even ? Number(exact.slice(0, cut)) : Number(Math.abs(value).toFixed(digits));
  return value < 0 || Object.is(value, -0) ? -rounded : rounded;
}

export const FILTERS: ReadonlyMap<string, Filter> = new Map(
  Object.entries({ ...TEXT_FILTERS, ...NUMBER_FILTERS, ...SEQUENCE_FILTERS }),
);
