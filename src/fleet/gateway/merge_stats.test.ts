import { expect, it } from 'vitest';
import { HistogramCounts } from './histogram.ts';
import { mergeStats, settledStats } from './merge_stats.ts';
import type { GatewayStats } from './routing_table.ts';

function statsOf(n: number, endpoint: string): GatewayStats {
  const histogram = new HistogramCounts([1, 2, 5]);
  for (const value of [0.5, 2, 2.5, 9]) histogram.observe(value * n);
  const revision = {
    requests: n,
    errors: 0,
    promptTokens: n,
    outputTokens: 0,
    ttftMs: histogram.snapshot(),
    tpotMs: histogram.snapshot(),
  };
  const service = {
    waiting: n,
    inFlight: n,
    arrivals: n,
    refused: 0,
    lastActiveAt: n,
    revisions: { r: revision },
    endpoints: { [endpoint]: { inFlight: n, ejected: false } },
  };
  return { epoch: 'e', tableVersion: n, at: n, services: { s: service, [`only${n}`]: service } };
}

it('counts buckets up to and with their bound', () => {
  expect(statsOf(1, 'a').services['s']?.revisions['r']?.ttftMs).toEqual({
    bounds: [1, 2, 5],
    counts: [1, 1, 1, 1],
    sum: 14,
  });
});

it('adds what both count, and keeps what one alone has', () => {
  const merged = mergeStats(statsOf(2, 'a'), statsOf(1, 'b'));
  expect(merged).toMatchObject({ tableVersion: 2, at: 2 });
  expect(Object.keys(merged.services).sort()).toEqual(['only1', 'only2', 's']);
  expect(merged.services['s']).toMatchObject({ waiting: 3, inFlight: 3, arrivals: 3, lastActiveAt: 2 });
  expect(merged.services['s']?.endpoints).toEqual({
    a: { inFlight: 2, ejected: false },
    b: { inFlight: 1, ejected: false },
  });
  expect(merged.services['s']?.revisions['r']).toMatchObject({
    requests: 3,
    ttftMs: { counts: [2, 1, 3, 2], sum: 42 },
  });
});

it('leaves the totals of a gateway that is gone', () => {
  const settled = settledStats(statsOf(3, 'a')).services['s'];
  expect(settled).toMatchObject({ waiting: 0, inFlight: 0, arrivals: 3, endpoints: {} });
});
