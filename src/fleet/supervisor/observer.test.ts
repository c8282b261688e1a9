import { expect, test } from 'vitest';
import type { ServiceSpec } from '../spec/fleet_spec.ts';
import { readFleet } from '../spec/read_fleet.ts';
import { MeasuredFootprints, type ProcessUse } from './machine_observed.ts';
import { Observer } from './observer.ts';
import { newReplica, type ReplicaRecord } from './replica_lifecycle.ts';
import { template } from './testdata/fleet.ts';

const QUERY = 'sum(vllm:num_requests_running)';
const OBJECTS = `models: [{name: m, cpu: 2, memory: 1Gi}]
---
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata: {name: m}
spec:
  scaleTargetRef: {name: m}
  triggers:
    - type: prometheus
      metadata: {serverAddress: 'http://p:9090', query: '${QUERY}', threshold: '4'}
`;

const service = readFleet([{ file: '/f.yaml', text: OBJECTS }]).services[0] as ServiceSpec;

function replica(id: string): ReplicaRecord {
  const own = template({ cpuMilli: 2000, memoryBytes: 2 ** 30 });
  const record = newReplica({ id, service: 'default/m', revision: 'm-1', template: own }, 0);
  return { ...record, phase: 'ready', process: { pid: 1, startTime: 'x' }, port: id === 'm-1-a' ? 1 : 2 };
}

function observer(answers: Record<string, string | null>, use: () => ProcessUse) {
  const measured = new MeasuredFootprints();
  return new Observer({ scrape: async (url) => answers[new URL(url).port] ?? null, use, measured });
}

const counts = { replicas: 2, readyReplicas: 2, startMs: null, wakeMs: null };

test('queries see the replicas that serve: what is gone, or no longer says it, ends at once', async () => {
  const answers: Record<string, string | null> = {
    1: 'vllm:num_requests_running{engine="0"} 3\n',
    2: 'vllm:num_requests_running{engine="0"} 4\n',
  };
  const seen = observer(answers, () => ({ cpuMs: 0, residentBytes: 0, ownBytes: 0 }));
  const value = (now: number) => seen.scaleObserved(service, counts, now).values;
  expect(value(1000)).toEqual([0]);
  await seen.scrape([replica('m-1-a'), replica('m-1-b')], 2000);
  expect(value(2000)).toEqual([7]);
  await seen.scrape([replica('m-1-b')], 3000);
  expect(value(3000)).toEqual([4]);
  answers[2] = 'other 1\n';
  await seen.scrape([replica('m-1-b')], 4000);
  expect(value(4000)).toEqual([0]);
});

test('use of CPU and memory is in percent of what the template asks for; one look at the CPU is none', async () => {
  let cpuMs = 0;
  const seen = observer({ 1: '' }, () => ({ cpuMs, residentBytes: 2 ** 29, ownBytes: 2 ** 28 }));
  await seen.scrape([replica('m-1-a')], 1000);
  expect(seen.signals(service, 1000)).toMatchObject({ cpu: null, memory: 50, kv_cache_usage: null });
  cpuMs = 1000;
  await seen.scrape([replica('m-1-a')], 2000);
  expect(seen.signals(service, 2000)).toMatchObject({ cpu: 50, cpu_milli: 1000, memory: 50 });
});

test('a replica that does not answer is left out, not counted as idle', async () => {
  const seen = observer({ 1: 'vllm:kv_cache_usage_perc 0.5\n', 2: null }, () => ({
    cpuMs: 0,
    residentBytes: 0,
    ownBytes: 0,
  }));
  await seen.scrape([replica('m-1-a'), replica('m-1-b')], 1000);
  expect(seen.signals(service, 1000).kv_cache_usage).toBe(0.5);
});
