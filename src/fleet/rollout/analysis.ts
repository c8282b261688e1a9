/**
 * Judges a revision by the gateway's counters: its share of errors and its latencies against the stable revision's, from the moment
 * both serve. Pure; the memory is JSON.
 *
 * Latency has no shape that could be assumed, so it is made a Bernoulli rate: were the canary at most `ratio` times as slow, it would
 * exceed a bound T no more often than the stable revision exceeds T / ratio, whatever T is. T is a bucket bound of the histograms, one
 * for the middle and one for the tail, fixed by what the stable revision did before the first request counts.
 */
import type { Histogram, RevisionStats } from '../gateway/routing_table.ts';
import type { AnalysisSpec } from '../spec/fleet_spec.ts';
import {
  type Counts,
  lnEvidence,
  lnMean,
  lnOddsEvidence,
  NO_ODDS,
  nextOdds,
  type OddsMemory,
} from './sequential_test.ts';

type Measure = 'ttftMs' | 'tpotMs';

/** Shares of the stable revision's requests below the bound that is its middle, and its tail. */
const QUANTILES = [0.5, 0.95];

/** Requests of the stable revision that must be seen before the bounds of a latency are fixed. */
const MIN_HISTORY = 100;

const NONE: Counts = { trials: 0, hits: 0 };

/** Counted since the analysis began, and where the gateway's counters stood last. */
interface Side {
  readonly counted: Counts;
  readonly seen: Counts;
}

/** One bound of one latency: what exceeded it, since it was fixed. */
interface Exceedance {
  readonly measure: Measure;
  /** ms; of the stable revision, and of the canary. */
  readonly stableBound: number;
  readonly canaryBound: number;
  readonly stable: Counts;
  readonly canary: Counts;
  readonly seen: { readonly stable: Counts; readonly canary: Counts };
  readonly odds: OddsMemory;
}

export interface AnalysisMemory {
  readonly canary: Side;
  readonly stable: Side;
  /** Id: counts of another one do not go on. */
  readonly stableRevision: string;
  /** Of errors; used where no margin is allowed. */
  readonly odds: OddsMemory;
  /** null = this latency is not judged yet. */
  readonly ttftMs: readonly Exceedance[] | null;
  readonly tpotMs: readonly Exceedance[] | null;
  /** `bad` stays. */
  readonly verdict: 'running' | 'good' | 'bad';
  readonly reason: string;
}

/** One look at the counters. `memory` null, or about another stable revision: the analysis begins now. */
export function analyse(
  spec: AnalysisSpec,
  memory: AnalysisMemory | null,
  stableRevision: string,
  stats: { readonly canary: RevisionStats | null; readonly stable: RevisionStats | null },
): AnalysisMemory {
  if (memory?.verdict === 'bad') return memory;
  const before = memory?.stableRevision === stableRevision ? memory : null;
  const canary = nextSide(before?.canary ?? null, stats.canary);
  const stable = nextSide(before?.stable ?? null, stats.stable);
  const counted = {
    canary,
    stable,
    stableRevision,
    odds: nextOdds(
      before?.odds ?? NO_ODDS,
      difference(before?.canary.counted ?? NONE, canary.counted),
      difference(before?.stable.counted ?? NONE, stable.counted),
    ),
    ttftMs: nextExceedances('ttftMs', spec.ttftRatio, before?.ttftMs ?? null, stats),
    tpotMs: nextExceedances('tpotMs', spec.tpotRatio, before?.tpotMs ?? null, stats),
  };
  return { ...counted, ...judge(spec, counted) };
}

type Counted = Omit<AnalysisMemory, 'verdict' | 'reason'>;

interface Measured {
  readonly ln: number;
  readonly text: string;
}

function judge(spec: AnalysisSpec, counted: Counted): Pick<AnalysisMemory, 'verdict' | 'reason'> {
  const [canary, stable] = [counted.canary.counted, counted.stable.counted];
  const ofRates = lnEvidence(canary, stable, spec.errorRateMargin);
  const errors: Measured = {
    ln: spec.errorRateMargin > 0 ? ofRates : lnMean([ofRates, lnOddsEvidence(counted.odds)]),
    text: describeErrors(canary, stable),
  };
  const latencies = [...(counted.ttftMs ?? []), ...(counted.tpotMs ?? [])].map((e) => ({
    ln: lnOddsEvidence(e.odds),
    text: describeExceedance(e),
  }));
  // Errors are one half of the test, all latencies together the other.
  const evidence = latencies.length === 0 ? errors.ln : lnMean([errors.ln, lnMean(latencies.map(({ ln }) => ln))]);
  if (evidence >= Math.log(1 / spec.alpha)) {
    const worst = latencies.reduce((most, m) => (m.ln > most.ln ? m : most), errors);
    return { verdict: 'bad', reason: worst.text };
  }
  if (canary.trials >= spec.maxRequests)
    return { verdict: 'good', reason: `no worse than the stable revision after ${canary.trials} requests` };
  return { verdict: 'running', reason: `${canary.trials} of ${spec.maxRequests} requests` };
}

