/** The whole fleet with fake replicas: gateway, supervisor and replicas are processes, as they are for a user. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import { identify, signalProcess } from '../../src/fleet/supervisor/process_identity.ts';
import { type Reply, TestFleet } from './harness.ts';

let fleet: TestFleet;
beforeEach(() => {
  fleet = new TestFleet();
});
afterEach(() => fleet.remove());

const failures = (replies: readonly Reply[]) => replies.filter(({ complete }) => !complete).slice(0, 3);

/** Quick probes and a rule that follows the concurrency within seconds. */
function model(changes: Record<string, unknown> = {}): Record<string, unknown> {
  return {
    name: 'm',
    env: { FAKE_START_MS: '50', FAKE_TOKEN_MS: '10', FAKE_TOKENS: '5' },
    replicas: 1,
    readiness: { path: '/ready', period: '200ms', timeout: '1s', failureThreshold: 2 },
    ...changes,
  };
}

test('30 requests at once scale it from 1 to 3 and back to 1, and none fails', async () => {
  await fleet.start([
    model({
      env: { FAKE_START_MS: '200', FAKE_TOKEN_MS: '20', FAKE_SLOTS: '10' },
      replicas: { min: 1, max: 3 },
      scaling: { rule: 'knative', concurrency: 10, window: '6s' },
    }),
  ]);
  await fleet.ready(1);
  const stop = fleet.load(30, { stream: true });
  await fleet.ready(3);
  const replies = await stop();
  expect(replies.length).toBeGreaterThan(30);
  expect(failures(replies)).toEqual([]);
  await fleet.until('1 replica', async () => (await fleet.replicas()).length === 1, 25_000);
  expect(failures([await fleet.chat()])).toEqual([]);
}, 60_000);

test('scales to zero, holds the next request and answers it', async () => {
  const { replicas: _, ...unscaled } = model();
  const triggers = [
    {
      type: 'prometheus',
      metadata: { serverAddress: 'http://prometheus:9090', query: 'sum(vllm:num_requests_running)', threshold: '4' },
    },
  ];
  const scaledObject = {
    apiVersion: 'keda.sh/v1alpha1',
    kind: 'ScaledObject',
    metadata: { name: 'm' },
    spec: {
      scaleTargetRef: { name: 'm' },
      pollingInterval: 1,
      cooldownPeriod: 1,
      minReplicaCount: 0,
      maxReplicaCount: 2,
      triggers,
    },
  };
  await fleet.start([unscaled], [scaledObject]);
  expect(failures([await fleet.chat()])).toEqual([]);
  await fleet.until('no replica', async () => (await fleet.replicas()).length === 0, 20_000);
  const replies = await Promise.all([fleet.chat(), fleet.chat({ stream: true })]);
  expect(failures(replies)).toEqual([]);
}, 60_000);

test('a revision that answers with errors is taken back, and no client sees one', async () => {
  const rollout = {
    strategy: 'canary',
    steps: [{ percent: 20, pause: '2s' }, { percent: 100 }],
    analysis: { maxRequests: 500 },
  };
  const stable = model({ replicas: 2, rollout });
  await fleet.start([stable]);
  await fleet.ready(2);
  const stop = fleet.load(8);
  await fleet.apply([{ ...stable, env: { FAKE_ERROR_EVERY: '1', FAKE_TOKEN_MS: '10' } }]);
  await fleet.until(
    'the rollback',
    async () => {
      const { revisions, rollout: state } = await fleet.service();
      return revisions.length === 2 && revisions[1]?.failed !== null && state.phase !== 'rollingBack';
    },
    25_000,
  );
  const replies = await stop();
  expect(failures(replies)).toEqual([]);
  const { revisions } = await fleet.service();
  expect(revisions.map(({ percent }) => percent)).toEqual([100, 0]);
}, 60_000);

test('requests go on when the supervisor is killed, and the next one takes over what runs', async () => {
  const fleetFile = [model({ replicas: 2 })];
  await fleet.start(fleetFile);
  await fleet.ready(2);
  const before = (await fleet.replicas()).map(({ id, pid }) => [id, pid]);
  const stop = fleet.load(4, { stream: true });
  await fleet.killSupervisor();
  expect(failures([await fleet.chat()])).toEqual([]);
  const [, lost] = before[0] as [string, number];
  const identity = identify(lost);
  if (identity !== null) signalProcess(identity, 'SIGKILL');
  expect(failures(await Promise.all(Array.from({ length: 10 }, () => fleet.chat())))).toEqual([]);
  await fleet.startSupervisor([]);
  await fleet.ready(2);
  const after = (await fleet.replicas()).map(({ id, pid }) => [id, pid]);
  expect(after.map(([id]) => id)).toEqual(before.map(([id]) => id));
  expect(after[1]).toEqual(before[1]);
  expect(after[0]?.[1]).not.toBe(lost);
  await stop();
}, 60_000);

test('a replica killed at work is replaced: whole answers come from another, streams that had begun end with an error', async () => {
  await fleet.start([model({ replicas: 2, env: { FAKE_TOKEN_MS: '20', FAKE_TOKENS: '10' } })]);
  await fleet.ready(2);
  const stop = fleet.load(6);
  const stopStreams = fleet.load(6, { stream: true });
  await fleet.until('load', async () => (await fleet.replicas()).every(({ inFlight }) => inFlight > 0));
  const [victim] = await fleet.replicas();
  const identity = identify(victim?.pid as number);
  if (identity !== null) signalProcess(identity, 'SIGKILL');
  await fleet.until('its restart', async () => {
    const again = (await fleet.replicas()).find(({ id }) => id === victim?.id);
    return again?.phase === 'ready' && again.restarts === 1 && again.pid !== victim?.pid;
  });
  expect(failures(await stop())).toEqual([]);
  const streams = await stopStreams();
  const broken = streams.filter(({ complete }) => !complete);
  expect(broken.length).toBeLessThanOrEqual(6);
  for (const { status, text } of broken) expect([status, text]).toEqual([200, expect.stringContaining('"error"')]);
  expect(streams.length).toBeGreaterThan(broken.length);
}, 60_000);

test('another supervisor takes over without a refused request', async () => {
  await fleet.start([model()]);
  await fleet.ready(1);
  const [replica] = await fleet.replicas();
  const stop = fleet.load(4, { stream: true });
  await fleet.startSupervisor([], { takeOver: true });
  await fleet.post('/v1/gateway/handover');
  await fleet.ready(1);
  const replies = await stop();
  expect(failures(replies)).toEqual([]);
  expect((await fleet.replicas())[0]?.pid).toBe(replica?.pid);
}, 60_000);
