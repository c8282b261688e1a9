import { describe, expect, test } from 'vitest';
import { makeSpec } from '../control/testdata/fake_world.ts';
import type { RolloutSpec } from '../spec/fleet_spec.ts';
import { bounds } from './strategy.ts';

type Limit = RolloutSpec['maxSurge'];

const share = (percent: number): Limit => ({ percent });

describe('bounds', () => {
  /** replicas, maxSurge, maxUnavailable -> surge, unavailable, as Kubernetes' ResolveFenceposts. */
  const ROWS: [number, Limit, Limit, number, number][] = [
    [1, share(25), share(25), 1, 0],
    [4, share(25), share(25), 1, 1],
    [10, share(25), share(25), 3, 2],
    [3, share(0), share(0), 0, 1],
    [3, 0, 0, 0, 1],
    [1, share(0), share(25), 0, 1],
    [2, 3, 5, 3, 2],
    [5, share(100), share(100), 5, 5],
    [0, share(25), share(25), 0, 1],
  ];
  test.each(ROWS)('%i replicas, %j, %j', (replicas, maxSurge, maxUnavailable, surge, unavailable) => {
    const { rollout } = makeSpec();
    expect(bounds({ ...rollout, maxSurge, maxUnavailable }, replicas)).toEqual({ surge, unavailable });
  });
});
