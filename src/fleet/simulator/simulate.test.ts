import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { ScalingRule } from '../spec/fleet_spec.ts';
import { dailyArrivals } from './arrival_generators.ts';
import { type Arrivals, ArrivalsBuilder } from './arrivals.ts';
import { EventHeap } from './event_heap.ts';
import { batchTable, NO_FAULTS } from './replica_model.ts';
import { SimReplica } from './sim_replica.ts';
import { type SimulationOptions, simulate } from './simulate.ts';
import { fleetOf, kedaRule, MODEL, proactiveRule } from './testdata/fleet.ts';

const FIXED: ScalingRule = { kind: 'fixed' };
const HOUR_MS = 3_600_000;

function every(gapMs: number, count: number, prompt = 100, output = 50, fromMs = 0): Arrivals {
  const builder = new ArrivalsBuilder();
  for (let at = 0; at < count; at++) builder.add(fromMs + at * gapMs, prompt, output);
  return builder.done();
}

function run(
  rule: ScalingRule,
  arrivals: Arrivals,
  options: Partial<SimulationOptions> = {},
  bounds: Partial<Parameters<typeof fleetOf>[0]> = {},
) {
  const objectives = { ttftMs: 2000, tpotMs: 50 };
  return simulate(fleetOf({ rule, ...bounds }), arrivals, { model: MODEL, objectives, ...options });
}

const failed = (result: ReturnType<typeof run>) => result.invariants.filter(({ holds }) => !holds);

describe('event heap', () => {
  it('gives events by time, and those of one time as they came', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: 50 }), { maxLength: 3000 }), (times) => {
        const heap = new EventHeap();
        for (const [at, time] of times.entries()) heap.push(time, at % 7, at, -at);
        const order = times.map((time, at) => ({ time, at })).sort((a, b) => a.time - b.time || a.at - b.at);
        for (const { time, at } of order) {
          heap.pop();
          expect([heap.time, heap.kind, heap.a, heap.b]).toEqual([time, at % 7, at, 0 - at]);
        }
        expect(heap.isEmpty).toBe(true);
      }),
      { numRuns: 50, seed: 1 },
    );
  });
});

describe('replica', () => {
  const request = fc.record({
    gap: fc.integer({ min: 0, max: 3000 }),
    prompt: fc.integer({ min: 1, max: 2000 }),
    output: fc.integer({ min: 1, max: 60 }),
  });

  /** Millisecond by millisecond, as slow as it is plain: first tokens and ends. */
  function stepwise(given: readonly { at: number; prompt: number; output: number }[], stepMs: number) {
    const table = batchTable(MODEL);
    const waiting: number[] = [];
    const decoding = new Map<number, number>();
    const times = given.map(() => ({ first: -1, end: -1 }));
    let [prefilling, prefillLeft, next] = [-1, 0, 0];
    for (let now = 0; times.some(({ end }) => end < 0); now += stepMs) {
      while (next < given.length && (given[next]?.at as number) <= now) waiting.push(next++);
      if (prefilling < 0 && waiting.length > 0) {
        prefilling = waiting.shift() as number;
        prefillLeft = (given[prefilling]?.prompt as number) * (table.prefillMsPerToken[decoding.size] as number);
      }
      const batch = Math.min(MODEL.slots, decoding.size + (prefilling >= 0 ? 1 : 0));
      for (const [id, left] of decoding) {
        const after = left - stepMs / (table.tpotMs[batch] as number);
        if (after > 0) decoding.set(id, after);
        else {
          decoding.delete(id);
          (times[id] as { end: number }).end = now + stepMs;
        }
      }
      if (prefilling < 0) continue;
      prefillLeft -= stepMs;
      if (prefillLeft > 0) continue;
      const time = times[prefilling] as { first: number; end: number };
      time.first = now + stepMs;
      const more = (given[prefilling]?.output as number) - 1;
      if (more === 0) time.end = now + stepMs;
      else decoding.set(prefilling, more);
      prefilling = -1;
    }
    return times;
  }

  it('does in a few events what small steps of time do', () => {
    fc.assert(
      fc.property(fc.array(request, { minLength: 1, maxLength: 12 }), (requests) => {
        const given = requests.map(({ gap: _, ...rest }, at) => ({
          at: requests.slice(0, at + 1).reduce((sum, { gap }) => sum + gap, 0),
          ...rest,
        }));
        const [prompts, outputs] = [given.map(({ prompt }) => prompt), given.map(({ output }) => output)].map((all) =>
          Uint32Array.from(all),
        ) as [Uint32Array, Uint32Array];
        const replica = new SimReplica(0, batchTable(MODEL), 0, false);
        const times = given.map(() => ({ first: -1, end: -1 }));
        const sink = {
          firstToken: (id: number, now: number) => {
            (times[id] as { first: number }).first = now;
          },
          ended: (id: number, now: number) => {
            (times[id] as { end: number }).end = now;
          },
        };
        const until = (limit: number) => {
          while (replica.nextTime <= limit) replica.run(prompts, outputs, replica.nextTime, sink);
        };
        for (const [id, { at: arrival }] of given.entries()) {
          until(arrival);
          replica.admit(id, prompts, arrival);
        }
        until(Number.MAX_VALUE);
        const slow = stepwise(given, 0.5);
        for (const [id, { first, end }] of times.entries()) {
          expect(Math.abs(first - (slow[id]?.first as number))).toBeLessThan(40);
          expect(Math.abs(end - (slow[id]?.end as number))).toBeLessThan(60);
        }
        expect(replica.inFlight).toBe(0);
      }),
      { numRuns: 60, seed: 3 },
    );
  });

  it.each([
    [{ slots: 0 }, '0 slots'],
    [{ batches: [] }, 'no measured batch'],
    [{ batches: [{ batch: 0, tpotMs: 1, prefillMsPerToken: 1 }] }, 'do not ascend'],
    [{ batches: [{ batch: 1, tpotMs: 0, prefillMsPerToken: 1 }] }, 'takes no time'],
  ])('refuses %j', (given, message) => {
    expect(() => batchTable({ ...MODEL, ...given })).toThrow(message);
  });
});

