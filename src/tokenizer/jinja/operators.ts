import type { BinaryOp, CompareOp } from './ast.ts';
import type { Budget } from './budget.ts';
import { JinjaError, typeError } from './errors.ts';
import { percentFormat } from './format.ts';
import type { Value } from './values.ts';
import {
  escapeHtml,
  int,
  isInteger,
  iterate,
  Markup,
  numeric,
  PyDict,
  PyFloat,
  PyTuple,
  PyView,
  plain,
  typeName,
  Undefined,
} from './values.ts';

export function binary(op: BinaryOp, left: Value, right: Value, budget: Budget): Value {
  if (left instanceof Undefined) left.raise();
  if (left instanceof Markup || right instanceof Markup) return markup(op, left, right, budget);
  if (op === '%' && typeof left === 'string') return percentFormat(left, right, budget);
  if (right instanceof Undefined) right.raise();
  const a = numeric(left);
  const b = numeric(right);
  if (a !== null && b !== null) return arithmetic(op, a, b, isInteger(left) && isInteger(right));
  if (op === '+') return concatenate(left, right, budget);
  if (op === '*') {
    if (isInteger(right)) return repeat(left, Number(right), budget);
    if (isInteger(left)) return repeat(right, Number(left), budget);
  }
  const shown = op === '**' ? '** or pow()' : op;
  throw typeError(`unsupported operand type(s) for ${shown}: '${typeName(left)}' and '${typeName(right)}'`);
}

/** `+` with marked text escapes the side that is not marked; other operators see the text. */
function markup(op: BinaryOp, left: Value, right: Value, budget: Budget): Value {
  if (op !== '+') return binary(op, plain(left), plain(right), budget);
  const part = (value: Value): Value => (typeof value === 'string' ? escapeHtml(value) : plain(value));
  return new Markup(concatenate(part(left), part(right), budget) as string);
}

function arithmetic(op: BinaryOp, a: number, b: number, whole: boolean): Value {
  const wrap = (value: number): Value => (whole ? int(value) : new PyFloat(value));
  switch (op) {
    case '+':
      return wrap(a + b);
    case '-':
      return wrap(a - b);
    case '*':
      return wrap(a * b);
    case '/':
      if (b === 0) throw new JinjaError('ZeroDivisionError', whole ? 'division by zero' : 'float division by zero');
      return new PyFloat(a / b);
    case '//':
      if (b === 0)
        throw new JinjaError(
          'ZeroDivisionError',
          whole ? 'integer division or modulo by zero' : 'float floor division by zero',
        );
      return wrap(Math.floor(a / b));
    case '%': {
      if (b === 0) throw new JinjaError('ZeroDivisionError', whole ? 'integer modulo by zero' : 'float modulo');
      const rest = a % b;
      return wrap(rest !== 0 && rest < 0 !== b < 0 ? rest + b : rest);
    }
    case '**':
      if (a === 0 && b < 0) throw new JinjaError('ZeroDivisionError', '0.0 cannot be raised to a negative power');
      return whole && b >= 0 ? int(a ** b) : new PyFloat(a ** b);
  }
}

function concatenate(left: Value, right: Value, budget: Budget): Value {
  if (typeof left === 'string') {
    if (typeof right !== 'string') throw typeError(`can only concatenate str (not "${typeName(right)}") to str`);
    budget.spendChars(left.length + right.length);
    return left + right;
  }
  if (Array.isArray(left)) {
    if (!Array.isArray(right)) throw typeError(`can only concatenate list (not "${typeName(right)}") to list`);
    budget.spend(left.length + right.length);
    return [...left, ...right];
  }
  if (left instanceof PyTuple) {
    if (!(right instanceof PyTuple)) throw typeError(`can only concatenate tuple (not "${typeName(right)}") to tuple`);
    budget.spend(left.items.length + right.items.length);
    return new PyTuple([...left.items, ...right.items]);
  }
  throw typeError(`unsupported operand type(s) for +: '${typeName(left)}' and '${typeName(right)}'`);
}

function repeat(value: Value, times: number, budget: Budget): Value {
  const count = Math.max(0, times);
  if (typeof value === 'string') {
    budget.spendChars(value.length * count);
    return value.repeat(count);
  }
  const items = Array.isArray(value) ? value : value instanceof PyTuple ? value.items : null;
  if (items === null) throw typeError(`can't multiply sequence by non-int of type '${typeName(value)}'`);
  budget.spend(items.length * count);
  const all = Array.from({ length: count }, () => items).flat();
  return Array.isArray(value) ? all : new PyTuple(all);
}

export function negate(op: '-' | '+', value: Value): Value {
  if (value instanceof Undefined) value.raise();
  const number = numeric(value);
  if (number === null) throw typeError(`bad operand type for unary ${op}: '${typeName(value)}'`);
  const result = op === '-' ? -number : number;
  return isInteger(value) ? int(result) : new PyFloat(result);
}

export function compare(op: CompareOp, left: Value, right: Value, budget: Budget): boolean {
  switch (op) {
    case '==':
      return equal(left, right, budget);
    case '!=':
      return !equal(left, right, budget);
    case 'in':
      return contains(right, left, budget);
    case 'not in':
      return !contains(right, left, budget);
    case '<':
      return order(left, right, op, budget) < 0;
    case '<=':
      return order(left, right, op, budget) <= 0;
    case '>':
      return order(left, right, op, budget) > 0;
    case '>=':
      return order(left, right, op, budget) >= 0;
  }
}

