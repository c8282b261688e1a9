/**
 * PromQL over samples in memory, at one time: what Prometheus 3 answers to an instant query, for the forms that scaling triggers
 * use. Checked against promtool (evaluate_promtool.test.ts).
 */
import { binary, type QueryValue } from './binary.ts';
import {
  distinct,
  type Element,
  groupLabels,
  keyOf,
  type LabelMap,
  pick,
  QueryFailure,
  withoutName,
} from './element.ts';
import { VALUE_FUNCTIONS } from './functions.ts';
import { bucketQuantile } from './histogram_quantile.ts';
import { parseQuery } from './parser.ts';
import type { QueryNode } from './query_ast.ts';
import { compensatedSum, extreme, mean, quantile, RANGE_FUNCTIONS, type SampleRange } from './range_functions.ts';
import type { SampleStore } from './sample_store.ts';

/** A sample counts this long, ms. */
const LOOKBACK_MS = 300_000;

export type QueryResult = { readonly elements: readonly Element[] } | { readonly failed: string };

type NodeOf<Kind extends QueryNode['kind']> = Extract<QueryNode, { kind: Kind }>;

interface Scope {
  readonly store: SampleStore;
  /** ms */
  readonly now: number;
}

/** A scalar is one element without labels. `invalid_manifest` for a text that is no query; `failed` where the samples do not fit it. */
export function evaluateQuery(text: string, store: SampleStore, now: number): QueryResult {
  const node = parseQuery(text);
  try {
    const value = evaluate(node, { store, now });
    return { elements: typeof value === 'number' ? [{ labels: new Map(), value }] : value };
  } catch (error) {
    if (error instanceof QueryFailure) return { failed: error.message };
    throw error;
  }
}

function evaluate(node: QueryNode, scope: Scope): QueryValue {
  switch (node.kind) {
    case 'number':
      return node.value;
    case 'selector':
      return instantVector(node, scope);
    case 'negate': {
      const value = evaluate(node.operand, scope);
      return typeof value === 'number' ? -value : mapped(value, (of) => -of);
    }
    case 'binary':
      return binary(node, evaluate(node.left, scope), evaluate(node.right, scope));
    case 'aggregate':
      return aggregate(node, scope);
    case 'call':
      return call(node, scope);
  }
}

function vectorOf(node: QueryNode | undefined, scope: Scope): readonly Element[] {
  return evaluate(node as QueryNode, scope) as readonly Element[];
}

function numberOf(node: QueryNode | undefined, scope: Scope): number {
  return evaluate(node as QueryNode, scope) as number;
}

function instantVector({ name, matchers, offsetMs }: NodeOf<'selector'>, { store, now }: Scope): readonly Element[] {
  const at = now - offsetMs;
  return store.select(name, matchers).flatMap((series) => {
    const value = series.latest(at - LOOKBACK_MS, at);
    return value === undefined ? [] : [{ labels: series.labels, value }];
  });
}

/** Of each element; null = it goes. The name goes too, as the value is no longer what it says. */
function mapped(elements: readonly Element[], of: (value: number) => number | null): readonly Element[] {
  return distinct(
    elements.flatMap(({ labels, value }) => {
      const result = of(value);
      return result === null ? [] : [{ labels: withoutName(labels), value: result }];
    }),
  );
}

function call(node: NodeOf<'call'>, scope: Scope): QueryValue {
  const { name, args } = node;
  const ofRange = RANGE_FUNCTIONS[name];
  if (ofRange !== undefined) return overRange(args[0], scope, ofRange, name === 'last_over_time');
  const ofValue = VALUE_FUNCTIONS[name];
  if (ofValue !== undefined) {
    const numbers = args.slice(1).map((arg) => numberOf(arg, scope));
    return mapped(vectorOf(args[0], scope), (value) => ofValue.of(value, ...numbers));
  }
  switch (name) {
    case 'time':
      return scope.now / 1000;
    case 'vector':
      return [{ labels: new Map(), value: numberOf(args[0], scope) }];
    case 'scalar': {
      const elements = vectorOf(args[0], scope);
      return elements.length === 1 ? (elements[0] as Element).value : Number.NaN;
    }
    case 'absent':
      return vectorOf(args[0], scope).length > 0 ? [] : [{ labels: absentLabels(args[0] as QueryNode), value: 1 }];
    case 'quantile_over_time': {
      const share = numberOf(args[0], scope);
      return overRange(args[1], scope, ({ values }) => (values.length === 0 ? null : quantile(share, values)), false);
    }
    default:
      return histogramQuantile(numberOf(args[0], scope), vectorOf(args[1], scope));
  }
}

