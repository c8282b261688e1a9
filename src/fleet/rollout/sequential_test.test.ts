/** The promises of the tests, by simulation with seeds: false alarms at most alpha while everybody peeks, and faults found in time. */
import { describe, expect, test } from 'vitest';
import { Rng } from '../../base/rng.ts';
import { type Counts, lnEvidence, lnGamma, lnMean, lnOddsEvidence, NO_ODDS, nextOdds } from './sequential_test.ts';

const ALPHA = 0.05;
const LIMIT = Math.log(1 / ALPHA);

interface World {
  readonly canaryRate: number;
  readonly stableRate: number;
  readonly margin: number;
  /** Share of requests that go to the canary. */
  readonly share: number;
  /** Both rates are times this at request i. */
  readonly drift?: (i: number) => number;
}

const add = (a: Counts, b: Counts): Counts => ({ trials: a.trials + b.trials, hits: a.hits + b.hits });
const NONE: Counts = { trials: 0, hits: 0 };

/** One draw for both: whose it is, and whether it fails. */
function request(rng: Rng, { share, canaryRate, stableRate }: World, times: number) {
  const u = rng.next();
  const isCanary = u < share;
  const hit = isCanary ? u / share < canaryRate * times : (u - share) / (1 - share) < stableRate * times;
  return { isCanary, drawn: { trials: 1, hits: hit ? 1 : 0 } };
}

/** Requests of the canary when it is rejected, looking after each of them; null = not within `most`. */
function rejectedByRates(world: World, most: number, seed: number): number | null {
  const rng = new Rng(seed);
  let [canary, stable] = [NONE, NONE];
  while (canary.trials < most) {
    const { isCanary, drawn } = request(rng, world, 1);
    if (isCanary) canary = add(canary, drawn);
    else stable = add(stable, drawn);
    // Only a worse observed rate can reject; the arithmetic of the others is left out for time.
    const isWorse = canary.hits * stable.trials > (stable.hits + world.margin * stable.trials) * canary.trials;
    if (isCanary && isWorse && lnEvidence(canary, stable, world.margin) >= LIMIT) return canary.trials;
  }
  return null;
}

/** The same for the second test, looking after each `batch` requests of both. */
function rejectedByOdds(world: World, most: number, seed: number, batch: number): number | null {
  const rng = new Rng(seed);
  let [odds, requests] = [NO_ODDS, 0];
  for (let i = 0; requests < most; ) {
    let [canary, stable] = [NONE, NONE];
    for (let b = 0; b < batch; b++, i++) {
      const { isCanary, drawn } = request(rng, world, world.drift?.(i) ?? 1);
      if (isCanary) canary = add(canary, drawn);
      else stable = add(stable, drawn);
    }
    requests += canary.trials;
    odds = nextOdds(odds, canary, stable);
    if (lnOddsEvidence(odds) >= LIMIT) return requests;
  }
  return null;
}

function quantileOf(values: readonly number[], q: number): number {
  return [...values].sort((a, b) => a - b)[Math.ceil(q * values.length) - 1] as number;
}

const seeds = (count: number) => Array.from({ length: count }, (_, i) => i);

/** Three standard deviations above alpha, of the share of alarms among so many runs. */
const mostAlarms = (runs: number) => ALPHA + 3 * Math.sqrt((ALPHA * (1 - ALPHA)) / runs);

describe('false alarms with a look after each of 2,000 requests of the canary', () => {
  const WORLDS: [string, World][] = [
    ['both 0.5%', { canaryRate: 0.005, stableRate: 0.005, margin: 0, share: 0.5 }],
    ['both 50%', { canaryRate: 0.5, stableRate: 0.5, margin: 0, share: 0.5 }],
    ['both 3%, a fifth of the requests', { canaryRate: 0.03, stableRate: 0.03, margin: 0, share: 0.2 }],
    ['worse by the margin', { canaryRate: 0.03, stableRate: 0.02, margin: 0.01, share: 0.5 }],
  ];
  test.each(WORLDS)('rates: %s', (_name, world) => {
    const alarms = seeds(200).filter((seed) => rejectedByRates(world, 2000, seed) !== null);
    expect(alarms.length / 200).toBeLessThanOrEqual(mostAlarms(200));
  });

  const DRIFTING: [string, World, number][] = [
    ['both 0.5%, each request', { canaryRate: 0.005, stableRate: 0.005, margin: 0, share: 0.5 }, 2],
    ['both 5%, a tenth of the requests', { canaryRate: 0.05, stableRate: 0.05, margin: 0, share: 0.1 }, 10],
    ['both swing between 0 and 60%', { canaryRate: 0.3, stableRate: 0.3, margin: 0, share: 0.3, drift: swing }, 20],
    ['better', { canaryRate: 0.1, stableRate: 0.2, margin: 0, share: 0.5 }, 20],
  ];
  test.each(DRIFTING)('odds: %s', (_name, world, batch) => {
    const alarms = seeds(200).filter((seed) => rejectedByOdds(world, 2000, seed, batch) !== null);
    expect(alarms.length / 200).toBeLessThanOrEqual(mostAlarms(200));
  });

  function swing(i: number): number {
    return 1 + Math.sin(i / 300);
  }

  test('the bound is about the test, not the worlds: rates that differ are found in most runs', () => {
    const world: World = { canaryRate: 0.08, stableRate: 0.02, margin: 0.01, share: 0.5 };
    const alarms = seeds(50).filter((seed) => rejectedByRates(world, 2000, seed) !== null);
    expect(alarms.length / 50).toBeGreaterThan(0.9);
  });
});

