import { describe, expect, it } from 'vitest';
import type { GatewayStats, Histogram } from '../gateway/routing_table.ts';
import { SampleStore } from '../promql/sample_store.ts';
import { addHistograms, histogramDifference, quantileOf } from './histogram.ts';
import {
  gatewaySample,
  NO_SAMPLES,
  type ServiceSamples,
  SIGNALS,
  signals,
  withGatewaySample,
  withReplicaSample,
} from './signals.ts';
import { queryValue } from './trigger_query.ts';

const BOUNDS = [10, 20, 40];

function histogram(...counts: number[]): Histogram {
  return { bounds: BOUNDS, counts, sum: 0 };
}

interface Given {
  readonly waiting?: number;
  readonly inFlight?: number;
  readonly arrivals?: number;
  readonly outputTokens?: number;
  readonly ttft?: Histogram;
  readonly lastActiveAt?: number | null;
  readonly epoch?: string;
  readonly revision?: string;
}

function stats(at: number, given: Given): GatewayStats {
  const revision = {
    requests: given.arrivals ?? 0,
    errors: 0,
    promptTokens: 0,
    outputTokens: given.outputTokens ?? 0,
    ttftMs: given.ttft ?? histogram(0, 0, 0, 0),
    tpotMs: histogram(0, 0, 0, 0),
  };
  return {
    epoch: given.epoch ?? 'a',
    tableVersion: 1,
    at,
    services: {
      s: {
        waiting: given.waiting ?? 0,
        inFlight: given.inFlight ?? 0,
        arrivals: given.arrivals ?? 0,
        refused: 0,
        lastActiveAt: given.lastActiveAt ?? null,
        revisions: { [given.revision ?? 'r1']: revision },
        endpoints: {},
      },
    },
  };
}

function samples(...all: readonly (readonly [second: number, given: Given])[]): ServiceSamples {
  return all.reduce((before, [second, given]) => {
    const sample = gatewaySample(stats(second * 1000, given), 's', second * 1000);
    return sample === null ? before : withGatewaySample(before, sample);
  }, NO_SAMPLES);
}

