import type { Budget } from './budget.ts';
import { JinjaError, typeError } from './errors.ts';
import { repr, reprFloat, str } from './text_of.ts';
import type { Value } from './values.ts';
import { codePointLength, isInteger, numeric, PyDict, PyFloat, PyTuple, typeName } from './values.ts';

/** Widest field and most digits a template may ask for. */
const MAX_WIDTH = 10_000;

/** Python's `format % args`. */
export function percentFormat(format: string, args: Value, budget: Budget): string {
  budget.spendChars(format.length);
  const items = args instanceof PyTuple ? args.items : [args];
  let next = 0;
  const take = (): Value => {
    if (next >= items.length) throw typeError('not enough arguments for format string');
    return items[next++] as Value;
  };
  let usedKeys = false;
  const pattern = /%(?:\(([^)]*)\))?([#0\- +]*)(\*|\d+)?(?:\.(\*|\d+))?[hlL]?(.)/gsu;
  const result = format.replace(pattern, (...m: (string | undefined)[]) => {
    const [, key, flags = '', width, precision, type] = m;
    if (type === '%') return '%';
    const fieldWidth = width === '*' ? Number(take()) : Number(width ?? 0);
    const digits = precision === '*' ? Number(take()) : precision === undefined ? null : Number(precision);
    const value = key === undefined ? take() : keyed(args, key);
    usedKeys ||= key !== undefined;
    const text = percentValue(value, type as string, flags, digits, budget);
    return pad(
      text,
      checkWidth(fieldWidth),
      flags.includes('-') ? '<' : flags.includes('0') && type !== 's' ? '=' : '>',
      flags.includes('0') && !flags.includes('-') && type !== 's' ? '0' : ' ',
      budget,
    );
  });
  if (next < items.length && !usedKeys && !(args instanceof PyDict)) {
    throw typeError('not all arguments converted during string formatting');
  }
  return result;
}

function keyed(args: Value, key: string): Value {
  if (!(args instanceof PyDict)) throw typeError('format requires a mapping');
  const value = args.get(key);
  if (value === undefined) throw new JinjaError('KeyError', `'${key}'`);
  return value;
}

function percentValue(value: Value, type: string, flags: string, digits: number | null, budget: Budget): string {
  if (type === 's' || type === 'r') {
    const text = type === 's' ? str(value, budget) : repr(value, budget);
    return digits === null ? text : Array.from(text).slice(0, digits).join('');
  }
  if (type === 'c') return typeof value === 'number' ? String.fromCodePoint(value) : str(value, budget);
  const number = numeric(value);
  if (number === null) throw typeError(`%${type} format: a real number is required, not ${typeName(value)}`);
  const sign = number < 0 || Object.is(number, -0) ? '-' : flags.includes('+') ? '+' : flags.includes(' ') ? ' ' : '';
  if ('diu'.includes(type))
    return (
      (Math.trunc(number) < 0 ? '-' : sign.replace('-', '')) +
      String(Math.abs(Math.trunc(number))).padStart(digits ?? 0, '0')
    );
  if ('xXo'.includes(type)) return sign + radix(Math.abs(number), type, flags.includes('#'));
  if ('eEfFgG'.includes(type)) return sign + floatDigits(Math.abs(number), type, digits, flags.includes('#'));
  throw new JinjaError('ValueError', `unsupported format character '${type}'`);
}

function radix(magnitude: number, type: string, prefix: boolean): string {
  const base = type === 'o' ? 8 : type === 'b' ? 2 : 16;
  const text = magnitude.toString(base);
  const head = prefix ? `0${type.toLowerCase()}` : '';
  return type === 'X' ? (head + text).toUpperCase() : head + text;
}

/** The digits of a non-negative float in style e, f or g. */
function floatDigits(magnitude: number, type: string, digits: number | null, keepZeros: boolean): string {
  if (!Number.isFinite(magnitude)) return Number.isNaN(magnitude) ? 'nan' : 'inf';
  const precision = Math.min(digits ?? 6, 100);
  const style = type.toLowerCase();
  let text: string;
  if (style === 'f') text = fixed(magnitude, precision);
  else if (style === 'e') text = exponent(magnitude.toExponential(precision));
  else text = general(magnitude, Math.max(precision, 1), keepZeros);
  return type === type.toUpperCase() ? text.toUpperCase() : text;
}

/** toFixed gives up at 1e21; beyond it the digits of a double are those of its integer value. */
function fixed(magnitude: number, precision: number): string {
  if (magnitude < 1e21) return magnitude.toFixed(precision);
  return BigInt(magnitude).toString() + (precision > 0 ? `.${'0'.repeat(precision)}` : '');
}

function exponent(text: string): string {
  return text.replace(/e([+-])(\d)$/, 'e$10$2');
}

function general(magnitude: number, precision: number, keepZeros: boolean): string {
  const [mantissa = '', power = '0'] = magnitude.toExponential(precision - 1).split('e');
  const exp = Number(power);
  const strip = (digits: string): string =>
    keepZeros || !digits.includes('.') ? digits : digits.replace(/\.?0+$/, '');
  if (exp < -4 || exp >= precision) return exponent(`${strip(mantissa)}e${exp < 0 ? '-' : '+'}${Math.abs(exp)}`);
  return strip(magnitude.toFixed(Math.max(0, precision - 1 - exp)));
}

function checkWidth(width: number): number {
  if (!(width <= MAX_WIDTH)) throw new JinjaError('LimitError', `format widths above ${MAX_WIDTH} are refused`);
  return width;
}

function pad(text: string, width: number, align: string, fill: string, budget: Budget): string {
  const missing = width - codePointLength(text);
  if (missing <= 0) return text;
  budget.spendChars(width);
  if (align === '<') return text + fill.repeat(missing);
  if (align === '^') return fill.repeat(missing >> 1) + text + fill.repeat(missing - (missing >> 1));
  if (align === '=') {
    const sign = /^[+\- ]/.exec(text)?.[0] ?? '';
    return sign + fill.repeat(missing) + text.slice(sign.length);
  }
  return fill.repeat(missing) + text;
}

export interface FormatSource {
  readonly args: readonly Value[];
  readonly kwargs: ReadonlyMap<string, Value>;
  /** `{x.name}` and `{x[key]}`, with the sandbox's rules. */
  readonly attribute: (object: Value, name: string) => Value;
  readonly item: (object: Value, key: Value) => Value;
}

/** Python's `format.format(*args, **kwargs)`. */
export function braceFormat(format: string, source: FormatSource, budget: Budget): string {
  budget.spendChars(format.length);
  let auto = 0;
  const pattern = /\{\{|\}\}|\{([^{}!:]*)(?:!([rsa]))?(?::((?:[^{}]|\{[^{}]*\})*))?\}|[{}]/g;
  const expand = (field: string): Value => {
    const parts = /^([^.[]*)((?:\.[^.[]+|\[[^\]]+\])*)$/.exec(field);
    if (!parts) throw new JinjaError('ValueError', `bad field ${JSON.stringify(field)} in format string`);
    const name = parts[1] as string;
    let value = fieldValue(name === '' ? String(auto++) : name, source);
    for (const access of (parts[2] as string).match(/\.[^.[]+|\[[^\]]+\]/g) ?? []) {
      const key = access.startsWith('.') ? access.slice(1) : access.slice(1, -1);
      if (access.startsWith('.')) value = source.attribute(value, key);
      else value = source.item(value, /^\d+$/.test(key) ? Number(key) : key);
    }
    return value;
  };
  return format.replace(pattern, (whole: string, field?: string, conversion?: string, spec?: string) => {
    if (whole === '{{' || whole === '}}') return whole[0] as string;
    if (field === undefined) throw new JinjaError('ValueError', `Single '${whole}' encountered in format string`);
    const value = expand(field);
    const fullSpec = (spec ?? '').replace(/\{([^{}]*)\}/g, (_, inner: string) => str(expand(inner), budget));
    const shown = conversion === undefined ? value : conversion === 's' ? str(value, budget) : repr(value, budget);
    return formatValue(shown, fullSpec, budget);
  });
}

function fieldValue(name: string, source: FormatSource): Value {
  const value = /^\d+$/.test(name) ? source.args[Number(name)] : source.kwargs.get(name);
  if (value !== undefined) return value;
  if (/^\d+$/.test(name)) {
    throw new JinjaError('IndexError', `Replacement index ${name} out of range for positional args tuple`);
  }
  throw new JinjaError('KeyError', `'${name}'`);
}

const SPEC = /^(?:(.)?([<>=^]))?([+\- ])?(#)?(0)?(\d+)?([,_])?(?:\.(\d+))?([bcdeEfFgGnosxX%])?$/su;

/** Python's `format(value, spec)` for strings and numbers. */
export function formatValue(value: Value, spec: string, budget: Budget): string {
  if (spec === '') return str(value, budget);
  const parts = SPEC.exec(spec);
  if (!parts) throw new JinjaError('ValueError', `Invalid format specifier '${spec}'`);
  const [, fill, align, sign, alternate, zero, width, grouping, precision, type] = parts;
  const digits = precision === undefined ? null : checkWidth(Number(precision));
  const number = typeof value === 'string' ? null : numeric(value);
  if (number === null) {
    if (typeof value !== 'string') throw typeError(`unsupported format string passed to ${typeName(value)}.__format__`);
    const text = digits === null ? value : Array.from(value).slice(0, digits).join('');
    return pad(text, checkWidth(Number(width ?? 0)), align ?? '<', fill ?? (zero ? '0' : ' '), budget);
  }
  const negative = number < 0 || Object.is(number, -0);
  let body = numberBody(value, Math.abs(number), type, digits, Boolean(alternate));
  if (grouping) body = body.replace(/^\d+/, (whole) => whole.replace(/\B(?=(\d{3})+$)/g, grouping));
  const lead = negative ? '-' : sign === '+' || sign === ' ' ? sign : '';
  return pad(
    lead + body,
    checkWidth(Number(width ?? 0)),
    align ?? (zero ? '=' : '>'),
    fill ?? (zero ? '0' : ' '),
    budget,
  );
}

function numberBody(
  value: Value,
  magnitude: number,
  type: string | undefined,
  digits: number | null,
  alternate: boolean,
): string {
  if (type === '%') return `${fixed(magnitude * 100, digits ?? 6)}%`;
  if (isInteger(value) && (type === undefined || 'dn'.includes(type))) return String(magnitude);
  if (isInteger(value) && type !== undefined && 'bxXo'.includes(type)) return radix(magnitude, type, alternate);
  if (type === 'c') return String.fromCodePoint(magnitude);
  if (type === undefined) {
    const plain = value instanceof PyFloat && digits === null;
    if (plain) return reprFloat(magnitude);
    const text = general(magnitude, Math.max(digits ?? 6, 1), false);
    return /[.e]/.test(text) ? text : `${text}.0`;
  }
  if (!'eEfFgGn'.includes(type)) {
    throw new JinjaError('ValueError', `Unknown format code '${type}' for object of type '${typeName(value)}'`);
  }
  return floatDigits(magnitude, type === 'n' ? 'g' : type, digits, alternate);
}
