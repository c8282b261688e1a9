import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import type { FleetEvent } from '../control/fleet_state.ts';
import { identify } from './process_identity.ts';
import { newReplica } from './replica_lifecycle.ts';
import { SqliteStore } from './state_store.ts';
import { template } from './testdata/fleet.ts';

const scratch = mkdtempSync(join(tmpdir(), 'tokenmill-store-'));
afterAll(() => rmSync(scratch, { recursive: true }));

const replica = (id: string) => newReplica({ id, service: 'default/m', revision: 'm-1', template: template() }, 5);
const event = (i: number, service = 'default/m'): FleetEvent => ({ at: i, service, type: 'T', text: `event ${i}` });

test('gives back what was put in, after it was opened anew', () => {
  const path = join(scratch, 'fleet.db');
  const store = new SqliteStore(path);
  const manifests = [
    { key: 'b', file: 'f.yaml', text: 'x: 1' },
    { key: 'a', file: 'f.yaml', text: "it's: --" },
  ];
  store.replaceManifests(manifests);
  store.putReplica(replica('m-1-a'));
  store.putReplica(replica('m-1-b'));
  store.putReplica({ ...replica('m-1-a'), port: 7 });
  store.deleteReplica('m-1-b');
  store.putTableVersion(41);
  // No close: as after kill -9.
  const again = new SqliteStore(path);
  expect(again.manifests()).toEqual(manifests);
  expect(again.replicas()).toEqual([{ ...replica('m-1-a'), port: 7 }]);
  expect([again.tableVersion(), again.gateway()]).toEqual([41, null]);
  again.close();
  store.close();
});

test('a transaction that fails leaves nothing', () => {
  const store = new SqliteStore(':memory:');
  expect(() =>
    store.transaction(() => {
      store.putReplica(replica('m-1-a'));
      throw new Error('no');
    }),
  ).toThrow('no');
  expect(store.replicas()).toEqual([]);
});

test('events are found by service and age, and the oldest are dropped', () => {
  const store = new SqliteStore(':memory:');
  store.appendEvents(Array.from({ length: 10_400 }, (_, i) => event(i)));
  store.appendEvents([event(1, 'default/n')]);
  const all = store.events({ limit: 100_000 });
  expect([all.length, all.at(-1)?.text]).toEqual([10_401, 'event 1']);
  store.appendEvents(Array.from({ length: 200 }, (_, i) => event(i)));
  expect(store.events({ limit: 100_000 })).toHaveLength(10_000);
  expect(store.events({ service: 'default/n', limit: 5 })).toMatchObject([{ service: 'default/n' }]);
  const seq = all.at(-1)?.seq as number;
  expect(store.events({ afterSeq: seq, limit: 3 }).map(({ text }) => text)).toEqual([
    'event 197',
    'event 198',
    'event 199',
  ]);
});

test('one supervisor a folder; the lock of a dead one, or of another process with its number, is free', () => {
  const path = join(scratch, 'lock.db');
  const [a, b] = [new SqliteStore(path), new SqliteStore(path)];
  const me = identify(process.pid);
  const parent = identify(process.ppid);
  if (me === null || parent === null) throw new Error('no /proc');
  a.lock(parent);
  expect(() => b.lock(me)).toThrow(/A fleet runs with this state folder already \(process \d+\)/);
  b.unlock(me);
  expect(() => b.lock(me)).toThrow(/tokenmill down/);
  a.unlock(parent);
  b.lock(me);
  b.lock(me);
  b.unlock(me);
  a.lock({ pid: parent.pid, startTime: 'long ago' });
  b.lock(me);
  a.close();
  b.close();
});

test('a file that is none of ours is refused by name', () => {
  const path = join(scratch, 'bad.db');
  writeFileSync(path, 'not a database, but long enough to be looked at as if it were one'.repeat(20));
  expect(() => new SqliteStore(path)).toThrow(/bad\.db cannot be opened/);
});
