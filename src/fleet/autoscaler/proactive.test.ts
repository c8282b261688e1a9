import { describe, expect, it } from 'vitest';
import type { ProactiveSpec, ScalingSpec } from '../spec/fleet_spec.ts';
import { capacityOf, measured, NO_CAPACITY, slowdown } from './capacity.ts';
import { type ForecastMemory, forecast, initialForecast, learned, remembered } from './forecast.ts';
import { decideProactive, type ProactiveMemory } from './proactive.ts';
import type { ScaleObserved } from './scale_decision.ts';

const DAY_MS = 86_400_000;
const HOUR_MS = 3_600_000;

/** Ten-second readings of `rateAt` (ms -> per second) from one time to another. */
function taught(rateAt: (at: number) => number, from: number, to: number, before: ForecastMemory | null = null) {
  let memory = before ?? initialForecast(rateAt(from), from);
  for (let at = from + 10_000; at <= to; at += 10_000) {
    memory = learned(memory, rateAt(at), at);
    memory = remembered(memory, forecast(memory, 120_000, at), 120_000, at);
  }
  return memory;
}

describe('forecast', () => {
  it('follows a level and a trend', () => {
    const ramp = taught((at) => at / 60_000, 0, 1_200_000);
    const { rate, daily } = forecast(ramp, 60_000, 1_200_000);
    expect(daily).toBeNull();
    expect(rate).toBeGreaterThan(20);
    expect(rate).toBeLessThan(21.5);
  });

  it('is moved little by one odd reading, and follows when it lasts', () => {
    const steady = taught(() => 2, 0, 600_000);
    const spike = learned(steady, 50, 610_000);
    expect(forecast(spike, 60_000, 610_000).rate).toBeLessThan(3);
    const step = taught(() => 50, 610_000, 800_000, spike);
    expect(forecast(step, 0, 800_000).rate).toBeGreaterThan(40);
  });

  it('expects what came at that time on the days before, before the last minutes show it', () => {
    // Nothing but for an hour each day, from 8 on.
    const rateAt = (at: number) => (Math.floor((at % DAY_MS) / HOUR_MS) === 8 ? 10 : 1);
    const memory = taught(rateAt, 0, 3 * DAY_MS + 8 * HOUR_MS - 60_000);
    const ahead = forecast(memory, 600_000, 3 * DAY_MS + 8 * HOUR_MS - 60_000);
    expect(ahead.recent).toBeLessThan(1.2);
    expect(ahead.daily).toBeGreaterThan(5);
    expect(ahead.usual).toBeGreaterThan(5);
    expect(ahead.rate).toBeGreaterThan(ahead.recent);
    expect(memory.pending.length).toBeLessThanOrEqual(64);
    expect(JSON.stringify(memory).length).toBeLessThan(10_000);
  });

  it('scales the days before to today', () => {
    const rateAt = (at: number) => (at < DAY_MS ? 4 : 8);
    const memory = taught(rateAt, 0, DAY_MS + 4 * HOUR_MS);
    expect(forecast(memory, 600_000, DAY_MS + 4 * HOUR_MS).usual).toBeGreaterThan(7);
  });
});

describe('capacity', () => {
  const objectives = { ttftMs: 1000, tpotMs: 50 };
  /** Time per token grows by 2 ms a request: the objective is reached at 15, what may be used of it at 13. */
  const teach = (loads: readonly number[], tpot = (load: number) => 20 + 2 * load) =>
    loads.reduce((memory, load) => measured(memory, load, 100, tpot(load)), NO_CAPACITY);

  it('is what was given, or a guess, or a little more than was seen', () => {
    expect(capacityOf(NO_CAPACITY, objectives, 7)).toEqual({ requests: 7, why: 'as given' });
    expect(capacityOf(NO_CAPACITY, objectives, null)).toMatchObject({ why: 'a first guess' });
    const most = capacityOf(teach([1, 3, 6, 1, 3, 6, 6]), objectives, null);
    expect(most.why).toBe('a little more than was seen');
    expect(most.requests).toBeCloseTo(7.2, 5);
  });

  it('lies where the objective would be missed', () => {
    const loads = Array.from({ length: 400 }, (_, at) => 1 + (at % 20));
    const { requests, why } = capacityOf(teach(loads), objectives, null);
    expect(why).toBe('learned');
    expect(requests).toBeCloseTo(13, 5);
  });

  it('does not take a slow minute for the limit when more load was fine', () => {
    const memory = teach(
      [2, 3, 4, 5, 6, 7, 8].flatMap((load) => [load, load, load]),
      (load) => (load === 4 ? 80 : 20 + 2 * load),
    );
    expect(capacityOf(memory, objectives, null).requests).toBeGreaterThan(8);
  });

  it('is less than was tried when even that was too much', () => {
    const { requests, why } = capacityOf(
      teach([8, 8, 8], () => 85),
      objectives,
      null,
    );
    expect(why).toBe('less than was ever tried');
    expect(requests).toBeCloseTo((8 * 0.92 * 50) / 85, 5);
  });

  it('knows how much slower a token is with more requests', () => {
    const memory = teach([2, 5, 9]);
    expect(slowdown(memory, 2, 9)).toBeCloseTo(38 / 24, 5);
    expect(slowdown(memory, 9, 2)).toBe(1);
    expect(slowdown(memory, 2, 1000)).toBe(3);
    expect(slowdown(NO_CAPACITY, 2, 9)).toBe(1);
    // One odd minute among many.
    const odd = teach([...Array.from({ length: 400 }, (_, at) => 2 + (at % 4)), 12], (load) =>
      load === 12 ? 200 : 20 + 2 * load,
    );
    expect(slowdown(odd, 2, 5)).toBeLessThan(1.7);
  });

  it('stays bounded', () => {
    const memory = teach(Array.from({ length: 1000 }, (_, at) => 1.1 ** at));
    expect(memory.buckets.length).toBeLessThanOrEqual(96);
  });
});

