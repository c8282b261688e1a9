/**
 * Requests a replica carries at a time while the objectives hold, learned from what was measured at each load: latencies by load
 * in buckets that grow by a tenth. Beyond the highest load seen it dares a little more each time. JSON and bounded: `MAX_BUCKETS`.
 */

export interface CapacityMemory {
  /** By bucket: smoothed 95th percentiles, ms; null = not measured there. */
  readonly buckets: readonly (LoadBucket | null)[];
}

interface LoadBucket {
  readonly load: number;
  /** Measurements, as far as they count. */
  readonly count: number;
  readonly ttftMs: number | null;
  readonly tpotMs: number | null;
}

export interface Objectives {
  readonly ttftMs: number | null;
  readonly tpotMs: number | null;
}

export interface Capacity {
  /** Requests at a time, per replica. */
  readonly requests: number;
  /** How it is known. */
  readonly why: string;
}

const MAX_BUCKETS = 96;
const GROWTH = Math.log(1.1);
/** Of a new measurement in its bucket. */
const SHARE = 0.1;
const MAX_COUNT = 100;
const MAX_SLOWDOWN = 3;
/** Fewer measurements than that may be an accident. */
const ENOUGH = 3;
/** Of an objective that is used. */
const MARGIN = 0.92;
/** How far beyond what was seen it goes. */
const DARE = 1.2;
/** Before anything was measured. */
const FIRST_GUESS = 4;

export const NO_CAPACITY: CapacityMemory = { buckets: [] };

/** After `load` requests at a time per replica gave these latencies, ms; null = not measured. */
export function measured(
  memory: CapacityMemory,
  load: number,
  ttftMs: number | null,
  tpotMs: number | null,
): CapacityMemory {
  if (!(load >= 0.5) || (ttftMs === null && tpotMs === null)) return memory;
  const at = Math.min(MAX_BUCKETS - 1, Math.floor(Math.log(load * 2) / GROWTH));
  const before = memory.buckets[at] ?? null;
  const mixed = (known: number | null, seen: number | null) =>
    known === null || seen === null ? (seen ?? known) : known + (seen - known) * SHARE;
  const bucket = {
    load: mixed(before?.load ?? null, load) as number,
    count: Math.min(MAX_COUNT, (before?.count ?? 0) + 1),
    ttftMs: mixed(before?.ttftMs ?? null, ttftMs),
    tpotMs: mixed(before?.tpotMs ?? null, tpotMs),
  };
  const filled = Array.from({ length: Math.max(memory.buckets.length, at + 1) }, (_, i) => memory.buckets[i] ?? null);
  return { buckets: filled.with(at, bucket) };
}

/** `given` by the owner rules over what was learned. */
export function capacityOf(memory: CapacityMemory, objectives: Objectives, given: number | null): Capacity {
  if (given !== null) return { requests: given, why: 'as given' };
  const seen = memory.buckets.filter((bucket) => bucket !== null && bucket.count >= ENOUGH) as readonly LoadBucket[];
  if (seen.length === 0) return { requests: FIRST_GUESS, why: 'a first guess' };
  let before: LoadBucket | null = null;
  for (const [at, bucket] of seen.entries()) {
    const over = overshoot(bucket, objectives);
    if (over <= 1 || isAccident(seen, at, objectives)) {
      before = bucket;
      continue;
    }
    if (before === null) return { requests: Math.max(1, bucket.load / over), why: 'less than was ever tried' };
    const under = overshoot(before, objectives);
    const share = under >= 1 ? 0 : (1 - under) / (over - under);
    return { requests: Math.max(1, before.load + (bucket.load - before.load) * share), why: 'learned' };
  }
  const most = seen.at(-1) as LoadBucket;
  return { requests: Math.max(FIRST_GUESS, most.load * DARE), why: 'a little more than was seen' };
}

/**
 * How much longer each token takes at the load `to` per replica than at `from`, 1 to `MAX_SLOWDOWN`. A straight line through all
 * that was measured, so that loads seen once or long ago mislead little.
 */
export function slowdown({ buckets }: CapacityMemory, from: number, to: number): number {
  const known = buckets.filter((bucket) => bucket !== null && bucket.tpotMs !== null) as readonly LoadBucket[];
  const weights = known.reduce((sum, { count }) => sum + count, 0);
  if (weights === 0) return 1;
  const mean = (of: (bucket: LoadBucket) => number) =>
    known.reduce((sum, bucket) => sum + of(bucket) * bucket.count, 0) / weights;
  const [x, y] = [mean(({ load }) => load), mean(({ tpotMs }) => tpotMs as number)];
  const variance = mean(({ load }) => (load - x) ** 2);
  const slope = variance > 0 ? mean(({ load, tpotMs }) => (load - x) * ((tpotMs as number) - y)) / variance : 0;
  const at = (load: number) => Math.max(y / 4, y + slope * (load - x));
  return Math.max(1, Math.min(MAX_SLOWDOWN, at(to) / at(from)));
}

/** Worst of the objectives, as a multiple of what may be used of it. */
function overshoot({ ttftMs, tpotMs }: LoadBucket, objectives: Objectives): number {
  const of = (seen: number | null, most: number | null) =>
    seen === null || most === null ? 0 : seen / (most * MARGIN);
  return Math.max(of(ttftMs, objectives.ttftMs), of(tpotMs, objectives.tpotMs));
}

/** More load met the objectives: what went wrong here was not the load. */
function isAccident(seen: readonly LoadBucket[], at: number, objectives: Objectives): boolean {
  const above = seen.slice(at + 1, at + 4);
  return above.length >= 2 && above.every((bucket) => overshoot(bucket, objectives) <= 1);
}
