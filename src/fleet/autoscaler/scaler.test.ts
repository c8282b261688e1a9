import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { ScalingRule, ScalingSpec } from '../spec/fleet_spec.ts';
import type { ScaleDecision, ScaleObserved } from './scale_decision.ts';
import { decideScale } from './scaler.ts';

type KedaRule = Extract<ScalingRule, { kind: 'keda' }>;

function service(rule: ScalingRule, minReplicas = 0, maxReplicas = 20): ScalingSpec {
  return { minReplicas, maxReplicas, standby: 0, rule };
}

/** One signal, `threshold` each. */
function keda(threshold: number, object: Partial<KedaRule['object']> = {}, rest: Partial<KedaRule> = {}): KedaRule {
  return {
    kind: 'keda',
    pollingIntervalMs: 30_000,
    object: { maxReplicaCount: 20, ...object, triggers: object.triggers ?? [{ type: 'prometheus', threshold }] },
    behavior: null,
    annotations: {},
    queries: [{ kind: 'signal', signal: 'concurrency' }],
    ...rest,
  };
}

function hpa(target: number, behavior: Extract<ScalingRule, { kind: 'hpa' }>['behavior'] = null): ScalingRule {
  const query = { kind: 'signal', signal: 'concurrency' } as const;
  return { kind: 'hpa', behavior, metrics: [{ query, metricType: 'AverageValue', target }] };
}

function seen(replicas: number, value: number | null, more: Partial<ScaleObserved> = {}): ScaleObserved {
  return { replicas, readyReplicas: replicas, values: [value], signals: {}, startMs: null, wakeMs: null, ...more };
}

/** Replicas that are asked for are there a second later. Each step: [second, value] -> replicas after it. */
function story(
  spec: ScalingSpec,
  from: number,
  steps: readonly (readonly [number, number | null, number])[],
): ScaleDecision {
  let [memory, replicas]: [unknown, number] = [null, from];
  let last: ScaleDecision | null = null;
  let next = 0;
  for (let second = 0; second <= (steps.at(-1)?.[0] ?? 0); second++) {
    const step = steps.findLast(([from]) => from <= second);
    last = decideScale(spec, seen(replicas, step?.[1] ?? null), memory, second * 1000);
    memory = JSON.parse(JSON.stringify(last.memory));
    ({ replicas } = last);
    const expected = steps[next];
    if (expected?.[0] === second) {
      expect(replicas, `at ${second} s: ${last.reason}`).toBe(expected[2]);
      next++;
    }
  }
  return last as ScaleDecision;
}

describe('decideScale', () => {
  it('keeps a fixed count', () => {
    const decision = decideScale(service({ kind: 'fixed' }, 2, 2), seen(0, null), null, 0);
    expect(decision).toMatchObject({ replicas: 2, reason: 'fixed: 2 replicas, as written' });
  });

  it('evaluates the HPA every 15 s: without behavior to twice the count and at least 4', () => {
    const after = story(service(hpa(1), 1), 1, [
      [0, 20, 4],
      [14, 20, 4],
      [15, 20, 8],
      [30, 20, 16],
      [45, 20, 20],
    ]);
    expect(after.reason).toBe('hpa: concurrency 20 of 1 each asks for 20; 16 -> 20');
    expect(after.nextAt).toBe(60_000);
  });

  it('goes down after the window of 300 s has passed, an entry exactly as old still counting', () => {
    story(service(hpa(1, {}), 1), 5, [
      [0, 5, 5],
      [15, 1, 5],
      [285, 1, 5],
      [300, 1, 1],
    ]);
  });

  it('never takes the HPA to zero, and leaves what it cannot measure', () => {
    const spec = service(hpa(1));
    expect(decideScale(spec, seen(0, 0), null, 0)).toMatchObject({ replicas: 1 });
    const unknown = decideScale(spec, seen(3, null), null, 0);
    expect(unknown).toMatchObject({ replicas: 3 });
    expect(unknown.reason).toContain('concurrency has no answer; stays 3 (no metric to decide by)');
    expect(decideScale(spec, seen(3, Number.NaN), null, 0).replicas).toBe(3);
  });

  it('sets unready replicas aside for a resource until more are needed with them', () => {
    const query = { kind: 'resource', resource: 'cpu', target: 50, utilization: true } as const;
    const spec = service({ kind: 'hpa', behavior: {}, metrics: [{ query, metricType: 'Utilization', target: 50 }] }, 1);
    expect(decideScale(spec, seen(2, 100), null, 0).replicas).toBe(4);
    expect(decideScale(spec, { ...seen(4, 100), readyReplicas: 2 }, null, 0).replicas).toBe(4);
    expect(decideScale(spec, { ...seen(4, 100), readyReplicas: 3 }, null, 0).replicas).toBe(6);
    expect(decideScale(spec, seen(4, 52), null, 0).replicas).toBe(4);
  });
});

