/** Elements of a vector and their labels. */

export type LabelMap = ReadonlyMap<string, string>;

export interface Element {
  /** Sorted by name. */
  readonly labels: LabelMap;
  readonly value: number;
}

/** The query is right and cannot be answered from these samples: KEDA takes that for an error of the trigger. */
export class QueryFailure extends Error {
  override readonly name = 'QueryFailure';
}

const NAME = '__name__';

export function withoutName(labels: LabelMap): LabelMap {
  return labels.has(NAME) ? pick(labels, (label) => label !== NAME) : labels;
}

export function pick(labels: LabelMap, keep: (label: string) => boolean): LabelMap {
  return new Map([...labels].filter(([label]) => keep(label)));
}

export function keyOf(labels: LabelMap): string {
  return JSON.stringify([...labels]);
}

/** The labels by which elements are put together or find each other. */
export function groupLabels(labels: LabelMap, given: readonly string[], listed: boolean): LabelMap {
  return listed
    ? pick(labels, (label) => given.includes(label))
    : pick(labels, (label) => label !== NAME && !given.includes(label));
}

/** Two elements with the same labels are an error in Prometheus. */
export function distinct(elements: readonly Element[]): readonly Element[] {
  const keys = new Set(elements.map(({ labels }) => keyOf(labels)));
  if (keys.size < elements.length) throw new QueryFailure('two elements with the same labels');
  return elements;
}
