import { describe, expect, test } from 'vitest';
import type { ReplicaObserved } from './fleet_state.ts';
import { deepFreeze } from './testdata/fake_world.ts';
import { victims } from './victims.ts';

const NOW = 1_000_000_000;

function replica(id: string, change: Partial<ReplicaObserved>): ReplicaObserved {
  return {
    id,
    service: 's',
    revision: 'r',
    phase: 'ready',
    url: '',
    pid: 1,
    createdAt: 0,
    readyAt: 0,
    restarts: 0,
    restartAt: null,
    inFlight: 0,
    ...change,
  };
}

describe('victims', () => {
  /** Each row: `first` goes before `second`, though it would survive by all rules below. */
  const ROWS: [string, Partial<ReplicaObserved>, Partial<ReplicaObserved>][] = [
    ['waiting for a restart before starting', { phase: 'backoff', inFlight: 9 }, { phase: 'starting', inFlight: 0 }],
    ['starting before unready', { phase: 'starting', readyAt: null, inFlight: 9 }, { phase: 'unready' }],
    ['unready before ready', { phase: 'unready', inFlight: 9 }, { phase: 'ready' }],
    ['fewer requests in flight', { inFlight: 1 }, { inFlight: 2, readyAt: NOW - 1000 }],
    ['ready for a shorter time, by powers of two', { readyAt: NOW - 1000 }, { readyAt: NOW - 9000, restarts: 9 }],
    ['more restarts', { restarts: 2 }, { restarts: 1, createdAt: 5 }],
    ['newer', { createdAt: 5 }, { createdAt: 4 }],
    [
      'ready times in one power of two are alike',
      { readyAt: NOW - 1_050_000, restarts: 1 },
      { readyAt: NOW - 1_000_000, restarts: 0 },
    ],
  ];
  test.each(ROWS)('%s', (_name, first, second) => {
    const [a, b] = [replica('a', first), replica('b', second)];
    expect(victims([a, b], 1, NOW)).toEqual([a]);
    expect(victims([b, a], 1, NOW)).toEqual([a]);
  });

  test('takes as many as there are, and none below zero', () => {
    const all = deepFreeze([replica('a', {}), replica('b', {})]);
    expect(victims(all, 5, NOW).map(({ id }) => id)).toEqual(['b', 'a']);
    expect(victims(all, -1, NOW)).toEqual([]);
  });
});
