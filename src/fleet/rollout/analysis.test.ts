/** The whole judgement on counters as the gateway gives them, once a second. */
import { describe, expect, test } from 'vitest';
import { Rng } from '../../base/rng.ts';
import type { Histogram, RevisionStats } from '../gateway/routing_table.ts';
import type { AnalysisSpec } from '../spec/fleet_spec.ts';
import { type AnalysisMemory, analyse } from './analysis.ts';

const SPEC: AnalysisSpec = {
  errorRateMargin: 0.01,
  ttftRatio: 1.3,
  tpotRatio: 1.3,
  alpha: 0.05,
  maxRequests: 2000,
  promote: true,
  rollback: true,
};

const BOUNDS = [10, 20, 30, 40, 60, 80, 100, 150, 200, 300, 400, 600, 800, 1000, 2000];

interface Behaviour {
  readonly errors: number;
  /** Median of the TTFT and TPOT, ms; log-normal. */
  readonly ttftMs: number;
  readonly tpotMs: number;
}

const HEALTHY: Behaviour = { errors: 0.002, ttftMs: 150, tpotMs: 30 };

/** The gateway's counters of one revision. */
class Counters {
  private requests = 0;
  private errors = 0;
  private readonly ttft = BOUNDS.map(() => 0).concat(0);
  private readonly tpot = BOUNDS.map(() => 0).concat(0);

  add(rng: Rng, behaviour: Behaviour, load: number): void {
    this.requests++;
    if (rng.next() < behaviour.errors) {
      this.errors++;
      return;
    }
    const drawn = (median: number) => median * load * Math.exp(0.5 * rng.normal());
    for (const [counts, median] of [
      [this.ttft, behaviour.ttftMs],
      [this.tpot, behaviour.tpotMs],
    ] as const) {
      const value = drawn(median);
      const at = BOUNDS.findIndex((bound) => value <= bound);
      const index = at < 0 ? BOUNDS.length : at;
      counts[index] = (counts[index] as number) + 1;
    }
  }

  stats(): RevisionStats {
    const histogram = (counts: number[]): Histogram => ({ bounds: BOUNDS, counts: [...counts], sum: 0 });
    const { requests, errors } = this;
    const [ttftMs, tpotMs] = [histogram(this.ttft), histogram(this.tpot)];
    return { requests, errors, promptTokens: 0, outputTokens: 0, ttftMs, tpotMs };
  }
}

interface Run {
  readonly canary: Behaviour;
  readonly spec?: Partial<AnalysisSpec>;
  readonly share?: number;
  /** Latencies of both are times this in second i. */
  readonly load?: (second: number) => number;
  /** The gateway starts anew in this second. */
  readonly restartAt?: number;
}

function judge(
  { canary, spec, share = 0.2, load = () => 1, restartAt }: Run,
  seed: number,
): AnalysisMemory & { n: number } {
  const rng = new Rng(seed);
  let counters = { canary: new Counters(), stable: new Counters() };
  for (let i = 0; i < 500; i++) counters.stable.add(rng, HEALTHY, 1);
  let memory: AnalysisMemory | null = null;
  for (let second = 0; second < 2000; second++) {
    if (second === restartAt) counters = { canary: new Counters(), stable: new Counters() };
    const stats = { canary: counters.canary.stats(), stable: counters.stable.stats() };
    memory = JSON.parse(JSON.stringify(analyse({ ...SPEC, ...spec }, memory, 's-00001', stats))) as AnalysisMemory;
    if (memory.verdict !== 'running') break;
    for (let i = 0; i < 20; i++) {
      if (rng.next() < share) counters.canary.add(rng, canary, load(second));
      else counters.stable.add(rng, HEALTHY, load(second));
    }
  }
  const last = memory as AnalysisMemory;
  return { ...last, n: last.canary.counted.trials };
}

function verdicts(
  run: Run,
  runs: number,
): { readonly bad: number; readonly n: readonly number[]; readonly reason: string } {
  const all = Array.from({ length: runs }, (_, seed) => judge(run, seed));
  const bad = all.filter(({ verdict }) => verdict === 'bad');
  return { bad: bad.length / runs, n: bad.map(({ n }) => n).sort((a, b) => a - b), reason: bad[0]?.reason ?? '' };
}

describe('analyse', () => {
  test.each([
    ['the same', { canary: HEALTHY }],
    ['the same under a load that swings', { canary: HEALTHY, load: (s: number) => 1 + 0.8 * Math.sin(s / 20) }],
    ['slower than stable within the ratio', { canary: { ...HEALTHY, ttftMs: 190, tpotMs: 38 } }],
    ['errors within the margin', { canary: { ...HEALTHY, errors: 0.011 } }],
  ] as [string, Run][])('good: %s', (_name, run) => {
    const { bad } = verdicts({ ...run, spec: { maxRequests: 1000 } }, 40);
    expect(bad).toBeLessThanOrEqual(0.05 + 3 * Math.sqrt((0.05 * 0.95) / 40));
  });

  test.each([
    ['errors from the start', { canary: { ...HEALTHY, errors: 1 } }, 12, 'errors: '],
    ['5% errors against 0.2%, 1% allowed', { canary: { ...HEALTHY, errors: 0.05 } }, 700, 'errors: '],
    ['5% errors against 0.2%', { canary: { ...HEALTHY, errors: 0.05 }, spec: { errorRateMargin: 0 } }, 250, 'errors: '],
    ['TTFT twice as long', { canary: { ...HEALTHY, ttftMs: 300 } }, 200, 'TTFT: '],
    ['TPOT twice as long', { canary: { ...HEALTHY, tpotMs: 60 } }, 200, 'TPOT: '],
  ] as [string, Run, number, string][])('bad: %s', (_name, run, most, reason) => {
    const found = verdicts(run, 40);
    expect(found.bad).toBeGreaterThanOrEqual(0.95);
    expect(found.n[37]).toBeLessThanOrEqual(most);
    expect(found.reason).toContain(reason);
  });

  test('goes on where it was when the gateway starts anew', () => {
    const { verdict, n } = judge({ canary: HEALTHY, restartAt: 50, spec: { maxRequests: 400 } }, 1);
    expect(verdict).toBe('good');
    expect(n).toBeGreaterThanOrEqual(400);
    expect(n).toBeLessThan(420);
  });

  test('begins anew against another stable revision, and keeps a bad verdict', () => {
    const stats = (requests: number, errors: number): RevisionStats => ({
      ...new Counters().stats(),
      requests,
      errors,
    });
    const first = analyse(SPEC, null, 'a', { canary: stats(0, 0), stable: stats(0, 0) });
    const second = analyse(SPEC, first, 'a', { canary: stats(9, 0), stable: stats(50, 0) });
    expect(second.canary.counted.trials).toBe(9);
    const other = analyse(SPEC, second, 'b', { canary: stats(12, 0), stable: stats(5, 0) });
    expect(other.canary.counted.trials).toBe(0);
    const bad = analyse(SPEC, second, 'a', { canary: stats(19, 10), stable: stats(150, 0) });
    expect(bad.verdict).toBe('bad');
    expect(analyse(SPEC, bad, 'a', { canary: stats(1e6, 10), stable: stats(1e6, 1e5) })).toBe(bad);
  });
});
