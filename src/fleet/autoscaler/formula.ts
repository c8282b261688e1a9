/**
 * `scalingModifiers.formula` of a ScaledObject (KEDA 2.21, pkg/scaling/modifiers with expr-lang): one number from the values of
 * its triggers. Compiled once; a run is pure and bounded.
 */
import { TokenmillError } from '../../base/errors.ts';
import { type FormulaNode, formulaError, parseFormula } from './formula_parser.ts';

export interface Formula {
  readonly tree: FormulaNode;
  /** The text has `??`: then nothing (null) is a result, and not a failure. */
  readonly mayBeNil: boolean;
}

export type FormulaResult = { readonly value: number | null } | { readonly failed: string };

/** bigint = int64; null = nil, which a name is that has no value. */
type Scalar = number | bigint | boolean | null;
type Value = Scalar | readonly Scalar[];

interface Scope {
  readonly values: ReadonlyMap<string, number>;
  readonly item: Scalar;
  readonly budget: { steps: number };
}

const MAX_STEPS = 20_000;

/** What each trigger has when a formula is tried before it is accepted. */
const TRIAL = -1;

/**
 * Checked as KEDA's admission does, by a trial with every name at -1. `invalid_manifest` with the place of what is wrong:
 * syntax, a name that no trigger has, an unknown function, a type.
 */
export function compileFormula(text: string, names: readonly string[]): Formula {
  const tree = parseFormula(text);
  checkNames(tree, new Set(names), false);
  const formula = { tree, mayBeNil: text.includes('??') };
  run(formula, new Map(names.map((name) => [name, TRIAL])));
  return formula;
}

/** With the values of those triggers that have one. */
export function evaluateFormula(formula: Formula, values: ReadonlyMap<string, number>): FormulaResult {
  try {
    return { value: run(formula, values) };
  } catch (error) {
    if (error instanceof TokenmillError) return { failed: error.message };
    throw error;
  }
}

function run({ tree, mayBeNil }: Formula, values: ReadonlyMap<string, number>): number | null {
  const result = evaluate(tree, { values, item: null, budget: { steps: 0 } });
  if (result === null && mayBeNil) return null;
  return Number(numeric(result, tree.at, 'the result'));
}

function checkNames(node: FormulaNode, names: ReadonlySet<string>, inPredicate: boolean): void {
  if (node.kind === 'name' && !names.has(node.name))
    throw formulaError(`no trigger has the name "${node.name}"`, node.at);
  if (node.kind === 'item' && !inPredicate)
    throw formulaError('"#" outside of a condition on the items of an array', node.at);
  if (node.kind !== 'call') {
    for (const child of children(node)) checkNames(child, names, inPredicate);
    return;
  }
  const fn = functionNamed(node.name, node.at);
  const { length } = node.args;
  if (length < fn.least || length > fn.most) throw formulaError(`${node.name} with ${length} arguments`, node.at);
  for (const [at, arg] of node.args.entries()) checkNames(arg, names, inPredicate || ('each' in fn && at === 1));
}

function children(node: FormulaNode): readonly FormulaNode[] {
  switch (node.kind) {
    case 'array':
      return node.items;
    case 'unary':
      return [node.operand];
    case 'binary':
      return [node.left, node.right];
    case 'ternary':
      return [node.test, node.yes, node.no];
    default:
      return [];
  }
}

function evaluate(node: FormulaNode, scope: Scope): Value {
  if (++scope.budget.steps > MAX_STEPS) throw formulaError(`more than ${MAX_STEPS} steps`, node.at);
  switch (node.kind) {
    case 'literal':
      return node.value;
    case 'name':
      return scope.values.get(node.name) ?? null;
    case 'item':
      return scope.item;
    case 'array':
      return node.items.map((item) => scalar(evaluate(item, scope), item.at));
    case 'unary':
      return unary(node, evaluate(node.operand, scope));
    case 'ternary':
      return evaluate(boolean(evaluate(node.test, scope), node.at, '?') ? node.yes : node.no, scope);
    case 'binary':
      return binary(node, scope);
    case 'call':
      return call(node, scope);
  }
}