const percent = ({ trials, hits }: Counts) => `${trials === 0 ? 0 : ((hits / trials) * 100).toFixed(1)}%`;

function describeErrors(canary: Counts, stable: Counts): string {
  return `errors: ${canary.hits} of ${canary.trials} requests (${percent(canary)}), stable ${percent(stable)} of ${stable.trials}`;
}

function describeExceedance({ measure, canaryBound, canary, stableBound, stable }: Exceedance): string {
  const name = measure === 'ttftMs' ? 'TTFT' : 'TPOT';
  return `${name}: ${percent(canary)} of ${canary.trials} requests above ${canaryBound} ms, stable ${percent(stable)} above ${stableBound} ms`;
}

function nextSide(before: Side | null, stats: RevisionStats | null): Side {
  const seen: Counts = stats === null ? (before?.seen ?? NONE) : { trials: stats.requests, hits: stats.errors };
  if (before === null) return { counted: NONE, seen };
  const { trials, hits } = addGrowth(before.counted, before.seen, seen);
  return { counted: { trials, hits: Math.min(trials, hits) }, seen };
}

function nextExceedances(
  measure: Measure,
  ratio: number | null,
  before: readonly Exceedance[] | null,
  stats: { readonly canary: RevisionStats | null; readonly stable: RevisionStats | null },
): readonly Exceedance[] | null {
  if (ratio === null) return null;
  const [canary, stable] = [stats.canary?.[measure] ?? null, stats.stable?.[measure] ?? null];
  if (stable === null) return before;
  if (before === null) return fixBounds(measure, ratio, stable, canary);
  return before.map((e) => nextExceedance(e, stable, canary));
}

/** null = too little is known of the stable revision, or its values lie beyond the last bound. */
function fixBounds(
  measure: Measure,
  ratio: number,
  stable: Histogram,
  canary: Histogram | null,
): readonly Exceedance[] | null {
  const { trials } = above(stable, -Infinity);
  if (trials < MIN_HISTORY) return null;
  const found: Exceedance[] = [];
  for (const quantile of QUANTILES) {
    const enough = (bound: number) => above(stable, bound).hits <= (1 - quantile) * trials;
    const stableBound = stable.bounds.find((bound) => enough(bound));
    if (stableBound === undefined) continue;
    const canaryBound = stable.bounds.find((bound) => bound >= stableBound * ratio);
    if (canaryBound === undefined || found.some((e) => e.canaryBound === canaryBound && e.stableBound === stableBound))
      continue;
    const seen = { stable: above(stable, stableBound), canary: canary === null ? NONE : above(canary, canaryBound) };
    found.push({ measure, stableBound, canaryBound, stable: NONE, canary: NONE, seen, odds: NO_ODDS });
  }
  return found.length === 0 ? null : found;
}

function nextExceedance(before: Exceedance, stable: Histogram, canary: Histogram | null): Exceedance {
  const seen = {
    stable: above(stable, before.stableBound),
    canary: canary === null ? before.seen.canary : above(canary, before.canaryBound),
  };
  const grown = {
    stable: addGrowth(before.stable, before.seen.stable, seen.stable),
    canary: addGrowth(before.canary, before.seen.canary, seen.canary),
  };
  const [canaryAdded, stableAdded] = [difference(before.canary, grown.canary), difference(before.stable, grown.stable)];
  return { ...before, ...grown, seen, odds: nextOdds(before.odds, canaryAdded, stableAdded) };
}

function difference(from: Counts, to: Counts): Counts {
  return { trials: to.trials - from.trials, hits: to.hits - from.hits };
}

/** `sum` and what the counters grew by; the gateway started anew when they shrank. */
function addGrowth(sum: Counts, last: Counts, now: Counts): Counts {
  const from = now.trials < last.trials || now.hits < last.hits ? NONE : last;
  return { trials: sum.trials + now.trials - from.trials, hits: sum.hits + now.hits - from.hits };
}

/** How many values there are, and how many lie above `bound`, which is one of the bounds or below them all. */
function above({ bounds, counts }: Histogram, bound: number): Counts {
  let [trials, hits] = [0, 0];
  for (const [i, count] of counts.entries()) {
    trials += count;
    if (i >= bounds.length || (bounds[i] as number) > bound) hits += count;
  }
  return { trials, hits };
}
