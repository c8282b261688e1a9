import type { Budget } from './budget.ts';
import { typeError } from './errors.ts';
import type { Value } from './values.ts';
import {
  Markup,
  Namespace,
  PyDict,
  PyFloat,
  PyFunction,
  PyGenerator,
  PyTuple,
  PyView,
  plain,
  typeName,
  Undefined,
} from './values.ts';

/** Python's `str(value)`. Draws on the budget, because a value of shared parts can print exponentially long. */
export function str(value: Value, budget: Budget): string {
  if (typeof value === 'string') return value;
  if (value instanceof Markup) return value.text;
  if (value instanceof Undefined) return '';
  return repr(value, budget);
}

/** Python's `repr(value)`. */
export function repr(value: Value, budget: Budget): string {
  if (value === null) return 'None';
  if (typeof value === 'string') return reprString(value, budget);
  if (typeof value === 'boolean') return value ? 'True' : 'False';
  if (typeof value === 'number') return String(value);
  if (value instanceof PyFloat) return reprFloat(value.value);
  if (value instanceof Markup) return `Markup(${reprString(value.text, budget)})`;
  budget.spend(1);
  if (Array.isArray(value)) return `[${reprItems(value, budget)}]`;
  if (value instanceof PyTuple) return `(${reprItems(value.items, budget)}${value.items.length === 1 ? ',' : ''})`;
  if (value instanceof PyDict) return reprPairs(value.pairs(), budget);
  if (value instanceof Undefined) return 'Undefined';
  if (value instanceof PyView) return value.text ?? `${value.label}([${reprItems(value.items, budget)}])`;
  if (value instanceof Namespace) return `<Namespace ${reprPairs([...value.attributes], budget)}>`;
  if (value instanceof PyGenerator) return `<generator object ${value.label}>`;
  if (value instanceof PyFunction) return `<function ${value.label}>`;
  return `<${value.label} object>`;
}

function reprItems(items: readonly Value[], budget: Budget): string {
  return items.map((item) => repr(item, budget)).join(', ');
}

function reprPairs(pairs: readonly (readonly [Value, Value])[], budget: Budget): string {
  return `{${pairs.map(([key, item]) => `${repr(key, budget)}: ${repr(item, budget)}`).join(', ')}}`;
}

/** Shortest digits that read back, with Python's switch to exponents at 1e16 and below 1e-4. */
export function reprFloat(value: number): string {
  if (Number.isNaN(value)) return 'nan';
  if (!Number.isFinite(value)) return value > 0 ? 'inf' : '-inf';
  if (value === 0) return Object.is(value, -0) ? '-0.0' : '0.0';
  const magnitude = Math.abs(value);
  if (magnitude >= 1e16 || magnitude < 1e-4) return value.toExponential().replace(/e([+-])(\d)$/, 'e$10$2');
  const text = String(value);
  return text.includes('.') ? text : `${text}.0`;
}

const UNPRINTABLE = /[\p{C}\p{Zl}\p{Zp}]|(?! )\p{Zs}/u;
const ESCAPES: Readonly<Record<string, string>> = { '\\': '\\\\', '\n': '\\n', '\r': '\\r', '\t': '\\t' };

function reprString(text: string, budget: Budget): string {
  budget.spendChars(text.length);
  const quote = text.includes("'") && !text.includes('"') ? '"' : "'";
  let body = '';
  for (const char of text) {
    if (char === quote) body += `\\${char}`;
    else if (ESCAPES[char] !== undefined) body += ESCAPES[char];
    else if (UNPRINTABLE.test(char)) body += escapeCodePoint(char.codePointAt(0) as number);
    else body += char;
  }
  return quote + body + quote;
}

function escapeCodePoint(code: number): string {
  const hex = code.toString(16);
  if (code < 0x100) return `\\x${hex.padStart(2, '0')}`;
  return code < 0x10000 ? `\\u${hex.padStart(4, '0')}` : `\\U${hex.padStart(8, '0')}`;
}

export interface JsonStyle {
  readonly indent: string | null;
  readonly itemSeparator: string;
  readonly keySeparator: string;
  readonly sortKeys: boolean;
}

/** Python's `json.dumps(value, ensure_ascii=False, ...)`, which is what transformers binds to `tojson`. */
export function jsonDumps(input: Value, style: JsonStyle, budget: Budget, depth = 0): string {
  const value = plain(input);
  if (value === null) return 'null';
  if (typeof value === 'string') {
    budget.spendChars(value.length);
    return JSON.stringify(value);
  }
  if (typeof value === 'boolean' || typeof value === 'number') return String(value);
  if (value instanceof PyFloat) return jsonFloat(value.value);
  budget.spend(1 + (((style.indent?.length ?? 0) * depth) >> 6));
  const items = Array.isArray(value) ? value : value instanceof PyTuple ? value.items : null;
  if (items !== null) {
    const parts = items.map((item) => jsonDumps(item, style, budget, depth + 1));
    return wrapJson('[', ']', parts, style, depth);
  }
  if (value instanceof PyDict) {
    const pairs = value.pairs().map(([key, item]) => [jsonKey(key), item] as const);
    if (style.sortKeys) pairs.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
    const parts = pairs.map(
      ([key, item]) => JSON.stringify(key) + style.keySeparator + jsonDumps(item, style, budget, depth + 1),
    );
    return wrapJson('{', '}', parts, style, depth);
  }
  throw typeError(`Object of type ${typeName(value)} is not JSON serializable`);
}

function wrapJson(open: string, close: string, parts: readonly string[], style: JsonStyle, depth: number): string {
  if (parts.length === 0) return open + close;
  if (style.indent === null) return open + parts.join(style.itemSeparator) + close;
  const line = `\n${style.indent.repeat(depth + 1)}`;
  return `${open}${line}${parts.join(style.itemSeparator + line)}\n${style.indent.repeat(depth)}${close}`;
}

function jsonFloat(value: number): string {
  if (Number.isFinite(value)) return reprFloat(value);
  return Number.isNaN(value) ? 'NaN' : value > 0 ? 'Infinity' : '-Infinity';
}

function jsonKey(key: Value): string {
  if (typeof key === 'string') return key;
  if (key === null || typeof key === 'boolean' || typeof key === 'number') return String(key);
  if (key instanceof PyFloat) return jsonFloat(key.value);
  throw typeError(`keys must be str, int, float, bool or None, not ${typeName(key)}`);
}
