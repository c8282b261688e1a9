import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { BREAKER_POLICY, Breaker, type Outcome } from './breaker.ts';
import { checkScenario } from './testdata/scenario.ts';

test('breaker scenario', () => {
  let breaker = new Breaker();
  let ids: string[] = [];
  const look = (now: number) => {
    const shown = ids.map((id) => {
      const state = breaker.isEjected(id, now) ? 'out' : 'in';
      return `${id} ${state}${breaker.allows(id, now) ? '' : ' closed'}`;
    });
    return [shown.join(', ')];
  };
  checkScenario('breaker.txt', (command, ...words) => {
    if (command === 'endpoints') {
      if (!words.some((id) => ids.includes(id))) breaker = new Breaker();
      ids = words;
      breaker.setEndpoints(ids);
      return [];
    }
    if (command === 'begin') {
      breaker.begin(words[1] as string, Number(words[0]));
      return look(Number(words[0]));
    }
    const now = Number(command);
    const [id = '', outcome = '', times = '1'] = words;
    if (id !== 'look') for (let i = 0; i < Number(times); i++) breaker.report(id, outcome as Outcome, now);
    return look(now);
  });
});

describe('breaker', () => {
  test('never leaves all out, nor more than the largest share (one excepted)', () => {
    const ids = ['a', 'b', 'c', 'd', 'e'];
    const event = fc.record({
      id: fc.constantFrom(...ids),
      outcome: fc.constantFrom<Outcome>('ok', 'serverError', 'gatewayFailure', 'gatewayFailure', 'neutral'),
      afterMs: fc.integer({ min: 0, max: 20_000 }),
      begins: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.array(event, { maxLength: 200 }), fc.integer({ min: 1, max: 5 }), (events, count) => {
        const known = ids.slice(0, count);
        const breaker = new Breaker({ ...BREAKER_POLICY, consecutiveGatewayFailures: 1 });
        breaker.setEndpoints(known);
        let now = 0;
        for (const { id, outcome, afterMs, begins } of events) {
          now += afterMs;
          if (begins) breaker.begin(id, now);
          breaker.report(id, outcome, now);
          const out = known.filter((other) => breaker.isEjected(other, now)).length;
          expect(out).toBeLessThan(count);
          expect(out).toBeLessThanOrEqual(Math.max(1, count / 2));
          expect(known.some((other) => !breaker.isEjected(other, now) || breaker.allows(other, now))).toBe(true);
        }
      }),
      { seed: 5, numRuns: 300 },
    );
  });

  test('an endpoint it has not been told of is allowed and kept nowhere', () => {
    const breaker = new Breaker();
    for (let i = 0; i < 10; i++) breaker.report('__proto__', 'serverError', i);
    expect(breaker.allows('__proto__', 20)).toBe(true);
    expect(breaker.isEjected('__proto__', 20)).toBe(false);
  });
});
