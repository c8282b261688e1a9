import { describe, expect, test } from 'vitest';
import { restartAt } from './restart.ts';

/** Delays of `count` ends in a row of processes that ran `ranMs` each. */
function delays(count: number, ranMs: number): number[] {
  const found: number[] = [];
  for (let failures = 0, now = 0; found.length < count; ) {
    const endedAt = now + ranMs;
    const next = restartAt({ startedAt: now, endedAt, failures });
    found.push((next.at - endedAt) / 1000);
    ({ at: now, failures } = next);
  }
  return found;
}

describe('restartAt', () => {
  test('the first restart is at once, then 10 s doubling to 5 min', () => {
    expect(delays(9, 1000)).toEqual([0, 10, 20, 40, 80, 160, 300, 300, 300]);
  });

  test('a run of more than 10 min forgets the failures before it', () => {
    const after = (ranMs: number) => restartAt({ startedAt: 0, endedAt: ranMs, failures: 5 });
    expect(after(600_000)).toEqual({ at: 760_000, failures: 6 });
    expect(after(600_001)).toEqual({ at: 600_001, failures: 1 });
  });

  test('stays finite after any number of failures', () => {
    expect(restartAt({ startedAt: 0, endedAt: 1, failures: 1e9 }).at).toBe(300_001);
  });
});
