/**
 * Samples of series in memory, the newest of each in a ring: what queries are evaluated over. Owned by whoever scrapes. Bounded in
 * series and in samples; a series without samples for the kept time gives its place away.
 */
import { TokenmillError } from '../../base/errors.ts';
import type { Matcher } from './query_ast.ts';

export type Labels = Readonly<Record<string, string>>;

export interface SampleStoreLimits {
  readonly maxSeries: number;
  readonly maxSamplesPerSeries: number;
  /** Samples older than that are as good as gone, ms. */
  readonly keepMs: number;
}

const DEFAULT_LIMITS: SampleStoreLimits = { maxSeries: 20_000, maxSamplesPerSeries: 512, keepMs: 3_600_000 };
const FIRST_CAPACITY = 16;

export class Series {
  /** Sorted by name; `__name__` among them. */
  readonly labels: ReadonlyMap<string, string>;
  private times: Float64Array = new Float64Array(FIRST_CAPACITY);
  private values: Float64Array = new Float64Array(FIRST_CAPACITY);
  /** The series ended there: its target no longer has it. */
  private stale: Uint8Array = new Uint8Array(FIRST_CAPACITY);
  private first = 0;
  private count = 0;

  constructor(labels: ReadonlyMap<string, string>) {
    this.labels = labels;
  }

  get lastAt(): number {
    return this.count === 0 ? Number.NEGATIVE_INFINITY : (this.times[this.slot(this.count - 1)] as number);
  }

  add(at: number, value: number, isStale: boolean, most: number): void {
    // Out of order: Prometheus drops it too.
    if (at <= this.lastAt) return;
    if (this.count === this.times.length && this.count < most) this.grow(most);
    if (this.count === this.times.length) {
      this.first = (this.first + 1) % this.count;
      this.count--;
    }
    const slot = this.slot(this.count++);
    this.times[slot] = at;
    this.values[slot] = value;
    this.stale[slot] = isStale ? 1 : 0;
  }

  /** Newest in (from, to]; undefined = none, or the series ended. */
  latest(from: number, to: number): number | undefined {
    for (let at = this.count - 1; at >= 0; at--) {
      const slot = this.slot(at);
      const time = this.times[slot] as number;
      if (time > to) continue;
      return time > from && this.stale[slot] === 0 ? this.values[slot] : undefined;
    }
    return undefined;
  }

  /** All in (from, to], oldest first, without the marks of an end. */
  range(from: number, to: number): { readonly times: number[]; readonly values: number[] } {
    const [times, values]: [number[], number[]] = [[], []];
    for (let at = 0; at < this.count; at++) {
      const slot = this.slot(at);
      const time = this.times[slot] as number;
      if (time <= from || time > to || this.stale[slot] === 1) continue;
      times.push(time);
      values.push(this.values[slot] as number);
    }
    return { times, values };
  }

  private slot(at: number): number {
    return (this.first + at) % this.times.length;
  }

  private grow(most: number): void {
    const size = Math.min(most, this.times.length * 2);
    const order = Array.from({ length: this.count }, (_, at) => this.slot(at));
    const grown = <Kind extends Float64Array | Uint8Array>(to: Kind, from: Kind): Kind => {
      for (const [at, slot] of order.entries()) to[at] = from[slot] as number;
      return to;
    };
    this.times = grown(new Float64Array(size), this.times);
    this.values = grown(new Float64Array(size), this.values);
    this.stale = grown(new Uint8Array(size), this.stale);
    this.first = 0;
  }
}

export class SampleStore {
  private readonly limits: SampleStoreLimits;
  private readonly byKey = new Map<string, Series>();
  private readonly byName = new Map<string, Set<Series>>();

  constructor(limits: Partial<SampleStoreLimits> = {}) {
    this.limits = { ...DEFAULT_LIMITS, ...limits };
  }

  get size(): number {
    return this.byKey.size;
  }

  /** `overloaded` when there are too many series. Labels with the value '' are none. `at` in ms. */
  add(name: string, labels: Labels, at: number, value: number): void {
    this.put(name, labels, at, value, false);
  }

  /** The series is gone from its target; from `at` on it has no value. */
  end(name: string, labels: Labels, at: number): void {
    this.put(name, labels, at, Number.NaN, true);
  }

  select(name: string | null, matchers: readonly Matcher[]): Series[] {
    const candidates = name === null ? this.byKey.values() : (this.byName.get(name) ?? []);
    return [...candidates].filter((series) =>
      matchers.every(({ label, matches }) => matches(series.labels.get(label) ?? '')),
    );
  }

  private put(name: string, labels: Labels, at: number, value: number, isStale: boolean): void {
    const all = Object.entries(labels).filter(([, text]) => text !== '');
    const sorted = [...all, ['__name__', name] as const].sort(([a], [b]) => (a < b ? -1 : 1));
    const key = JSON.stringify(sorted);
    let series = this.byKey.get(key);
    if (series === undefined) {
      if (this.byKey.size >= this.limits.maxSeries) this.drop(at - this.limits.keepMs);
      if (this.byKey.size >= this.limits.maxSeries) {
        throw new TokenmillError('overloaded', `More than ${this.limits.maxSeries} series of samples.`, {
          remedy: 'Scrape fewer replicas or fewer metrics.',
        });
      }
      series = new Series(new Map(sorted));
      this.byKey.set(key, series);
      const named = this.byName.get(name) ?? new Set();
      this.byName.set(name, named.add(series));
    }
    series.add(at, value, isStale, this.limits.maxSamplesPerSeries);
  }

  private drop(before: number): void {
    for (const [key, series] of this.byKey) {
      if (series.lastAt >= before) continue;
      this.byKey.delete(key);
      const name = series.labels.get('__name__') ?? '';
      this.byName.get(name)?.delete(series);
      if (this.byName.get(name)?.size === 0) this.byName.delete(name);
    }
  }
}