describe('decideScale with KEDA', () => {
  it('polls at once and every interval for 0 to 1, and leaves the rest to the HPA', () => {
    story(service(keda(5)), 0, [
      [0, 0, 0],
      [29, 30, 0],
      [30, 30, 4],
      [45, 30, 6],
    ]);
  });

  it('goes from any count straight to zero when the cooldown has passed, at a poll', () => {
    const after = story(service(keda(5, { cooldownPeriod: 60 })), 4, [
      [0, 20, 4],
      [1, 0, 4],
      [60, 0, 4],
      [89, 0, 4],
      [90, 0, 0],
    ]);
    expect(after.reason).toBe(
      'keda: ScalerNotActive: s0-prometheus 0 (active above 0), active 90 s ago, cooldown 60 s; 4 -> 0',
    );
  });

  it('wakes at once for a request that is held', () => {
    const spec = service(keda(5));
    const before = decideScale(spec, seen(0, 0), null, 0);
    const held = seen(0, 0, { signals: { waiting_requests: 1 } });
    const woken = decideScale(spec, held, before.memory, 1000);
    expect(woken).toMatchObject({ replicas: 1 });
    expect(woken.reason).toContain('1 requests held at zero');
    const paused = service(keda(5, {}, { annotations: { paused: 'true' } }));
    expect(decideScale(paused, held, null, 1000)).toMatchObject({ replicas: 0 });
  });

  it('moves between idle and the minimum, below the bounds of the service', () => {
    const object = { minReplicaCount: 2, idleReplicaCount: 0, cooldownPeriod: 30 };
    story(service(keda(5, object), 2), 0, [
      [0, 0, 0],
      [30, 3, 2],
      [60, 0, 2],
      [90, 0, 0],
    ]);
  });

  it('answers with the fallback after too many failures', () => {
    story(service(keda(5, { minReplicaCount: 1, fallback: { failureThreshold: 1, replicas: 6 } }), 1), 2, [
      [0, 10, 2],
      [15, null, 2],
      [60, null, 6],
    ]);
  });

  it('lets annotations pause it, in all or in one direction', () => {
    const paused = (annotations: Record<string, string>) => service(keda(5, {}, { annotations }));
    expect(decideScale(paused({ 'paused-replicas': '7' }), seen(3, 50), null, 0)).toMatchObject({ replicas: 7 });
    expect(decideScale(paused({ paused: 'true' }), seen(3, 50), null, 0)).toMatchObject({ replicas: 3 });
    expect(decideScale(paused({ 'paused-scale-out': 'true' }), seen(3, 50), null, 0)).toMatchObject({ replicas: 3 });
    story(paused({ 'paused-scale-in': 'true' }), 6, [[1000, 1, 6]]);
  });

  it('follows a cron trigger, which knows by itself whether it is active', () => {
    const object = { triggers: [{ type: 'cron', threshold: 1 }], cooldownPeriod: 60 };
    const query = { kind: 'cron', timezone: 'UTC', start: '1 0 * * *', end: '5 0 * * *', desired: 3 } as const;
    const spec = service(keda(1, object, { queries: [query] }));
    story(spec, 0, [
      [59, null, 0],
      [90, null, 3],
      [299, null, 3],
      [390, null, 0],
    ]);
  });

  it('asks for one composite metric where there is a formula', () => {
    const triggers = [
      { type: 'prometheus', name: 'a', threshold: 1 },
      { type: 'prometheus', name: 'b', threshold: 1 },
    ];
    const scalingModifiers = { formula: 'a + b', target: '10' };
    const queries = ['in_flight', 'waiting_requests'].map((signal) => ({ kind: 'signal', signal }) as const);
    const rule = keda(1, { triggers, scalingModifiers }, { queries });
    const decision = decideScale(service(rule), { ...seen(1, null), values: [15, 20] }, null, 0);
    expect(decision).toMatchObject({ replicas: 4 });
    expect(decision.reason).toContain('composite-metric 35 of 10 each asks for 4');
  });
});

