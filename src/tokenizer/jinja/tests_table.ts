import type { CompareOp } from './ast.ts';
import type { Budget } from './budget.ts';
import { bind } from './call.ts';
import { FILTERS } from './filters.ts';
import { binary, compare } from './operators.ts';
import { str } from './text_of.ts';
import type { CallArgs, Value } from './values.ts';
import {
  isIterable,
  numeric,
  PyDict,
  PyFloat,
  PyFunction,
  PyGenerator,
  PyObject,
  PyTuple,
  PyView,
  Undefined,
} from './values.ts';

/** A test of `x is name(args)`. */
export type Test = (input: Value, call: CallArgs, budget: Budget) => boolean;

const plain =
  (run: (input: Value) => boolean): Test =>
  (input, call) => {
    bind('test', call, [], 0);
    return run(input);
  };

const comparing =
  (op: CompareOp): Test =>
  (input, call, budget) =>
    compare(op, input, bind('test', call, ['other'], 1)[0] ?? null, budget);

const remainder = (input: Value, divisor: Value, budget: Budget): number =>
  numeric(binary('%', input, divisor, budget)) as number;

const isText = (input: Value, pattern: RegExp, opposite: RegExp, budget: Budget): boolean => {
  const value = str(input, budget);
  return pattern.test(value) && !opposite.test(value);
};

function isSequence(input: Value): boolean {
  return (
    typeof input === 'string' ||
    Array.isArray(input) ||
    input instanceof PyTuple ||
    input instanceof PyDict ||
    input instanceof Undefined ||
    (input instanceof PyView && input.label === 'range')
  );
}

const TABLE: Readonly<Record<string, Test>> = {
  defined: plain((input) => !(input instanceof Undefined)),
  undefined: plain((input) => input instanceof Undefined),
  none: plain((input) => input === null),
  boolean: plain((input) => typeof input === 'boolean'),
  true: plain((input) => input === true),
  false: plain((input) => input === false),
  integer: plain((input) => typeof input === 'number'),
  float: plain((input) => input instanceof PyFloat),
  number: plain((input) => numeric(input) !== null),
  string: plain((input) => typeof input === 'string'),
  mapping: plain((input) => input instanceof PyDict),
  sequence: plain(isSequence),
  iterable: plain((input) => isIterable(input) || input instanceof PyGenerator),
  callable: plain((input) => input instanceof PyFunction || (input instanceof PyObject && input.call !== null)),
  escaped: plain(() => false),
  odd: (input, call, budget) => plain((value) => remainder(value, 2, budget) === 1)(input, call, budget),
  even: (input, call, budget) => plain((value) => remainder(value, 2, budget) === 0)(input, call, budget),
  divisibleby: (input, call, budget) =>
    remainder(input, bind('divisibleby', call, ['num'], 1)[0] ?? null, budget) === 0,
  lower: (input, _call, budget) => isText(input, /\p{Ll}/u, /\p{Lu}|\p{Lt}/u, budget),
  upper: (input, _call, budget) => isText(input, /\p{Lu}/u, /\p{Ll}|\p{Lt}/u, budget),
  sameas: (input, call) => input === (bind('sameas', call, ['other'], 1)[0] ?? null),
  in: comparing('in'),
  filter: (input) => typeof input === 'string' && FILTERS.has(input),
  test: (input) => typeof input === 'string' && TESTS.has(input),
};

const COMPARISONS: Readonly<Record<string, CompareOp>> = {
  eq: '==',
  equalto: '==',
  ne: '!=',
  lt: '<',
  lessthan: '<',
  le: '<=',
  gt: '>',
  greaterthan: '>',
  ge: '>=',
};

export const TESTS: ReadonlyMap<string, Test> = new Map([
  ...Object.entries(TABLE),
  ...Object.entries(COMPARISONS).map(([name, op]) => [name, comparing(op)] as const),
]);