function unary({ operator, at }: FormulaNode & { kind: 'unary' }, operand: Value): Value {
  if (operator === '!') return !boolean(operand, at, '!');
  const value = numeric(operand, at, operator);
  if (operator === '+') return value;
  return typeof value === 'bigint' ? BigInt.asIntN(64, -value) : -value;
}

function binary({ operator, left, right, at }: FormulaNode & { kind: 'binary' }, scope: Scope): Value {
  const first = evaluate(left, scope);
  if (operator === '??') return first ?? evaluate(right, scope);
  if (operator === '&&') return boolean(first, at, '&&') && boolean(evaluate(right, scope), at, '&&');
  if (operator === '||') return boolean(first, at, '||') || boolean(evaluate(right, scope), at, '||');
  const second = evaluate(right, scope);
  // One of the two may be a whole number and the other not.
  if (operator === '==') return equal(first, second);
  if (operator === '!=') return !equal(first, second);
  const [a, b] = [numeric(first, at, operator), numeric(second, at, operator)];
  switch (operator) {
    case '<':
      return a < b;
    case '>':
      return a > b;
    case '<=':
      return a <= b;
    case '>=':
      return a >= b;
    default:
      return arithmetic(operator, a, b, at);
  }
}

function equal(a: Value, b: Value): boolean {
  if (isList(a) && isList(b)) return a.length === b.length && a.every((item, at) => equal(item, b[at] ?? null));
  // biome-ignore lint/suspicious/noDoubleEquals: 1n == 1
  return isNumber(a) && isNumber(b) ? a == b : a === b;
}

function arithmetic(operator: string, a: number | bigint, b: number | bigint, at: number): number | bigint {
  if (operator === '/') return Number(a) / Number(b);
  if (operator === '**') return Number(a) ** Number(b);
  if (operator === '%') {
    if (typeof a !== 'bigint' || typeof b !== 'bigint') {
      throw formulaError('"%" of what is not a whole number (int(…) makes it one)', at);
    }
    if (b === 0n) throw formulaError('"%" by zero', at);
    return a % b;
  }
  if (typeof a === 'bigint' && typeof b === 'bigint') {
    return BigInt.asIntN(64, operator === '+' ? a + b : operator === '-' ? a - b : a * b);
  }
  const [x, y] = [Number(a), Number(b)];
  return operator === '+' ? x + y : operator === '-' ? x - y : x * y;
}

/** `each`: of an array, with a condition or mapping as second argument. `all`: of the values of all arguments. */
type FormulaFunction = { readonly least: number; readonly most: number } & (
  | { readonly each: (list: readonly Scalar[], of: (item: Scalar) => Value, at: number) => Value }
  | { readonly all: (values: readonly Value[], at: number) => Value }
);

const MANY = 100;

const truthy =
  (name: string, of: (item: Scalar) => Value, at: number) =>
  (item: Scalar): boolean =>
    boolean(of(item), at, name);

const one = (of: (value: number) => number | bigint): FormulaFunction => ({
  least: 1,
  most: 1,
  all: ([value], at) => of(Number(numeric(value ?? null, at, 'a function of a number'))),
});

