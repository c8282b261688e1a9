import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { mix32 } from './hash.ts';
import { type PickState, pickEndpoints, scoresHeader } from './picker.ts';
import { PrefixIndex } from './prefix_index.ts';
import { poolSaturation, roomOf, SATURATION_POLICY } from './saturation.ts';
import { type EndpointView, type RequestFacts, SCORERS, type ScorerName, scorerWeights } from './scorers.ts';
import { SessionRing } from './session.ts';

const NOTHING: PickState = { prefixes: null, sessions: null };
const REQUEST: RequestFacts = { prefix: null, sessionKey: null, lora: null };

const view = (id: string, known: Partial<EndpointView> = {}): EndpointView => ({
  id,
  available: true,
  inFlight: 0,
  inFlightTokens: 0,
  waiting: 0,
  running: 0,
  kvUsage: 0,
  lora: null,
  sampleAgeMs: 0,
  ...known,
});

const only = (name: ScorerName) =>
  scorerWeights(Object.fromEntries(SCORERS.map((scorer) => [scorer.name, scorer.name === name ? 1 : 0])));
const policy = (weights = scorerWeights({})) => ({ weights, staleMs: 1000 });

/** Scores in the order of the endpoints. */
function scores(name: ScorerName, endpoints: readonly EndpointView[], request = REQUEST, state = NOTHING): number[] {
  const picked = pickEndpoints(policy(only(name)), state, endpoints, request, 1);
  return endpoints.map((_, i) => Number(picked.find(({ index }) => index === i)?.score.toFixed(4)));
}

const prompt = Uint32Array.from({ length: 20 }, (_, i) => mix32(i));
const LORAS = { running: ['x', 'y'], waiting: ['z'], max: 3 };

