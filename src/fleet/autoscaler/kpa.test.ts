import { describe, expect, it } from 'vitest';
import { decideKpa, initialKpaMemory, type KpaDecision, type KpaMemory, type KpaObserved } from './kpa.ts';
import { type KpaSpec, kpaPolicy } from './kpa_policy.ts';

/** Target 10 per replica, and all traffic straight to them. */
const SPEC: Partial<KpaSpec> = { target: 10, targetUtilizationPercentage: 100, targetBurstCapacity: 0 };

const ACTIVE: KpaMemory = { ...initialKpaMemory(1, 0), phase: 'active', initialized: true };

function observed(ready: number, stable: number | null, panic = stable ?? 0): KpaObserved {
  const average = stable === null ? null : { stable, panic };
  return { replicas: ready, readyReplicas: ready, average, activatorMs: null, reachable: true };
}

function decide(spec: Partial<KpaSpec>, seen: KpaObserved, memory = ACTIVE, now = 100_000): KpaDecision {
  return decideKpa(kpaPolicy({ ...SPEC, ...spec }), seen, memory, now);
}

/** Each step is [seconds, ready, stable, panic] and what it must give; replicas become ready at once. */
function story(spec: Partial<KpaSpec>, steps: readonly (readonly [number, number, number, number])[]): void {
  let [memory, ready] = [ACTIVE, 1];
  for (const [seconds, stable, panic, replicas] of steps) {
    const decision = decide(spec, observed(ready, stable, panic), memory, seconds * 1000);
    expect(decision.replicas, `at ${seconds} s`).toBe(replicas);
    ({ memory } = decision);
    ready = decision.replicas;
  }
}

describe('KPA policy', () => {
  it.each<[Partial<KpaSpec>, number, number]>([
    [{}, 70, 100],
    [{ containerConcurrency: 10 }, 7, 10],
    [{ target: 50 }, 35, 50],
    [{ target: 50, containerConcurrency: 10 }, 7, 10],
    [{ target: 5, containerConcurrency: 10, targetUtilizationPercentage: 100 }, 5, 5],
    [{ metric: 'rps' }, 140, 200],
    [{ metric: 'rps', containerConcurrency: 3, target: 20 }, 14, 20],
  ])('%j aims at %d of %d', (spec, targetValue, totalValue) => {
    const policy = kpaPolicy(spec);
    expect(policy.targetValue).toBeCloseTo(targetValue, 12);
    expect(policy.totalValue).toBe(totalValue);
  });

  it.each<[Partial<KpaSpec>, string]>([
    [{ minScale: 3, maxScale: 2 }, 'minScale'],
    [{ minScale: -1 }, 'minScale'],
    [{ target: 0 }, 'target'],
    [{ windowS: 5 }, 'windowS'],
    [{ windowS: Number.NaN }, 'windowS'],
    [{ maxScaleDownRate: 1 }, 'maxScaleDownRate'],
    [{ targetBurstCapacity: -2 }, 'targetBurstCapacity'],
  ])('refuses %j', (spec, field) => {
    expect(() => kpaPolicy(spec)).toThrow(field);
  });
});

describe('KPA', () => {
  it.each<[number, number, Partial<KpaSpec>, number]>([
    // ready, stable average, spec, replicas
    [1, 10, {}, 1],
    [1, 10.1, {}, 2],
    [4, 35, {}, 4],
    [4, 30, {}, 3],
    // No faster down than to half, no faster up than the rate, but by one at least.
    [9, 1, {}, 4],
    [2, 100, { maxScaleUpRate: 1.1, panicThresholdPercentage: 1000 }, 3],
    [0, 35, {}, 4],
    [4, 35, { maxScale: 3 }, 3],
    [4, 11, { minScale: 3 }, 3],
    [4, 11, { activationScale: 3 }, 3],
  ])('of %d ready and an average of %d with %j there should be %d', (ready, stable, spec, replicas) => {
    expect(decide(spec, observed(ready, stable)).replicas).toBe(replicas);
  });

  it('goes down at once where nothing leads', () => {
    expect(decide({ minScale: 5 }, { ...observed(9, 1), reachable: false }).replicas).toBe(1);
  });

  it('panics from twice what is ready, and then only grows until a window after it was last so', () => {
    story({}, [
      [100, 10, 10, 1],
      [102, 10, 11, 2],
      [104, 12, 40, 4],
      [106, 14, 20, 4],
      [164, 10, 10, 4],
      [166, 10, 10, 2],
    ]);
  });

  it('starts in a panic when there is more than one replica, as it does not know why', () => {
    const memory = { ...initialKpaMemory(6, 0), phase: 'active', initialized: true } as const;
    const early = decide({}, observed(6, 10), memory, 60_000);
    expect(early).toMatchObject({ replicas: 6, reason: 'panic' });
    expect(decide({}, observed(6, 10), early.memory, 60_001)).toMatchObject({ replicas: 3, reason: 'stable' });
  });

  it('delays going down by the longest of the delay', () => {
    story({ scaleDownDelayS: 10, panicThresholdPercentage: 1000 }, [
      [100, 50, 50, 5],
      [102, 40, 40, 5],
      [104, 30, 30, 5],
      [110, 30, 30, 4],
      [112, 30, 30, 3],
    ]);
  });

  it.each<[number, number, number, boolean]>([
    // targetBurstCapacity, ready, excess, through the activator
    [0, 4, 0, false],
    [-1, 4, -1, true],
    [20, 4, 1, false],
    [21, 4, 0, false],
    [22, 4, -1, true],
    [200, 30, 81, false],
  ])('with a burst of %d and %d ready there is room for %d', (targetBurstCapacity, ready, excess, viaActivator) => {
    const decision = decide({ targetBurstCapacity }, observed(ready, 18.5));
    expect(decision).toMatchObject({ excessBurstCapacity: excess, viaActivator });
  });

  it('keeps what there is when nothing was measured', () => {
    expect(decide({}, observed(3, null))).toMatchObject({ replicas: 3, write: false, reason: 'no data' });
  });

  it('reaches the initial scale first, whatever is measured', () => {
    const spec = { initialScale: 3 };
    const first = decide(spec, observed(0, null), initialKpaMemory(0, 0), 0);
    expect(first).toMatchObject({ replicas: 3, write: true });
    const half = decide(spec, observed(2, 1), first.memory, 2000);
    expect(half).toMatchObject({ replicas: 3, memory: { phase: 'activating' } });
    const ready = decide(spec, observed(3, 1), half.memory, 4000);
    expect(ready).toMatchObject({ replicas: 3, memory: { phase: 'active', initialized: true } });
    expect(decide(spec, observed(3, 1), ready.memory, 6000).replicas).toBe(1);
  });
});

