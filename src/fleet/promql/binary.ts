/** Operators between numbers and vectors, and how the elements of two vectors find each other (Prometheus, promql/engine.go). */
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
import type { Matching, QueryNode } from './query_ast.ts';

type BinaryNode = Extract<QueryNode, { kind: 'binary' }>;

export type QueryValue = number | readonly Element[];

const COMPARISONS: Readonly<Record<string, (a: number, b: number) => boolean>> = {
  '==': (a, b) => a === b,
  '!=': (a, b) => a !== b,
  '<': (a, b) => a < b,
  '>': (a, b) => a > b,
  '<=': (a, b) => a <= b,
  '>=': (a, b) => a >= b,
};

const ARITHMETIC: Readonly<Record<string, (a: number, b: number) => number>> = {
  '+': (a, b) => a + b,
  '-': (a, b) => a - b,
  '*': (a, b) => a * b,
  '/': (a, b) => a / b,
  '%': (a, b) => a % b,
  '^': power,
};

/** IEEE's pow, where JavaScript has NaN. */
function power(base: number, exponent: number): number {
  if (base === 1 || (base === -1 && Math.abs(exponent) === Number.POSITIVE_INFINITY)) return 1;
  return base ** exponent;
}

export function binary(node: BinaryNode, left: QueryValue, right: QueryValue): QueryValue {
  const { operator, bool } = node;
  if (typeof left === 'number' && typeof right === 'number') return apply(operator, left, right).value;
  if (typeof left === 'number' || typeof right === 'number') {
    const [vector, number] = typeof left === 'number' ? [right, left] : [left, right as number];
    const isLeft = typeof left === 'number';
    const elements = (vector as readonly Element[]).flatMap(({ labels, value }) => {
      const result = isLeft ? apply(operator, number, value) : apply(operator, value, number);
      if (result.keeps === null || bool) return [{ labels: withoutName(labels), value: result.value }];
      return result.keeps ? [{ labels, value }] : [];
    });
    return distinct(elements);
  }
  if (operator === 'and' || operator === 'or' || operator === 'unless') return setOperation(node, left, right);
  return distinct(matched(node, left, right));
}

/** `keeps`: of a comparison; null for arithmetic. */
function apply(operator: string, a: number, b: number): { readonly value: number; readonly keeps: boolean | null } {
  const compare = COMPARISONS[operator];
  if (compare === undefined) return { value: (ARITHMETIC[operator] as (typeof ARITHMETIC)['+'])(a, b), keeps: null };
  const keeps = compare(a, b);
  return { value: keeps ? 1 : 0, keeps };
}

const PLAIN: Matching = { on: false, labels: [], group: null, include: [] };

function signature({ on, labels }: Matching, of: LabelMap): string {
  return keyOf(groupLabels(of, labels, on));
}

function setOperation(
  { operator, matching }: BinaryNode,
  left: readonly Element[],
  right: readonly Element[],
): readonly Element[] {
  const key = ({ labels }: Element) => signature(matching ?? PLAIN, labels);
  if (operator === 'or') {
    const there = new Set(left.map(key));
    return [...left, ...right.filter((element) => !there.has(key(element)))];
  }
  const there = new Set(right.map(key));
  return left.filter((element) => there.has(key(element)) === (operator === 'and'));
}

function matched(node: BinaryNode, left: readonly Element[], right: readonly Element[]): readonly Element[] {
  const { operator, bool } = node;
  const matching = node.matching ?? PLAIN;
  const isSwapped = matching.group === 'right';
  const [many, one] = isSwapped ? [right, left] : [left, right];
  const ones = new Map<string, Element>();
  for (const element of one) {
    const key = signature(matching, element.labels);
    if (ones.has(key))
      throw new QueryFailure(`several elements fit each other on the ${isSwapped ? 'left' : 'right'} of ${operator}`);
    ones.set(key, element);
  }
  const used = new Set<string>();
  return many.flatMap((element) => {
    const key = signature(matching, element.labels);
    const other = ones.get(key);
    if (other === undefined) return [];
    const [a, b] = isSwapped ? [other.value, element.value] : [element.value, other.value];
    const { value, keeps } = apply(operator, a, b);
    if (keeps === false && !bool) return [];
    if (matching.group === null && used.has(key)) {
      throw new QueryFailure(`several elements on the left of ${operator} fit one on the right, without group_left`);
    }
    used.add(key);
    const labels = resultLabels(matching, element.labels, other.labels);
    return [
      {
        labels: keeps === null || bool ? withoutName(labels) : labels,
        value: keeps === null || bool ? value : a,
      },
    ];
  });
}

function resultLabels(matching: Matching, many: LabelMap, one: LabelMap): LabelMap {
  if (matching.group === null) {
    return pick(many, (label) => matching.labels.includes(label) === matching.on);
  }
  const taken = matching.include.flatMap((label) => {
    const value = one.get(label);
    return value === undefined ? [] : [[label, value] as const];
  });
  const own = [...many].filter(([label]) => !matching.include.includes(label));
  return new Map([...own, ...taken].sort(([a], [b]) => (a < b ? -1 : 1)));
}