describe('scorers', () => {
  test.each<[ScorerName, readonly Partial<EndpointView>[], readonly number[]]>([
    ['queue', [{ waiting: 0 }, { waiting: 1 }, { waiting: 4 }], [1, 0.75, 0]],
    ['queue', [{ waiting: 3 }, { waiting: 3 }], [1, 1]],
    // Not known is the mean of what is known, and never 0.
    ['queue', [{ waiting: 0 }, { waiting: null }, { waiting: 4 }], [1, 0.5, 0]],
    ['queue', [{ waiting: 0 }, { waiting: 9, sampleAgeMs: 1001 }, { waiting: 4 }], [1, 0.5, 0]],
    ['queue', [{ waiting: null }, { sampleAgeMs: null }], [1, 1]],
    // Four were sent to the first since its sample; that counts where some have a queue.
    [
      'queue',
      [
        { waiting: 0, running: 2, inFlight: 6 },
        { waiting: 2, running: 4, inFlight: 6 },
      ],
      [0, 1],
    ],
    [
      'queue',
      [
        { waiting: 0, running: 2, inFlight: 6 },
        { waiting: 0, running: 4, inFlight: 4 },
      ],
      [1, 1],
    ],
    ['running', [{ running: 2 }, { running: 6 }, { running: null }], [1, 0, 0.5]],
    ['kvCache', [{ kvUsage: 0.25 }, { kvUsage: 0.75 }, { kvUsage: null }], [0.75, 0.25, 0.5]],
    // An engine that says nonsense stays within 0..1.
    ['kvCache', [{ kvUsage: 7 }, { kvUsage: -3 }], [0, 1]],
    ['activeRequests', [{ inFlight: 0 }, { inFlight: 1 }, { inFlight: 4 }], [1, 0.75, 0]],
    ['activeRequests', [{ inFlight: 0 }, { inFlight: 0 }], [1, 1]],
    ['tokenLoad', [{ inFlightTokens: 0 }, { inFlightTokens: 1_048_576 }, { inFlightTokens: 9e9 }], [1, 0.75, 0]],
  ])('%s of %j: %j', (name, known, expected) => {
    expect(
      scores(
        name,
        known.map((of, i) => view(`e${i}`, of)),
      ),
    ).toEqual(expected);
  });

  test.each<[string | null, readonly number[]]>([
    [null, [1, 1, 1]],
    ['x', [1, 0.8, 0.9]],
    ['z', [0.6, 0.8, 0.7]],
    ['other', [0, 0.8, 0.4]],
  ])('lora %s: %j', (lora, expected) => {
    const endpoints = [
      view('full', { lora: LORAS }),
      view('room', { lora: { running: ['u'], waiting: [], max: 2 } }),
      view('silent'),
    ];
    expect(scores('lora', endpoints, { ...REQUEST, lora })).toEqual(expected);
  });

  test('prefix: the share of its blocks; session: the endpoint of the ring', () => {
    const prefixes = new PrefixIndex();
    prefixes.record('e1', prompt.subarray(0, 8));
    prefixes.record('e2', prompt);
    const sessions = new SessionRing(['e0', 'e1', 'e2']);
    const endpoints = [view('e0'), view('e1'), view('e2')];
    expect(scores('prefix', endpoints, { ...REQUEST, prefix: prompt }, { prefixes, sessions })).toEqual([0, 0.4, 1]);
    expect(scores('prefix', endpoints, { ...REQUEST, prefix: new Uint32Array(0) }, { prefixes, sessions })).toEqual([
      0, 0, 0,
    ]);
    const owner = sessions.place('me', () => 0);
    const expected = endpoints.map(({ id }) => Number(id === owner));
    expect(scores('session', endpoints, { ...REQUEST, sessionKey: 'me' }, { prefixes, sessions })).toEqual(expected);
    // The ring may know endpoints that are not asked about.
    const others = endpoints.filter(({ id }) => id !== owner);
    const sum = scores('session', others, { ...REQUEST, sessionKey: 'me' }, { prefixes, sessions }).reduce(
      (a, b) => a + b,
    );
    expect(sum).toBe(1);
  });

  test('weights: names of ours or of llm-d, nothing else', () => {
    expect(scorerWeights({})).toMatchObject({ queue: 2, kvCache: 2, prefix: 3 });
    expect(scorerWeights({ 'prefix-cache-scorer': 7, queue: 0 })).toMatchObject({ queue: 0, prefix: 7 });
    expect(() => scorerWeights({ que: 1 })).toThrow(/No scorer is called "que".*queue, running/);
    expect(() => scorerWeights(JSON.parse('{"__proto__": 1}'))).toThrow('No scorer is called "__proto__"');
    for (const weight of [-1, Number.NaN, Number.POSITIVE_INFINITY]) {
      expect(() => scorerWeights({ queue: weight })).toThrow('weight of the scorer queue');
    }
  });
});

