import { expect, test } from 'vitest';
import { advance, type Effect, newReplica, type ReplicaRecord, type Seen, stopReplica } from './replica_lifecycle.ts';
import { template } from './testdata/fleet.ts';

const PROCESS = { pid: 77, startTime: 'boot:1' };
const FINE: Seen = { alive: true, exit: '', startup: true, readiness: true, liveness: true, leftTable: false };

/** Applies the edge's part of a spawn. */
function step(
  record: ReplicaRecord,
  seen: Seen,
  now: number,
): { record: ReplicaRecord; effects: readonly Effect[]; types: string[] } {
  const { record: next, effects, events } = advance(record, seen, now);
  const spawned = effects.includes('spawn') ? { ...next, process: PROCESS, startedAt: now } : next;
  return { record: spawned, effects, types: events.map(([type]) => type) };
}

function ready(now: number): ReplicaRecord {
  const started = step(
    newReplica({ id: 'm-1-a', service: 'default/m', revision: 'm-1', template: template() }, now),
    FINE,
    now,
  );
  return step(started.record, FINE, now).record;
}

test('starts, is ready once both probes pass, and goes out and in with its readiness', () => {
  const created = newReplica({ id: 'm-1-a', service: 'default/m', revision: 'm-1', template: template() }, 0);
  const started = step(created, { ...FINE, alive: false }, 0);
  expect([started.effects, started.record.phase]).toEqual([['spawn'], 'starting']);
  const loading = step(started.record, { ...FINE, startup: null, readiness: null }, 10);
  expect(loading.record.phase).toBe('starting');
  expect(step(loading.record, { ...FINE, readiness: null }, 20).record.phase).toBe('starting');
  const up = step(loading.record, FINE, 1200);
  expect([up.record.phase, up.record.readyAt, up.types]).toEqual(['ready', 1200, ['ReplicaReady']]);
  const out = step(up.record, { ...FINE, readiness: false }, 1300);
  expect([out.record.phase, out.types]).toEqual(['unready', ['ReplicaUnready']]);
  expect(step(out.record, FINE, 1400).record).toMatchObject({ phase: 'ready', readyAt: 1400 });
});

test('comes back at once after the first end, then as the back-off says; ten good minutes make it forgotten', () => {
  let record = ready(0);
  const waits: number[] = [];
  let now = 1000;
  for (let i = 0; i < 9; i++) {
    const end = step(record, { ...FINE, alive: false, exit: 'exit code 1' }, now);
    expect([end.record.phase, end.types]).toEqual(['backoff', ['ReplicaFailed']]);
    const restartAt = end.record.restartAt as number;
    waits.push(restartAt - now);
    if (restartAt > now) expect(step(end.record, { ...FINE, alive: false }, restartAt - 1).effects).toEqual([]);
    const again = step(end.record, { ...FINE, alive: false }, restartAt);
    expect([again.effects, again.record.restarts]).toEqual([['spawn'], i + 1]);
    record = step(again.record, FINE, restartAt + 10).record;
    now = restartAt + 20;
  }
  expect(waits).toEqual([0, 10_000, 20_000, 40_000, 80_000, 160_000, 300_000, 300_000, 300_000]);
  const late = step(record, { ...FINE, alive: false }, now + 600_000);
  expect(late.record.restartAt).toBe(now + 600_000);
});

test('a stop: out of the table, pre-stop, SIGTERM, SIGKILL at the grace, forgotten', () => {
  const stopped = stopReplica(ready(0), 'scaled down', 1000);
  expect(stopped.phase).toBe('draining');
  expect(step(stopped, { ...FINE, leftTable: true }, 2999).effects).toEqual([]);
  const term = step(stopped, { ...FINE, leftTable: true }, 3000);
  expect(term.effects).toEqual(['term']);
  expect(step(term.record, FINE, 30_999).effects).toEqual([]);
  const kill = step(term.record, FINE, 31_000);
  expect([kill.effects, kill.types]).toEqual([['kill'], ['ReplicaKilled']]);
  expect(step(kill.record, FINE, 31_500).effects).toEqual([]);
  expect(step(kill.record, { ...FINE, alive: false }, 31_600).effects).toEqual(['forget']);
});

test('SIGTERM waits for the gateway to have the table, but not for ever; a pre-stop that eats the grace leaves two seconds', () => {
  const stopped = stopReplica(ready(0), 'scaled down', 0);
  expect(step(stopped, FINE, 2000).effects).toEqual([]);
  expect(step(stopped, FINE, 4000).effects).toEqual(['term']);
  const greedy = stopReplica({ ...ready(0), template: template({ preStopMs: 40_000 }) }, 'scaled down', 0);
  const term = step(greedy, { ...FINE, leftTable: true }, 40_000);
  expect(step(term.record, FINE, 41_999).effects).toEqual([]);
  expect(step(term.record, FINE, 42_000).effects).toEqual(['kill']);
});

test.each(['startup', 'liveness'] as const)('a failed %s probe restarts it, with its grace', (probe) => {
  const record = probe === 'startup' ? { ...ready(0), phase: 'starting' as const, readyAt: null } : ready(0);
  const end = step(record, { ...FINE, [probe]: false }, 5000);
  expect([end.effects, end.record.phase, end.types]).toEqual([['term'], 'backoff', ['ReplicaUnhealthy']]);
  expect(step(end.record, FINE, 34_000).effects).toEqual([]);
  const kill = step(end.record, FINE, 35_000);
  expect(kill.effects).toEqual(['kill']);
  const gone = step(kill.record, { ...FINE, alive: false }, 35_100);
  expect([gone.effects, gone.record.process]).toEqual([[], null]);
  expect(step(gone.record, { ...FINE, alive: false }, 35_200)).toMatchObject({
    effects: ['spawn'],
    record: { restarts: 1 },
  });
});

test('one that waits for its restart and is no longer wanted is forgotten at once', () => {
  const end = step(ready(0), { ...FINE, alive: false }, 5000);
  const stopped = stopReplica(end.record, 'scaled down', 5001);
  expect(step(stopped, { ...FINE, alive: false }, 5002).effects).toEqual(['forget']);
});
