import { expect, test } from 'vitest';
import { pickEndpoints } from './picker.ts';
import { PrefixIndex, PromptHasher } from './prefix_index.ts';
import { scorerWeights } from './scorers.ts';
import { SessionRing } from './session.ts';
import { type Choose, makeTrace, runTrace, type TraceSetup } from './testdata/prefix_trace.ts';

const REPLICAS = 6;
/** About what eight of some forty conversations need. */
const CACHE_TOKENS = 16_384;
const TRACE = makeTrace(42, 400, 6);
const SETUP: TraceSetup = { replicas: REPLICAS, cacheTokens: CACHE_TOKENS, load: 3, sampledEvery: 1 };

/** The picker with its default weights; the index forgets about when the replicas do. */
function picker(withSessions: boolean): Choose {
  const hasher = new PromptHasher(7n);
  const prefixes = new PrefixIndex({ blocksPerEndpoint: CACHE_TOKENS / 64 });
  const policy = { weights: scorerWeights({}), staleMs: 1000 };
  const ids = Array.from({ length: REPLICAS }, (_, i) => `replica-${i}`);
  const sessions = withSessions ? new SessionRing(ids) : null;
  return ({ session, prompt }, endpoints, number) => {
    const prefix = hasher.hash('model', prompt);
    const request = { prefix, sessionKey: withSessions ? String(session) : null, lora: null };
    const [best] = pickEndpoints(policy, { prefixes, sessions }, endpoints, request, number);
    prefixes.record(best!.id, prefix);
    return best!.index;
  };
}

const roundRobin = runTrace(TRACE, SETUP, (_turn, endpoints, number) => number % endpoints.length);

test('prefix affinity finds at least 1.8 times the cached tokens of round robin, with no replica swamped', () => {
  const affinity = runTrace(TRACE, SETUP, picker(false));
  const withSessions = runTrace(TRACE, SETUP, picker(true));
  // One replica with a cache without end would find 0.82.
  expect(roundRobin.hitShare).toBeCloseTo(0.34, 2);
  expect(affinity.hitShare).toBeCloseTo(0.77, 2);
  expect(affinity.hitShare / roundRobin.hitShare).toBeCloseTo(2.24, 1);
  expect(affinity.hitShare / roundRobin.hitShare).toBeGreaterThan(1.8);
  expect(withSessions.hitShare / roundRobin.hitShare).toBeGreaterThan(1.8);
  expect(Math.max(affinity.busiest, withSessions.busiest)).toBeLessThan(1.1);
});

test('nearly full and with samples 96 arrivals old it does not herd', () => {
  const affinity = runTrace(TRACE, { ...SETUP, load: 6.5, sampledEvery: 96 }, picker(false));
  expect(affinity.hitShare / roundRobin.hitShare).toBeGreaterThan(1.8);
  expect(affinity.waited).toBeLessThan(0.5);
  expect(affinity.busiest).toBeLessThan(1.1);
});