describe('picker', () => {
  test('the mean by weight decides, and the others are fallbacks in order', () => {
    const endpoints = [
      view('a', { waiting: 2, kvUsage: 0.5 }),
      view('b', { waiting: 0, kvUsage: 0.7 }),
      view('c', { waiting: 1 }),
    ];
    const picked = pickEndpoints(policy(), NOTHING, endpoints, REQUEST, 1);
    expect(picked.map(({ id }) => id)).toEqual(['c', 'b', 'a']);
    // queue 2 x 0.5, kv 2 x 1, prefix 0, lora 2 x 1, session 0, active 1 x 1, of 11.
    expect(picked[0]?.score).toBeCloseTo(6 / 11, 12);
    expect(scoresHeader(picked)).toBe('c=0.545,b=0.509,a=0.364');
  });

  test('unavailable ones never, saturated ones last', () => {
    const endpoints = [
      view('out', { available: false }),
      view('full', { waiting: 6, sampleAgeMs: 10 }),
      view('busy', { kvUsage: 0.79, waiting: 5, inFlight: 9 }),
    ];
    expect(pickEndpoints(policy(), NOTHING, endpoints, REQUEST, 1).map(({ id }) => id)).toEqual(['busy', 'full']);
    const prefixes = new PrefixIndex();
    prefixes.record('full', prompt);
    const hot = pickEndpoints(
      policy(only('prefix')),
      { prefixes, sessions: null },
      endpoints,
      { ...REQUEST, prefix: prompt },
      1,
    );
    expect(hot.map(({ id }) => id)).toEqual(['busy', 'full']);
    expect(pickEndpoints(policy(), NOTHING, [view('out', { available: false })], REQUEST, 1)).toEqual([]);
    expect(pickEndpoints(policy(), NOTHING, [], REQUEST, 1)).toEqual([]);
  });

  test('ties go by lot: the same seed the same, all seeds evenly', () => {
    const endpoints = ['a', 'b', 'c', 'd'].map((id) => view(id));
    const counts = new Map<string, number>();
    for (let seed = 0; seed < 4000; seed++) {
      const picked = pickEndpoints(policy(), NOTHING, endpoints, REQUEST, seed);
      expect(pickEndpoints(policy(), NOTHING, endpoints, REQUEST, seed)).toEqual(picked);
      const order = picked.map(({ id }) => id).join('');
      counts.set(order, (counts.get(order) ?? 0) + 1);
    }
    expect(counts.size).toBe(24);
    for (const count of counts.values()) expect(Math.abs(count - 4000 / 24)).toBeLessThan(60);
  });

  test('every score is within 0..1 and every available endpoint is there once', () => {
    const number = fc.oneof(fc.constant(null), fc.double({ min: -10, max: 1e9, noNaN: true }));
    const endpoint = fc.record({
      available: fc.boolean(),
      inFlight: fc.nat(1000),
      inFlightTokens: fc.nat(),
      waiting: number,
      running: number,
      kvUsage: number,
      sampleAgeMs: number,
    });
    fc.assert(
      fc.property(fc.array(endpoint, { maxLength: 9 }), fc.nat(), (known, seed) => {
        const endpoints = known.map((of, i) => view(`e${i}`, of));
        const picked = pickEndpoints(
          policy(scorerWeights({ running: 1, tokenLoad: 1 })),
          NOTHING,
          endpoints,
          REQUEST,
          seed,
        );
        const available = endpoints.filter((of) => of.available).map(({ id }) => id);
        expect(picked.map(({ id }) => id).sort()).toEqual(available.sort());
        for (const { id, index, score } of picked) {
          expect(endpoints[index]?.id).toBe(id);
          expect(score).toBeGreaterThanOrEqual(0);
          expect(score).toBeLessThanOrEqual(1);
        }
      }),
      { seed: 9, numRuns: 300 },
    );
  });
});

describe('saturation', () => {
  test.each<[readonly Partial<EndpointView>[], number]>([
    [[], 1],
    [[{ waiting: 5 }], 1],
    [[{ waiting: 2, kvUsage: 0.4 }], 0.5],
    [[{ waiting: 2, kvUsage: 0.8 }], 1],
    [[{ waiting: 10 }, { waiting: 0 }], 1],
    [[{ waiting: 0 }, { sampleAgeMs: 1001 }], 0.5],
    [[{ kvUsage: null }], 1],
  ])('%j: %d', (known, expected) => {
    expect(poolSaturation(known.map((of, i) => view(`e${i}`, of)))).toBeCloseTo(expected, 12);
  });

  test.each<[Partial<EndpointView>, number, number]>([
    [{}, 0, 5],
    [{ waiting: 3, running: 8, inFlight: 11 }, 0, 2],
    // Four were sent since the sample.
    [{ waiting: 0, running: 2, inFlight: 6 }, 0, 1],
    [{ waiting: 0, running: 2, inFlight: 6 }, 8, 5],
    [{ waiting: 9, running: 2, inFlight: 11 }, 0, 0],
    // Others than this gateway fill it: one at a time.
    [{ waiting: 9, running: 2, inFlight: 0 }, 0, 1],
    [{ kvUsage: 0.8, inFlight: 3, running: 3 }, 0, 0],
    [{ kvUsage: 0.8 }, 0, 1],
    [{ sampleAgeMs: null }, 0, 1],
    [{ sampleAgeMs: null, inFlight: 1 }, 0, 0],
    [{ available: false }, 0, 0],
  ])('room of %j when it runs %d at once: %d', (known, runsAtOnce, expected) => {
    expect(roomOf(view('e', known), { ...SATURATION_POLICY, runsAtOnce })).toBe(expected);
  });
});