describe('proactive', () => {
  const policy: ProactiveSpec = { ttftMs: 1000, tpotMs: 50, concurrency: 10, idleMs: 60_000 };
  const spec: ScalingSpec = { minReplicas: 0, maxReplicas: 50, standby: 0, rule: { kind: 'proactive', policy } };

  /** 10 s apart: arrivals per second, each staying 5 s, none waiting. */
  function run(rateAt: (second: number) => number, seconds: number, startMs = 90_000) {
    let [memory, replicas]: [ProactiveMemory | null, number] = [null, 1];
    const counts: number[] = [];
    let reason = '';
    for (let second = 0; second <= seconds; second += 10) {
      const rate = rateAt(second);
      const load = rate * 5;
      const observed: ScaleObserved = {
        replicas,
        readyReplicas: replicas,
        values: [],
        signals: {
          arrivals_per_second_10s: rate,
          arrivals_per_second: rate,
          concurrency_stable: load,
          concurrency_panic: load,
          waiting_requests: 0,
          ttft_p95_ms: 100,
          tpot_p95_ms: 20,
          idle_ms: rate > 0 ? 0 : 100_000,
        },
        startMs,
        wakeMs: null,
      };
      const step = decideProactive(spec, policy, observed, memory, second * 1000);
      ({ memory, replicas, reason } = step);
      counts.push(replicas);
    }
    return { counts, reason, memory };
  }

  it('is there before the demand is, the earlier the longer a start takes', () => {
    const ramp = (second: number) => Math.max(2, (second - 600) / 60);
    const [slow, fast] = [run(ramp, 1800, 300_000), run(ramp, 1800, 10_000)];
    const needed = Math.ceil((ramp(1800) * 5) / 10);
    expect(slow.counts.at(-1)).toBeGreaterThan(fast.counts.at(-1) as number);
    expect(fast.counts.at(-1)).toBeGreaterThanOrEqual(needed);
    expect(slow.reason).toMatch(
      /arrivals\/s in 310 s .* requests at a time, with room .* 10 each \(as given\) asks for/,
    );
  });

  it('never has less than the load at hand needs', () => {
    const jumps = (second: number) => (second % 700 < 100 ? 30 : 2);
    const { counts } = run(jumps, 3000);
    for (const [at, count] of counts.entries())
      expect(count).toBeGreaterThanOrEqual(Math.floor((jumps(at * 10) * 5) / 11));
  });

  it('has room for chance: many small demands need more than their mean', () => {
    expect(run(() => 8, 900).counts.at(-1)).toBe(5);
  });

  it('goes to zero when idle, and stays awake where the days before say that demand is near', () => {
    const quiet = run((second) => (second < 600 ? 2 : 0), 3000);
    expect(quiet.counts.at(-1)).toBe(0);
    expect(quiet.reason).toContain('idle for 100 s');
    const daily = (second: number) => (second % 86_400 > 8 * 3600 ? 2 : 0);
    const woken = run(daily, 3 * 86_400 + 8 * 3600 - 30);
    expect(woken.counts.at(-200)).toBe(0);
    expect(woken.counts.at(-1)).toBeGreaterThanOrEqual(1);
  });

  it('keeps what there is while nothing is measured', () => {
    const observed = { replicas: 4, readyReplicas: 4, values: [], signals: {}, startMs: null, wakeMs: null };
    const step = decideProactive(spec, policy, observed, null, 0);
    expect(step).toMatchObject({ replicas: 4 });
    expect(step.reason).toContain('nothing measured');
  });
});