const FUNCTIONS: Readonly<Record<string, FormulaFunction>> = {
  min: { least: 1, most: MANY, all: (values, at) => extreme(values, at, (a, b) => a < b) },
  max: { least: 1, most: MANY, all: (values, at) => extreme(values, at, (a, b) => a > b) },
  mean: { least: 1, most: MANY, all: (values, at) => mean(flat(values, at).map(Number), at) },
  median: { least: 1, most: MANY, all: (values, at) => median(flat(values, at).map(Number), at) },
  len: { least: 1, most: 1, all: ([list], at) => BigInt(items(list ?? null, at, 'len').length) },
  int: one((value) => toInt64(value)),
  float: one((value) => value),
  abs: {
    least: 1,
    most: 1,
    all: ([given], at) => {
      const value = numeric(given ?? null, at, 'abs');
      return value < 0 ? arithmetic('-', 0n, value, at) : value;
    },
  },
  ceil: one(Math.ceil),
  floor: one(Math.floor),
  // Halves go away from zero.
  round: one((value) => Math.sign(value) * Math.round(Math.abs(value))),
  sum: {
    least: 1,
    most: 2,
    each: (list, of, at) =>
      list.reduce<number | bigint>((sum, item) => arithmetic('+', sum, numeric(of(item), at, 'sum'), at), 0n),
  },
  count: { least: 1, most: 2, each: (list, of, at) => BigInt(list.filter(truthy('count', of, at)).length) },
  any: { least: 2, most: 2, each: (list, of, at) => list.some(truthy('any', of, at)) },
  all: { least: 2, most: 2, each: (list, of, at) => list.every(truthy('all', of, at)) },
  none: { least: 2, most: 2, each: (list, of, at) => !list.some(truthy('none', of, at)) },
  one: { least: 2, most: 2, each: (list, of, at) => list.filter(truthy('one', of, at)).length === 1 },
  filter: { least: 2, most: 2, each: (list, of, at) => list.filter(truthy('filter', of, at)) },
  map: { least: 2, most: 2, each: (list, of, at) => list.map((item) => scalar(of(item), at)) },
};

function functionNamed(name: string, at: number): FormulaFunction {
  const fn = Object.hasOwn(FUNCTIONS, name) ? FUNCTIONS[name] : undefined;
  if (fn) return fn;
  throw formulaError(`the function "${name}" is not supported (there are ${Object.keys(FUNCTIONS).join(', ')})`, at);
}

function call({ name, args, at }: FormulaNode & { kind: 'call' }, scope: Scope): Value {
  const fn = functionNamed(name, at);
  if ('all' in fn) {
    return fn.all(
      args.map((arg) => evaluate(arg, scope)),
      at,
    );
  }
  const [list, predicate] = args as [FormulaNode, FormulaNode | undefined];
  const of = (item: Scalar) => (predicate ? evaluate(predicate, { ...scope, item }) : item);
  return fn.each(items(evaluate(list, scope), at, name), of, at);
}

function extreme(values: readonly Value[], at: number, better: (a: number | bigint, b: number | bigint) => boolean) {
  const [first, ...rest] = flat(values, at);
  if (first === undefined) throw formulaError('min or max of nothing', at);
  return rest.reduce((best, value) => (better(value, best) ? value : best), first);
}

function mean(values: readonly number[], at: number): number {
  if (values.length === 0) throw formulaError('mean of nothing', at);
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

function median(values: readonly number[], at: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  const half = sorted.length >> 1;
  return mean(sorted.length % 2 === 1 ? [sorted[half] as number] : sorted.slice(Math.max(0, half - 1), half + 1), at);
}

function flat(values: readonly Value[], at: number): (number | bigint)[] {
  return values.flat().map((value) => numeric(value, at, 'a function of numbers'));
}

/** Arrays in arrays would let a short text make a huge value. */
function scalar(value: Value, at: number): Scalar {
  if (isList(value)) throw formulaError('an array in an array is not supported', at);
  return value;
}

function items(value: Value, at: number, of: string): readonly Scalar[] {
  if (isList(value)) return value;
  throw formulaError(`${of} needs an array, not ${typeName(value)}`, at);
}

function numeric(value: Value, at: number, of: string): number | bigint {
  if (isNumber(value)) return value;
  throw formulaError(`${of} needs a number, not ${typeName(value)},`, at);
}

function boolean(value: Value, at: number, of: string): boolean {
  if (typeof value === 'boolean') return value;
  throw formulaError(`${of} needs true or false, not ${typeName(value)},`, at);
}

function typeName(value: Value): string {
  if (value === null) return 'nil';
  return isList(value) ? 'an array' : typeof value === 'boolean' ? 'a boolean' : 'a number';
}

function isNumber(value: Value): value is number | bigint {
  return typeof value === 'number' || typeof value === 'bigint';
}

function isList(value: Value): value is readonly Scalar[] {
  return Array.isArray(value);
}

/** Toward zero; what does not fit is what amd64 makes of it. */
function toInt64(value: number): bigint {
  return Number.isFinite(value) && Math.abs(value) < 2 ** 63 ? BigInt(Math.trunc(value)) : -(2n ** 63n);
}