describe('signals', () => {
  it('knows nothing without samples, or when they are old', () => {
    const nothing = Object.fromEntries(Object.keys(SIGNALS).map((name) => [name, null]));
    expect(signals(NO_SAMPLES, 0)).toEqual(nothing);
    expect(signals(samples([0, { inFlight: 3 }]), 30_000).in_flight).toBe(3);
    expect(signals(samples([0, { inFlight: 3 }]), 30_001)).toEqual(nothing);
    expect(gatewaySample(stats(0, {}), '__proto__', 0)).toBeNull();
  });

  it('takes rates over their window, from the sample before it on', () => {
    const arrivals = samples(...[0, 10, 20, 30, 40, 50, 60, 70].map((at) => [at, { arrivals: at * 2 }] as const));
    expect(signals(arrivals, 70_000)).toMatchObject({ arrivals_per_second: 2, arrivals_per_second_10s: 2 });
    const sudden = samples([0, {}], [60, {}], [70, { arrivals: 50 }]);
    expect(signals(sudden, 70_000)).toMatchObject({ arrivals_per_second_10s: 5 });
    expect(signals(samples([0, { arrivals: 5 }]), 0).arrivals_per_second).toBeNull();
  });

  it('counts from 0 after a restart of the gateway', () => {
    const restarted = samples([0, { arrivals: 100 }], [5, { arrivals: 110 }], [10, { arrivals: 20, epoch: 'b' }]);
    expect(signals(restarted, 10_000).arrivals_per_second).toBe(3);
  });

  it('does not count a revision again when another one goes', () => {
    const both = stats(0, { outputTokens: 1000 });
    const two = {
      ...both.services['s']?.revisions,
      ...stats(0, { outputTokens: 70, revision: 'r2' }).services['s']?.revisions,
    };
    const first = gatewaySample(
      { ...both, services: { s: { ...both.services['s'], revisions: two } as never } },
      's',
      0,
    );
    const after = gatewaySample(stats(10_000, { outputTokens: 100, revision: 'r2' }), 's', 10_000);
    const all = withGatewaySample(withGatewaySample(NO_SAMPLES, first as never), after as never);
    expect(signals(all, 10_000).tokens_per_second).toBe(3);
  });

  it('averages concurrency over time, held requests included', () => {
    const steps = samples([0, { inFlight: 4 }], [54, { inFlight: 4, waiting: 6 }], [57, { inFlight: 2 }]);
    expect(signals(steps, 60_000)).toMatchObject({ concurrency: 2, concurrency_panic: 6, concurrency_stable: 4.2 });
    expect(signals(steps, 60_000, { stableWindowMs: 30_000 }).concurrency_panic).toBe(2);
  });

  it('has percentiles of what came within the window', () => {
    const busy = samples(
      [0, { ttft: histogram(0, 0, 0, 50) }],
      [30, { ttft: histogram(10, 0, 0, 50) }],
      [60, { ttft: histogram(10, 10, 0, 50) }],
    );
    expect(signals(busy, 60_000).ttft_p95_ms).toBe(19);
    expect(signals(busy, 60_000).tpot_p95_ms).toBeNull();
  });

  it('measures idleness on the clock of the observer', () => {
    const early = { ...stats(5000, { lastActiveAt: 2000 }) };
    const sample = gatewaySample(early, 's', 105_000);
    const all = withGatewaySample(NO_SAMPLES, sample as never);
    expect(signals(all, 106_000).idle_ms).toBe(4000);
    expect(signals(samples([1, { inFlight: 1, lastActiveAt: 0 }]), 1000).idle_ms).toBe(0);
  });

  it('adds what waits in the engines, and averages over replicas that say', () => {
    const gauges = { cpuMilli: null, cpuLimitMilli: 2000, memoryBytes: null, memoryLimitBytes: null, running: 1 };
    const replicas = [
      { ...gauges, id: 'a', waiting: 2, kvCacheUsage: 0.5, cpuMilli: 1500 },
      { ...gauges, id: 'b', waiting: null, kvCacheUsage: 0.7 },
    ];
    const all = withReplicaSample(samples([0, { waiting: 3 }]), { at: 0, replicas });
    expect(signals(all, 0)).toMatchObject({
      waiting_requests: 5,
      kv_cache_usage: 0.6,
      cpu: 75,
      cpu_milli: 1500,
      memory: null,
    });
    const resource = { kind: 'resource', resource: 'cpu', target: 50, utilization: true } as const;
    expect(queryValue(resource, new SampleStore(), signals(all, 0), 0)).toBe(75);
    expect(queryValue({ ...resource, utilization: false }, new SampleStore(), signals(all, 0), 0)).toBe(1.5);
  });

  it('keeps no more than its window needs', () => {
    let all = NO_SAMPLES;
    for (let second = 0; second < 1000; second++) {
      all = withGatewaySample(all, gatewaySample(stats(second * 1000, {}), 's', second * 1000) as never);
    }
    expect(all.gateway.length).toBe(61);
  });
});

describe('queries of triggers', () => {
  const known = signals(samples([0, { inFlight: 3 }]), 0);
  const store = new SampleStore();
  store.add('up', { a: '1' }, 0, 1);
  store.add('up', { a: '2' }, 0, 2);
  const promql = (query: string, ignoreNullValues = true) => ({ kind: 'promql', query, ignoreNullValues }) as const;

  it.each([
    [{ kind: 'signal', signal: 'in_flight' } as const, 3],
    [{ kind: 'signal', signal: 'toString' } as const, null],
    [promql('sum(up)'), 3],
    [promql('nothing'), 0],
    [promql('nothing', false), null],
    [promql('sum(up) / 0'), 0],
    [promql('sum(up) / 0', false), null],
    [promql('up'), null],
    [promql('up * on () up'), null],
  ])('%j gives %s', (query, value) => {
    expect(queryValue(query, store, known, 1000)).toBe(value);
  });
});

describe('histograms', () => {
  it('adds, subtracts and finds percentiles', () => {
    const sum = addHistograms([histogram(1, 2, 0, 1), histogram(1, 0, 0, 0)]);
    expect(sum.counts).toEqual([2, 2, 0, 1]);
    expect(quantileOf(sum, 0.5)).toBe(12.5);
    expect(quantileOf(sum, 1)).toBe(40);
    expect(quantileOf(histogram(0, 0, 0, 0), 0.5)).toBeNull();
    expect(histogramDifference(histogram(1, 2, 0, 1), histogram(1, 3, 0, 1)).counts).toEqual([0, 1, 0, 0]);
    expect(histogramDifference(histogram(5, 0, 0, 0), histogram(1, 3, 0, 1)).counts).toEqual([1, 3, 0, 1]);
    expect(addHistograms([histogram(1, 0, 0, 0), { bounds: [1], counts: [9, 9], sum: 0 }]).counts).toEqual([
      1, 0, 0, 0,
    ]);
  });
});
