import { describe, expect, it } from 'vitest';
import { pollKeda, queryKeda } from './keda.ts';
import { kedaPolicy, type ScaledObjectSpec } from './keda_policy.ts';
import { initialKedaMemory, type KedaMemory } from './keda_status.ts';
import { histories } from './testdata/histories.ts';

interface Tick {
  t: number;
  op: 'poll' | 'query';
  spec: number;
  ready: number;
  v: (number | null)[];
  ann?: Record<string, string>;
  hpa: string;
  query?: string;
}

interface History {
  id: string;
  created: number;
  spec: ScaledObjectSpec;
  ticks: Tick[];
}

/** The recorded outputs of each tick, as this program gives them. */
function replay(history: History): Record<string, unknown>[] {
  const policy = kedaPolicy(history.spec, history.created);
  let memory: KedaMemory = initialKedaMemory();
  return history.ticks.map((tick) => {
    const observed = { replicas: tick.spec, readyPods: tick.ready, values: tick.v };
    let [values, out, write, events]: [readonly number[] | null, number, boolean, readonly string[]] = [
      null,
      tick.spec,
      false,
      [],
    ];
    if (tick.op === 'query') {
      ({ values, memory } = queryKeda(policy, observed, memory, tick.query ?? ''));
    } else {
      const seen = { ...observed, annotations: tick.ann ?? {}, hpaScalingActive: tick.hpa };
      ({ replicas: out, write, events, memory } = pollKeda(policy, seen, memory, tick.t));
    }
    return { ...tick, values, out, write, events, ...recorded(memory) };
  });
}

function recorded({ status: { conditions, lastActive, health, activity } }: KedaMemory): Record<string, unknown> {
  const known = Object.entries(health).map(([metric, { failures, status }]) => [metric, { n: failures, status }]);
  return {
    cReady: conditions.Ready,
    cActive: conditions.Active,
    cFallback: conditions.Fallback,
    cPaused: conditions.Paused,
    cHPAActive: conditions.HPAActive,
    lastActive,
    ...(known.length === 0 ? {} : { health: Object.fromEntries(known) }),
    ...(Object.keys(activity).length === 0 ? {} : { activity }),
  };
}

describe('KEDA', () => {
  const all = histories<History>('keda');

  it('decides and answers as the real operator did, every field of every tick', () => {
    expect(all.length).toBeGreaterThan(100);
    for (const history of all) expect(replay(history), `history ${history.id}`).toEqual(history.ticks);
  });

  it('has no answer for a metric that it does not have', () => {
    const policy = kedaPolicy({ triggers: [{ type: 'prometheus', threshold: 5 }] }, 0);
    const observed = { replicas: 1, readyPods: 1, values: [3] };
    expect(queryKeda(policy, observed, initialKedaMemory(), 's0-prometheus').values).toEqual([3000]);
    expect(queryKeda(policy, observed, initialKedaMemory(), 's1-prometheus').values).toBeNull();
  });

  const triggers = [{ type: 'prometheus', name: 'a', threshold: 5 }];
  it.each<[RegExp, ScaledObjectSpec]>([
    [/minReplicaCount 5 is above maxReplicaCount 2/, { triggers, minReplicaCount: 5, maxReplicaCount: 2 }],
    [/idleReplicaCount 1 must be below minReplicaCount 1/, { triggers, minReplicaCount: 1, idleReplicaCount: 1 }],
    [/idleReplicaCount 0 must be below minReplicaCount 0/, { triggers, idleReplicaCount: 0 }],
    [/two triggers are named "a"/, { triggers: [...triggers, ...triggers] }],
    [/trigger type "kafka" is not supported/, { triggers: [{ type: 'kafka', threshold: 1 }] }],
    [/fallback with a number below 0/, { triggers, fallback: { failureThreshold: -1, replicas: 1 } }],
    [/no trigger has the name "b"/, { triggers, scalingModifiers: { formula: 'a + b', target: '1' } }],
    [/target must be above 0/, { triggers, scalingModifiers: { formula: 'a', target: '0' } }],
    [/target is "two", not a number/, { triggers, scalingModifiers: { formula: 'a', target: 'two' } }],
    [/activationTarget is "x"/, { triggers, scalingModifiers: { formula: 'a', target: '1', activationTarget: 'x' } }],
  ])('refuses %s', (message, spec) => {
    expect(() => kedaPolicy(spec, 0)).toThrow(message);
  });
});