describe('requests of the canary until it is rejected, at the median and in 95 of 100 runs', () => {
  const seldom: World = { canaryRate: 0.05, stableRate: 0.005, margin: 0, share: 0.1 };
  const broken: World = { canaryRate: 1, stableRate: 0.005, margin: 0.01, share: 0.1 };
  const RATES: [string, World, number, number][] = [
    ['5% errors against 0.5%, a tenth of the requests', seldom, 200, 400],
    ['5% errors against 0.5%, half of the requests', { ...seldom, share: 0.5 }, 540, 1000],
    ['5% errors against 0.5%, 1% allowed', { ...seldom, margin: 0.01 }, 450, 950],
    ['nothing but errors, a tenth of the requests', broken, 3, 5],
    ['nothing but errors, half of the requests', { ...broken, share: 0.5 }, 6, 10],
  ];
  test.each(RATES)('rates: %s', (_name, world, median, p95) => {
    const found = seeds(100).map((seed) => rejectedByRates(world, 2000, seed) ?? Infinity);
    expect(quantileOf(found, 0.5)).toBeLessThanOrEqual(median);
    expect(quantileOf(found, 0.95)).toBeLessThanOrEqual(p95);
  });

  const ODDS: [string, World, number, number][] = [
    ['5% errors against 0.5%, a tenth of the requests', seldom, 120, 280],
    ['5% errors against 0.5%, half of the requests', { ...seldom, share: 0.5 }, 190, 450],
    ['nothing but errors, a tenth of the requests', broken, 3, 5],
    ['nothing but errors, half of the requests', { ...broken, share: 0.5 }, 6, 10],
  ];
  test.each(ODDS)('odds: %s', (_name, world, median, p95) => {
    const found = seeds(100).map((seed) => rejectedByOdds(world, 2000, seed, 10) ?? Infinity);
    expect(quantileOf(found, 0.5)).toBeLessThanOrEqual(median);
    expect(quantileOf(found, 0.95)).toBeLessThanOrEqual(p95);
  });
});

describe('the arithmetic', () => {
  test('lnGamma of known values', () => {
    for (const [x, value] of [
      [1, 0],
      [0.5, Math.log(Math.PI) / 2],
      [5, Math.log(24)],
      [11, Math.log(3628800)],
    ] as const)
      expect(lnGamma(x)).toBeCloseTo(value, 12);
    // Recurrence, far out.
    expect(lnGamma(1e6 + 1) - lnGamma(1e6)).toBeCloseTo(Math.log(1e6), 7);
  });

  test('one look of the odds test, by hand', () => {
    // One hit among one request of the canary and one of the stable revision: a fair coin, so ratio / mean(1, ratio).
    const odds = nextOdds(NO_ODDS, { trials: 1, hits: 1 }, { trials: 1, hits: 0 });
    expect(odds.map(Math.exp)).toEqual([1.5, 2, 4, 8, 20, 100].map((r) => expect.closeTo((2 * r) / (1 + r), 10)));
  });

  test('the mean over all outcomes of a look is 1', () => {
    const [canary, stable, hits] = [7, 12, 5];
    const choose = (n: number, k: number) => Math.exp(lnGamma(n + 1) - lnGamma(k + 1) - lnGamma(n - k + 1));
    let mean = 0;
    for (let k = 0; k <= hits; k++) {
      const odds = nextOdds(NO_ODDS, { trials: canary, hits: k }, { trials: stable, hits: hits - k });
      mean +=
        ((choose(canary, k) * choose(stable, hits - k)) / choose(canary + stable, hits)) *
        Math.exp(lnOddsEvidence(odds));
    }
    expect(mean).toBeCloseTo(1, 8);
  });

  test('looks that say nothing change nothing', () => {
    for (const [canary, stable] of [
      [NONE, NONE],
      [{ trials: 3, hits: 3 }, NONE],
      [
        { trials: 3, hits: 0 },
        { trials: 5, hits: 0 },
      ],
      [
        { trials: 1, hits: 2 },
        { trials: 5, hits: 0 },
      ],
    ] as const)
      expect(nextOdds(NO_ODDS, canary, stable)).toBe(NO_ODDS);
  });

  test('a canary that is no worse has no evidence against it', () => {
    expect(lnEvidence({ trials: 100, hits: 1 }, { trials: 100, hits: 1 }, 0)).toBeLessThan(0);
    expect(lnEvidence(NONE, NONE, 0)).toBeLessThanOrEqual(0);
    expect(lnEvidence({ trials: 1e9, hits: 1e7 }, { trials: 1e9, hits: 1e7 }, 0.01)).toBeLessThan(0);
  });

  test('stays finite at the edges and grows with the hits', () => {
    let last = -Infinity;
    for (let hits = 0; hits <= 1000; hits += 50) {
      const ln = lnEvidence({ trials: 1000, hits }, { trials: 1000, hits: 0 }, 0);
      expect(Number.isFinite(ln)).toBe(true);
      if (hits > 0) expect(ln).toBeGreaterThan(last);
      last = ln;
    }
    expect(Number.isFinite(lnEvidence({ trials: 1e9, hits: 1e9 }, { trials: 1e9, hits: 0 }, 0.5))).toBe(true);
  });

  test('a mean of evidences', () => {
    expect(lnMean([Math.log(2), Math.log(4)])).toBeCloseTo(Math.log(3), 12);
    expect(lnMean([-1e6, 5])).toBeCloseTo(5 - Math.LN2, 12);
    expect(lnMean([])).toBe(0);
  });
});
