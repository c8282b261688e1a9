/** Functions of a range of samples, as Prometheus 3 computes them (promql/functions.go). Times in ms; null = no value. */

export interface SampleRange {
  readonly times: readonly number[];
  readonly values: readonly number[];
  /** Borders of the range, ms. */
  readonly from: number;
  readonly to: number;
}

type OfRange = (range: SampleRange) => number | null;

/** What is between the first and last sample, stretched to the borders where the series seems to reach them. */
function extrapolated({ times, values, from, to }: SampleRange, isCounter: boolean, isRate: boolean): number | null {
  const last = values.length - 1;
  if (last < 1) return null;
  const [firstValue, firstTime, lastTime] = [values[0] as number, times[0] as number, times[last] as number];
  let result = (values[last] as number) - firstValue;
  if (isCounter) {
    for (let at = 1; at <= last; at++) {
      const before = values[at - 1] as number;
      if ((values[at] as number) < before) result += before;
    }
  }
  const sampled = (lastTime - firstTime) / 1000;
  const between = sampled / last;
  const threshold = between * 1.1;
  let toStart = (firstTime - from) / 1000;
  let toEnd = (to - lastTime) / 1000;
  if (toStart >= threshold) toStart = between / 2;
  if (toEnd >= threshold) toEnd = between / 2;
  // A counter was not below 0 before.
  if (isCounter && result > 0 && firstValue >= 0) toStart = Math.min(toStart, sampled * (firstValue / result));
  const factor = (sampled + toStart + toEnd) / sampled;
  return result * (isRate ? factor / ((to - from) / 1000) : factor);
}

function instant({ times, values }: SampleRange, isRate: boolean): number | null {
  const last = values.length - 1;
  if (last < 1) return null;
  const [before, after] = [values[last - 1] as number, values[last] as number];
  const seconds = ((times[last] as number) - (times[last - 1] as number)) / 1000;
  if (!isRate) return after - before;
  return (after < before ? after : after - before) / seconds;
}

/** Neumaier's sum, as Prometheus takes it. */
export function compensatedSum(values: readonly number[]): number {
  let sum = 0;
  let lost = 0;
  for (const value of values) {
    const next = sum + value;
    if (!Number.isFinite(next)) lost = 0;
    else lost += Math.abs(sum) >= Math.abs(value) ? sum - next + value : value - next + sum;
    sum = next;
  }
  return sum + lost;
}

export function mean(values: readonly number[]): number {
  const sum = compensatedSum(values);
  if (Number.isFinite(sum) || values.some((value) => !Number.isFinite(value))) return sum / values.length;
  // Too large as a sum, though not as a mean.
  return compensatedSum(values.map((value) => value / values.length));
}

/** A NaN gives way to any number. */
export function extreme(values: readonly number[], better: (a: number, b: number) => boolean): number {
  return values.reduce((best, value) => (better(value, best) || Number.isNaN(best) ? value : best));
}

/** Linear between the two nearest; NaN sorts first. */
export function quantile(share: number, values: readonly number[]): number {
  if (values.length === 0 || Number.isNaN(share)) return Number.NaN;
  if (share < 0) return Number.NEGATIVE_INFINITY;
  if (share > 1) return Number.POSITIVE_INFINITY;
  const order = (value: number) => (Number.isNaN(value) ? 0 : 1);
  const sorted = values.toSorted((a, b) => order(a) - order(b) || (a < b ? -1 : a > b ? 1 : 0));
  const rank = share * (sorted.length - 1);
  const lower = Math.max(0, Math.floor(rank));
  const upper = Math.min(sorted.length - 1, lower + 1);
  const weight = rank - Math.floor(rank);
  return (sorted[lower] as number) * (1 - weight) + (sorted[upper] as number) * weight;
}

const some =
  (of: (values: readonly number[]) => number): OfRange =>
  ({ values }) =>
    values.length === 0 ? null : of(values);

export const RANGE_FUNCTIONS: Readonly<Record<string, OfRange>> = {
  rate: (range) => extrapolated(range, true, true),
  increase: (range) => extrapolated(range, true, false),
  delta: (range) => extrapolated(range, false, false),
  irate: (range) => instant(range, true),
  idelta: (range) => instant(range, false),
  avg_over_time: some(mean),
  sum_over_time: some(compensatedSum),
  count_over_time: some((values) => values.length),
  max_over_time: some((values) => extreme(values, (a, b) => a > b)),
  min_over_time: some((values) => extreme(values, (a, b) => a < b)),
  last_over_time: some((values) => values.at(-1) as number),
};