describe('decideScale with KPA and proactive', () => {
  it('takes the averages of the two windows from the signals, every 2 s', () => {
    const spec = service({ kind: 'kpa', policy: { target: 10, targetUtilizationPercentage: 100 } });
    const signals = { concurrency_stable: 35, concurrency_panic: 31 };
    const first = decideScale(spec, seen(2, null, { signals }), null, 0);
    expect(first.replicas).toBe(4);
    expect(first.reason).toContain('concurrency 35 over 60 s and 31 over 6 s, of 10 each; 2 -> 4');
    expect(first.nextAt).toBe(2000);
    expect(decideScale(spec, seen(4, null), first.memory, 2000)).toMatchObject({ replicas: 4 });
  });

  it('leaves everything as it is between evaluations', () => {
    for (const rule of rules) {
      const spec = service(rule, 1);
      const signals = { concurrency_stable: 30, concurrency_panic: 30, arrivals_per_second_10s: 3 };
      const first = decideScale(spec, seen(2, 30, { signals }), null, 0);
      const soon = decideScale(spec, seen(first.replicas, 500, { signals: {} }), first.memory, 1000);
      expect(soon, rule.kind).toMatchObject({ replicas: first.replicas, memory: first.memory });
    }
  });

  it('begins anew when the rule has changed', () => {
    const before = decideScale(service(hpa(1), 1), seen(2, 9), null, 0);
    const after = decideScale(service(keda(5)), seen(2, 30), before.memory, 1000);
    expect(after.replicas).toBe(4);
  });

  const rules: readonly ScalingRule[] = [
    { kind: 'fixed' },
    hpa(3),
    hpa(3, {}),
    keda(3),
    keda(3, { minReplicaCount: 2 }),
    { kind: 'kpa', policy: { target: 3 } },
    { kind: 'proactive', policy: { ttftMs: 1000, tpotMs: 50, concurrency: null, idleMs: 60_000 } },
  ];

  it('keeps the bounds, a memory of JSON and a reason, whatever is seen', () => {
    const value = fc.option(fc.double({ min: -1, max: 1e6, noNaN: false }), { nil: null });
    const signals = fc.record(
      Object.fromEntries(
        [
          ...['waiting_requests', 'concurrency', 'concurrency_stable', 'concurrency_panic', 'arrivals_per_second'],
          ...['arrivals_per_second_10s', 'ttft_p95_ms', 'tpot_p95_ms', 'idle_ms'],
        ].map((name) => [name, fc.option(fc.double({ min: 0, max: 1e4, noNaN: true }), { nil: null })]),
      ),
    );
    const tick = fc.record({
      value,
      signals,
      ready: fc.integer({ min: 0, max: 9 }),
      stepMs: fc.integer({ min: 0, max: 600_000 }),
    });
    fc.assert(
      fc.property(
        fc.constantFrom(...rules),
        fc.integer({ min: 0, max: 3 }),
        fc.integer({ min: 0, max: 9 }),
        fc.array(tick, { minLength: 1, maxLength: 30 }),
        (rule, least, start, ticks) => {
          const spec = service(rule, least, Math.max(1, least) + 5);
          let [memory, replicas, now]: [unknown, number, number] = [null, start, 1e12];
          for (const { value: given, signals: known, ready, stepMs } of ticks) {
            now += stepMs;
            const observed = { ...seen(replicas, given, { signals: known }), readyReplicas: Math.min(ready, replicas) };
            const decision = decideScale(spec, observed, memory, now);
            expect(decision.replicas).toBeGreaterThanOrEqual(least);
            expect(decision.replicas).toBeLessThanOrEqual(spec.maxReplicas);
            expect(decision.reason).toMatch(new RegExp(`^${rule.kind}: .+`));
            expect(decision.nextAt).toBeGreaterThan(now - 1);
            const text = JSON.stringify(decision.memory);
            expect(text.length).toBeLessThan(20_000);
            expect(JSON.parse(text)).toEqual(decision.memory);
            ({ memory, replicas } = decision);
          }
        },
      ),
      { numRuns: 300, seed: 5 },
    );
  });
});