export function equal(first: Value, second: Value, budget: Budget): boolean {
  const left = plain(first);
  const right = plain(second);
  if (left === right) return true;
  const a = numeric(left);
  if (a !== null) return a === numeric(right);
  if (typeof left !== 'object' || typeof right !== 'object' || left === null || right === null) return false;
  budget.spend(1);
  if (left instanceof Undefined) return right instanceof Undefined;
  if (left instanceof PyDict && right instanceof PyDict) {
    if (left.size !== right.size) return false;
    return left.pairs().every(([key, item]) => {
      const other = right.get(key);
      return other !== undefined && equal(item, other, budget);
    });
  }
  const x = Array.isArray(left) ? left : left instanceof PyTuple ? left.items : null;
  const y = Array.isArray(right) ? right : right instanceof PyTuple ? right.items : null;
  if (x === null || y === null || Array.isArray(left) !== Array.isArray(right)) return false;
  return x.length === y.length && x.every((item, i) => equal(item, y[i] as Value, budget));
}

export function contains(container: Value, item: Value, budget: Budget): boolean {
  if (typeof container === 'string') {
    if (item instanceof Undefined) item.raise();
    if (typeof item !== 'string')
      throw typeError(`'in <string>' requires string as left operand, not ${typeName(item)}`);
    budget.spendChars(container.length);
    return container.includes(item);
  }
  if (container instanceof PyDict) return container.has(item);
  if (container === null || numeric(container) !== null) {
    throw typeError(`argument of type '${typeName(container)}' is not iterable`);
  }
  const items = iterate(container);
  budget.spend(items.length);
  return items.some((candidate) => equal(candidate, item, budget));
}

/** Negative, zero or positive, as Python orders the two. @throws TypeError for what it does not order. */
export function order(left: Value, right: Value, op: string, budget: Budget): number {
  if (left instanceof Undefined) left.raise();
  if (right instanceof Undefined) right.raise();
  const a = numeric(left);
  const b = numeric(right);
  if (a !== null && b !== null) return a === b ? 0 : a < b ? -1 : a > b ? 1 : Number.NaN;
  if (typeof left === 'string' && typeof right === 'string') {
    budget.spendChars(Math.min(left.length, right.length));
    return orderStrings(left, right);
  }
  const x = Array.isArray(left) ? left : left instanceof PyTuple ? left.items : null;
  const y = Array.isArray(right) ? right : right instanceof PyTuple ? right.items : null;
  if (x && y && Array.isArray(left) === Array.isArray(right)) {
    for (let i = 0; i < Math.min(x.length, y.length); i++) {
      budget.spend(1);
      if (!equal(x[i] as Value, y[i] as Value, budget)) return order(x[i] as Value, y[i] as Value, op, budget);
    }
    return x.length - y.length;
  }
  throw typeError(`'${op}' not supported between instances of '${typeName(left)}' and '${typeName(right)}'`);
}

/** By code point, as Python does; UTF-16 order differs above U+FFFF. */
function orderStrings(a: string, b: string): number {
  const shared = Math.min(a.length, b.length);
  let i = 0;
  while (i < shared && a.charCodeAt(i) === b.charCodeAt(i)) i++;
  if (i === shared) return a.length - b.length;
  const x = a.charCodeAt(i);
  const y = b.charCodeAt(i);
  const isSurrogate = (unit: number): boolean => unit >= 0xd800 && unit < 0xe000;
  if (isSurrogate(x) === isSurrogate(y)) return x - y;
  return isSurrogate(x) ? 1 : -1;
}

/** `value[start:stop:step]` with Python's rules for negative and missing bounds. */
export function slice(value: Value, start: Value, stop: Value, step: Value, budget: Budget): Value | null {
  const items = sliceable(value);
  if (items === null) return null;
  const stride = step === null ? 1 : sliceIndex(step);
  if (stride === 0) throw new JinjaError('ValueError', 'slice step cannot be zero');
  const size = items.length;
  const clamp = (index: Value, fallback: number): number => {
    if (index === null) return fallback;
    const at = sliceIndex(index);
    const from = at < 0 ? at + size : at;
    return stride > 0 ? Math.min(Math.max(from, 0), size) : Math.min(Math.max(from, -1), size - 1);
  };
  const first = clamp(start, stride > 0 ? 0 : size - 1);
  const last = clamp(stop, stride > 0 ? size : -1);
  budget.spend(Math.abs(last - first));
  const taken: Value[] = [];
  for (let i = first; stride > 0 ? i < last : i > last; i += stride) taken.push(items[i] as Value);
  if (typeof value === 'string') return taken.join('');
  return value instanceof PyTuple ? new PyTuple(taken) : taken;
}

function sliceable(value: Value): readonly Value[] | null {
  if (typeof value === 'string') return Array.from(value);
  if (Array.isArray(value)) return value;
  if (value instanceof PyTuple) return value.items;
  return value instanceof PyView && value.label === 'range' ? value.items : null;
}

function sliceIndex(value: Value): number {
  if (value instanceof Undefined) value.raise();
  if (!isInteger(value)) throw typeError('slice indices must be integers or None or have an __index__ method');
  return Number(value);
}
