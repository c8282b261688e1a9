/** Functions and aggregations of queries: names, arguments, results. The parser and the docs take them from here. */
import type { ValueType } from './query_ast.ts';
import { RANGE_FUNCTIONS } from './range_functions.ts';

export interface QueryFunction {
  readonly args: readonly ValueType[];
  /** Arguments that must be there. */
  readonly least: number;
  readonly returns: ValueType;
}

/** Of each value by itself; what follows are the numbers in the call. */
export const VALUE_FUNCTIONS: Readonly<
  Record<string, { readonly numbers: number; readonly least: number; readonly of: ValueFunction }>
> = {
  abs: { numbers: 0, least: 0, of: Math.abs },
  ceil: { numbers: 0, least: 0, of: Math.ceil },
  floor: { numbers: 0, least: 0, of: Math.floor },
  // Halves go up, whatever their sign.
  round: { numbers: 1, least: 0, of: (value, nearest = 1) => Math.floor(value * (1 / nearest) + 0.5) / (1 / nearest) },
  clamp: {
    numbers: 2,
    least: 2,
    of: (value, low = 0, high = 0) => (high < low ? null : Math.max(low, Math.min(high, value))),
  },
  clamp_min: { numbers: 1, least: 1, of: (value, low = 0) => Math.max(low, value) },
  clamp_max: { numbers: 1, least: 1, of: (value, high = 0) => Math.min(high, value) },
};

/** null = the element goes. */
type ValueFunction = (value: number, ...numbers: number[]) => number | null;

const OTHERS: readonly (readonly [string, QueryFunction])[] = [
  ['quantile_over_time', { args: ['scalar', 'matrix'], least: 2, returns: 'vector' }],
  ['histogram_quantile', { args: ['scalar', 'vector'], least: 2, returns: 'vector' }],
  ['absent', { args: ['vector'], least: 1, returns: 'vector' }],
  ['vector', { args: ['scalar'], least: 1, returns: 'vector' }],
  ['scalar', { args: ['vector'], least: 1, returns: 'scalar' }],
  ['time', { args: [], least: 0, returns: 'scalar' }],
];

export const FUNCTIONS: ReadonlyMap<string, QueryFunction> = new Map([
  ...Object.keys(RANGE_FUNCTIONS).map((name): [string, QueryFunction] => [
    name,
    { args: ['matrix'], least: 1, returns: 'vector' },
  ]),
  ...Object.entries(VALUE_FUNCTIONS).map(([name, { numbers, least }]): [string, QueryFunction] => [
    name,
    { args: ['vector', ...Array<ValueType>(numbers).fill('scalar')], least: 1 + least, returns: 'vector' },
  ]),
  ...OTHERS,
]);

/** Whether a number comes first. */
export const AGGREGATORS: ReadonlyMap<string, boolean> = new Map([
  ['sum', false],
  ['avg', false],
  ['max', false],
  ['min', false],
  ['count', false],
  ['quantile', true],
  ['topk', true],
  ['bottomk', true],
]);

export const UNSUPPORTED_AGGREGATORS: ReadonlySet<string> = new Set([
  ...['stddev', 'stdvar', 'group', 'count_values', 'limitk', 'limit_ratio'],
]);