function overRange(
  node: QueryNode | undefined,
  { store, now }: Scope,
  of: (range: SampleRange) => number | null,
  keepsName: boolean,
): readonly Element[] {
  const { name, matchers, rangeMs, offsetMs } = node as NodeOf<'selector'>;
  const to = now - offsetMs;
  const from = to - (rangeMs as number);
  return distinct(
    store.select(name, matchers).flatMap((series) => {
      const value = of({ ...series.range(from, to), from, to });
      return value === null ? [] : [{ labels: keepsName ? series.labels : withoutName(series.labels), value }];
    }),
  );
}

/** What the selector says that they would have been. */
function absentLabels(node: QueryNode): LabelMap {
  if (node.kind !== 'selector') return new Map();
  const said = node.matchers.filter(({ label }) => label !== '__name__');
  const single = said.filter(({ label }) => said.filter((other) => other.label === label).length === 1);
  const equal = single.filter(({ operator, value }) => operator === '=' && value !== '');
  return new Map(
    equal.map(({ label, value }): [string, string] => [label, value]).sort(([a], [b]) => (a < b ? -1 : 1)),
  );
}

function aggregate(node: NodeOf<'aggregate'>, scope: Scope): readonly Element[] {
  const { operator, grouping, parameter } = node;
  const number = parameter === null ? 0 : numberOf(parameter, scope);
  const groups = new Map<string, { readonly labels: LabelMap; readonly elements: Element[] }>();
  for (const element of vectorOf(node.operand, scope)) {
    const labels = groupLabels(element.labels, grouping.labels, !grouping.without);
    const key = keyOf(labels);
    const group = groups.get(key) ?? { labels, elements: [] };
    group.elements.push(element);
    groups.set(key, group);
  }
  if (operator === 'topk' || operator === 'bottomk') {
    if (!Number.isFinite(number)) throw new QueryFailure(`${operator} of ${number} elements`);
    const sign = operator === 'topk' ? 1 : -1;
    return [...groups.values()].flatMap(({ elements }) => best(elements, Math.trunc(number), sign));
  }
  return [...groups.values()].map(({ labels, elements }) => ({
    labels,
    value: reduced(
      operator,
      number,
      elements.map(({ value }) => value),
    ),
  }));
}

function best(elements: readonly Element[], count: number, sign: number): readonly Element[] {
  const rank = ({ value }: Element) => (Number.isNaN(value) ? 1 : 0);
  const order = (a: Element, b: Element) =>
    rank(a) - rank(b) || (a.value === b.value ? 0 : a.value * sign > b.value * sign ? -1 : 1);
  return elements.toSorted(order).slice(0, Math.max(0, count));
}

function reduced(operator: string, number: number, values: readonly number[]): number {
  switch (operator) {
    case 'sum':
      return compensatedSum(values);
    case 'avg':
      return mean(values);
    case 'max':
      return extreme(values, (a, b) => a > b);
    case 'min':
      return extreme(values, (a, b) => a < b);
    case 'count':
      return values.length;
    default:
      return quantile(number, values);
  }
}

function histogramQuantile(share: number, elements: readonly Element[]): readonly Element[] {
  const groups = new Map<string, { readonly labels: LabelMap; readonly buckets: { le: number; count: number }[] }>();
  for (const { labels, value } of elements) {
    const le = bound(labels.get('le') ?? '');
    if (le === null) continue;
    const rest = pick(labels, (label) => label !== 'le' && label !== '__name__');
    const group = groups.get(keyOf(rest)) ?? { labels: rest, buckets: [] };
    group.buckets.push({ le, count: value });
    groups.set(keyOf(rest), group);
  }
  return [...groups.values()].map(({ labels, buckets }) => ({ labels, value: bucketQuantile(share, buckets) }));
}

function bound(text: string): number | null {
  if (/^[+]?inf$/i.test(text)) return Number.POSITIVE_INFINITY;
  return text === '' || Number.isNaN(Number(text)) ? null : Number(text);
}