describe('KPA at zero', () => {
  const idle = (activatorMs: number | null): KpaObserved => ({ ...observed(1, 0), activatorMs });

  it('goes there after a window of being active, and a grace with the activator in the path', () => {
    const soon = decide({}, idle(null), ACTIVE, 59_999);
    expect(soon).toMatchObject({ replicas: 1, memory: { phase: 'active' } });
    const inactive = decide({}, idle(null), soon.memory, 60_000);
    expect(inactive).toMatchObject({ replicas: 1, viaActivator: true, memory: { phase: 'inactive', phaseAt: 60_000 } });
    // Requests that come now would be lost: nothing holds them.
    expect(decide({}, idle(null), inactive.memory, 90_000)).toMatchObject({ replicas: 1, reason: 'deactivating' });
    expect(decide({}, idle(29_000), inactive.memory, 89_999).replicas).toBe(1);
    expect(decide({}, idle(29_000), inactive.memory, 90_000)).toMatchObject({ replicas: 0, write: true });
    // It was in the path long before.
    expect(decide({}, idle(30_000), inactive.memory, 62_000)).toMatchObject({ replicas: 0, reason: 'idle' });
  });

  it('keeps the last one for the retention period, unless nothing leads to it', () => {
    const inactive: KpaMemory = { ...ACTIVE, phase: 'inactive', phaseAt: 60_000 };
    const spec = { scaleToZeroPodRetentionPeriodS: 120 };
    expect(decide(spec, idle(100_000), inactive, 179_999).replicas).toBe(1);
    expect(decide(spec, idle(100_000), inactive, 180_000).replicas).toBe(0);
    expect(decide(spec, { ...idle(100_000), reachable: false }, inactive, 61_000).replicas).toBe(0);
  });

  it('stays at one where zero is switched off, and at the minimum where there is one', () => {
    expect(decide({ scaleToZero: false }, idle(100_000), ACTIVE, 500_000).replicas).toBe(1);
    expect(decide({ minScale: 2 }, idle(100_000), ACTIVE, 500_000).replicas).toBe(2);
  });

  it('wakes by the first request, which waits', () => {
    const asleep: KpaMemory = { ...ACTIVE, phase: 'inactive', phaseAt: 0 };
    const still = decide({}, { ...observed(0, 0), activatorMs: 90_000 }, asleep, 90_000);
    expect(still).toMatchObject({ replicas: 0, write: false, viaActivator: true });
    const waking = decide({}, { ...observed(0, 0.1, 1), activatorMs: 92_000 }, still.memory, 92_000);
    expect(waking).toMatchObject({ replicas: 1, write: true, memory: { phase: 'activating', phaseAt: 92_000 } });
    const awake = decide({}, observed(1, 1), waking.memory, 94_000);
    expect(awake).toMatchObject({ replicas: 1, memory: { phase: 'active', phaseAt: 94_000 } });
  });

  it('gives up on a start that takes longer than the progress deadline and half a minute', () => {
    const starting: KpaMemory = { ...ACTIVE, phase: 'activating', phaseAt: 0, initialized: false };
    const seen = { ...observed(0, 0), replicas: 1 };
    expect(decide({}, seen, starting, 630_000)).toMatchObject({ replicas: 1, reason: 'activating' });
    expect(decide({}, seen, starting, 630_001)).toMatchObject({ replicas: 0, reason: 'activation timed out' });
  });
});
