import { describe, expect, it } from 'vitest';
import { decideHpa, type HpaPolicy } from './hpa.ts';
import { type BehaviorSpec, defaultBehavior, type ScalingBehavior, tolerances } from './hpa_behavior.ts';
import type { HpaMemory } from './hpa_memory.ts';
import { histories } from './testdata/histories.ts';

interface Tick {
  t: number;
  spec: number;
  status: number;
  pods: number;
  ready: number;
  m: (number[] | null)[];
}

interface History {
  id: string;
  scaleToZeroGate: boolean;
  spec: { behavior: BehaviorSpec | null; max: number; metrics: { type: 'AverageValue' | 'Value'; target: number }[] };
  effective: { min: number; tolUp: number; tolDown: number; behavior: ScalingBehavior | null };
  ticks: Tick[];
}

function policyOf({ spec, effective }: History): HpaPolicy {
  return {
    minReplicas: effective.min,
    maxReplicas: spec.max,
    metrics: spec.metrics.map(({ type, target }, at) => ({ name: `external metric m${at}(nil)`, type, target })),
    behavior: spec.behavior === null ? null : defaultBehavior(spec.behavior),
  };
}

/** The recorded outputs of each tick, as this program gives them. */
function replay(history: History): Record<string, unknown>[] {
  let memory: HpaMemory | null = null;
  return history.ticks.map((tick) => {
    const observed = {
      replicas: tick.spec,
      statusReplicas: tick.status,
      pods: tick.pods,
      readyPods: tick.ready,
      samples: tick.m,
    };
    const decision = decideHpa(policyOf(history), observed, memory, tick.t);
    memory = decision.memory;
    const { able, active, limited } = memory.conditions;
    const { proposals, metric, stabilized, limit } = decision.trace;
    return {
      ...tick,
      ...(proposals === null ? {} : { p: proposals }),
      metric,
      stab: stabilized,
      lim: limit,
      out: decision.replicas,
      write: decision.write,
      why: decision.reason,
      able,
      active,
      limited,
      err: decision.failed,
    };
  });
}

describe('HorizontalPodAutoscaler', () => {
  // The alpha gate that lets the HPA itself go to zero is not covered.
  const recorded = histories<History>('hpa').filter(({ scaleToZeroGate }) => !scaleToZeroGate);

  it('decides as the real controller did, every field of every tick', () => {
    expect(recorded.length).toBeGreaterThan(100);
    for (const history of recorded) expect(replay(history), `history ${history.id}`).toEqual(history.ticks);
  });

  it('fills in what the API server fills in', () => {
    for (const { id, spec, effective } of recorded) {
      const behavior = spec.behavior === null ? null : defaultBehavior(spec.behavior);
      expect(behavior, `history ${id}`).toEqual(effective.behavior);
      expect(tolerances(behavior), `history ${id}`).toEqual({ up: effective.tolUp, down: effective.tolDown });
    }
  });
});