describe('simulation', () => {
  const warm = { minReplicas: 1, maxReplicas: 1 };

  it('gives a request alone the times of the model', () => {
    // One replica is started at 0 and takes some 90 s.
    const result = run(FIXED, every(10_000, 20, 200, 11, 300_000), {}, warm);
    expect(result.ttftMs?.p99).toBeCloseTo(200 * 0.35, 6);
    expect(result.tpotMs?.p50).toBeCloseTo(22, 6);
    expect(result).toMatchObject({ requests: 20, completed: 20, attained: 1, minutesAttained: 1 });
    expect(failed(result)).toEqual([]);
  });

  it('is the same when it is run again', () => {
    const arrivals = dailyArrivals({ seed: 4, days: 0.2, lowPerSecond: 1 });
    const faults = { ...NO_FAULTS, crashesAtMs: [HOUR_MS], stuckStarts: 0.2 };
    const [a, b] = [1, 2].map(() => run(kedaRule(6), arrivals, { faults, seed: 9 }));
    expect(a).toEqual(b);
    expect(a?.events.length).toBeGreaterThan(5);
  });

  it('holds what comes at zero, wakes at once and loses nothing', () => {
    const result = run(kedaRule(5), every(1000, 10, 100, 20, HOUR_MS + 5000));
    expect(result).toMatchObject({ completed: 10, refused: 0, expired: 0 });
    expect(result.events[0]).toMatchObject({ at: HOUR_MS + 5000, type: 'ScaledUp' });
    expect(result.ttftMs?.p99).toBeGreaterThan(50_000);
    expect(result.ttftMs?.p99).toBeLessThan(200_000);
    expect(result.replicaHours).toBeLessThan(0.1);
  });

  it('scales a service back to zero after the cooldown', () => {
    const result = run(kedaRule(5), every(1000, 600), { endMs: HOUR_MS });
    expect(result.events.at(-1)).toMatchObject({ type: 'ScaledDown' });
    expect(result.timeline.at(-1)).toMatchObject({ wanted: 0, ready: 0 });
    expect(failed(result).map(({ name }) => name)).toEqual([]);
  });

  it('refuses what the queue does not hold, and gives up what waits too long', () => {
    const flood = run(FIXED, every(1, 1000), {}, { ...warm, maxRequests: 100 });
    expect(flood.refused).toBeGreaterThan(500);
    expect(failed(flood).map(({ name }) => name)).toContain('none refused at zero' as never);
    const stuck = { ...NO_FAULTS, stuckStarts: 1 };
    const late = run(FIXED, every(1000, 10), { faults: stuck }, warm);
    expect(late).toMatchObject({ completed: 0, expired: 10 });
  });

  it('breaks the streams of a crash, tries the others again and replaces the replica', () => {
    const faults = { ...NO_FAULTS, crashesAtMs: [600_000] };
    const result = run(FIXED, every(200, 6000, 400, 100), { faults }, { minReplicas: 2, maxReplicas: 2 });
    const crash = result.events.find(({ type }) => type === 'ReplicaCrashed');
    expect(Number(/^(\d+) requests broken/.exec(crash?.text ?? '')?.[1])).toBe(result.broken);
    expect(result.broken).toBeGreaterThan(0);
    expect(result.completed + result.broken).toBe(6000);
    expect(result.starts).toBe(3);
  });

  it('gives up a start that is stuck and starts another', () => {
    const faults = { ...NO_FAULTS, stuckStarts: 0.5, startTimeoutMs: 200_000 };
    const result = run(FIXED, every(1000, 2000), { faults, seed: 6 }, { minReplicas: 4, maxReplicas: 4 });
    expect(result.events.some(({ type }) => type === 'StartTimedOut')).toBe(true);
    expect(result.starts).toBeGreaterThan(4);
    expect(result.timeline.at(-1)?.ready).toBe(4);
  });

  it('changes nothing while nothing can be measured', () => {
    const missing = [{ fromMs: HOUR_MS, toMs: 2 * HOUR_MS }];
    // The load doubles in the dark.
    const builder = new ArrivalsBuilder();
    for (let at = 0; at < 3 * HOUR_MS; at += at < 1.1 * HOUR_MS ? 500 : 250) builder.add(at, 200, 100);
    for (const rule of [kedaRule(6), proactiveRule(8), { kind: 'kpa', policy: { target: 8 } } as const]) {
      const result = run(rule, builder.done(), { faults: { ...NO_FAULTS, missing } });
      const dark = result.events.filter(({ at }) => at > HOUR_MS + 30_000 && at < 2 * HOUR_MS);
      expect(
        dark.filter(({ type }) => type === 'ScaledDown'),
        result.rule,
      ).toEqual([]);
      expect(
        result.events.some(({ at, type }) => at >= 2 * HOUR_MS && type === 'ScaledUp'),
        result.rule,
      ).toBe(true);
    }
  });

  it('wakes replicas that sleep far faster than it starts others', () => {
    const arrivals = every(1000, 30, 100, 20, HOUR_MS);
    const [cold, standby] = [run(kedaRule(5), arrivals), run(kedaRule(5), arrivals, {}, { standby: 1 })];
    expect(standby.ttftMs?.p99).toBeLessThan(6000);
    expect(cold.ttftMs?.p99).toBeGreaterThan(50_000);
    expect(standby.asleepHours).toBeGreaterThan(0.9);
    expect(standby.cost).toBeCloseTo(standby.replicaHours + 0.2 * standby.asleepHours, 9);
  });

  it('evaluates queries over what it scraped from the replicas', () => {
    const query = 'sum(vllm:num_requests_running{model_name="m"}) + sum(vllm:num_requests_waiting)';
    const rule = kedaRule(4, 1, { kind: 'promql', query, ignoreNullValues: true });
    const result = run(rule, every(250, 8000), {}, { minReplicas: 1 });
    expect(result.mostReady).toBeGreaterThan(1);
    expect(result.events[0]?.text).toContain('s0-prometheus');
    expect(result.attained).toBeGreaterThan(0.9);
  });

  it('has more replicas for more load, never fewer', () => {
    for (const rule of [kedaRule(6), proactiveRule(8)]) {
      const hours = [1, 2, 4].map(
        (factor) =>
          run(rule, dailyArrivals({ seed: 2, days: 0.25, lowPerSecond: factor * 0.5, highPerSecond: factor, noise: 0 }))
            .replicaHours,
      );
      expect(hours[1]).toBeGreaterThan(hours[0] as number);
      expect(hours[2]).toBeGreaterThan(hours[1] as number);
    }
  });

  it('lets another control take the place of the rule', () => {
    let rounds = 0;
    const control = () => () => {
      const start = { kind: 'start', service: 'default/m', revision: 'r', count: 2, asleep: false } as const;
      return { wanted: 2, actions: rounds++ === 0 ? [start] : [], events: [] };
    };
    const result = run(FIXED, every(1000, 300), { control }, { minReplicas: 1, maxReplicas: 1 });
    expect(result.timeline.at(-1)).toMatchObject({ wanted: 2, ready: 2 });
    expect(failed(result).map(({ name }) => name)).toContain('bounds kept' as never);
  });

  it('must know which service', () => {
    const fleet = fleetOf({ rule: FIXED });
    expect(() => simulate(fleet, every(1, 1), { model: MODEL, service: 'x' })).toThrow('there are: default/m');
    expect(() => simulate({ ...fleet, services: [] }, every(1, 1), { model: MODEL })).toThrow('there are: none');
  });
});
