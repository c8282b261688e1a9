import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  type Amount,
  cancelReservation,
  initialUsage,
  type KeyLimits,
  type KeyUsage,
  rateLimitHeaders,
  reserve,
  restoredUsage,
  settle,
} from './rate_limit.ts';

const FREE: KeyLimits = { requestsPerMin: null, tokensPerMin: null, maxParallel: null, budget: null };
const of = (tokens: number, cost = 0): Amount => ({ tokens, cost });

/** Of a key; throws what was refused. */
class Key {
  usage: KeyUsage = initialUsage(0);
  limits: KeyLimits;

  constructor(limits: Partial<KeyLimits>) {
    this.limits = { ...FREE, ...limits };
  }

  ask(amount: Amount, now: number): string {
    const reserved = reserve(this.limits, this.usage, amount, now);
    this.usage = JSON.parse(JSON.stringify(reserved.usage)) as KeyUsage;
    return reserved.ok ? 'ok' : `${reserved.status} ${reserved.reason} ${reserved.retryAfterMs}`;
  }

  end(estimate: Amount, actual: Amount, now: number): void {
    this.usage = settle(this.limits, this.usage, estimate, actual, now);
  }
}

describe('rate limits', () => {
  test('requests: a minute of them at once, then at their rate', () => {
    const key = new Key({ requestsPerMin: 60 });
    for (let i = 0; i < 60; i++) expect(key.ask(of(0), 0)).toBe('ok');
    expect(key.ask(of(0), 0)).toBe('429 requests 1000');
    expect(key.ask(of(0), 400)).toBe('429 requests 600');
    expect(key.ask(of(0), 1000)).toBe('ok');
    // A clock that goes back gives nothing.
    expect(key.ask(of(0), 500)).toBe('429 requests 1000');
    expect(key.ask(of(0), 1000)).toBe('429 requests 1000');
  });

  test('tokens: the estimate is reserved, the true count settles it, aborted or not', () => {
    const key = new Key({ tokensPerMin: 1000 });
    expect(key.ask(of(1001), 0)).toBe('429 too large null');
    expect(key.ask(of(900), 0)).toBe('ok');
    expect(key.ask(of(200), 0)).toBe('429 tokens 6000');
    // Aborted after 100.
    key.end(of(900), of(100), 0);
    expect(key.ask(of(200), 0)).toBe('ok');
    // More than was reserved: the rest is owed.
    key.end(of(200), of(1400), 0);
    expect(key.ask(of(1), 0)).toBe('429 tokens 30060');
    expect(key.ask(of(1), 30_060)).toBe('ok');
  });

  test('at once', () => {
    const key = new Key({ maxParallel: 2 });
    expect(key.ask(of(1), 0)).toBe('ok');
    expect(key.ask(of(1), 0)).toBe('ok');
    expect(key.ask(of(1), 0)).toBe('429 parallel null');
    key.end(of(1), of(0), 1);
    expect(key.ask(of(1), 1)).toBe('ok');
    key.usage = restoredUsage(key.usage);
    expect(key.ask(of(1), 1)).toBe('ok');
  });

  test('budgets: what is in flight counts, and a new period begins', () => {
    const key = new Key({ budget: { max: 10, periodMs: 1000 } });
    expect(key.ask(of(0, 6), 0)).toBe('ok');
    expect(key.ask(of(0, 6), 300)).toBe('400 budget 700');
    key.end(of(0, 6), of(0, 2), 400);
    expect(key.ask(of(0, 8), 500)).toBe('ok');
    // Of the last period; it is paid in this one.
    key.end(of(0, 8), of(0, 8), 2500);
    expect(key.ask(of(0, 3), 2600)).toBe('400 budget 400');
    expect(key.ask(of(0, 3), 3000)).toBe('ok');
    const forEver = new Key({ budget: { max: 1, periodMs: null } });
    expect(forEver.ask(of(0, 2), 0)).toBe('400 budget null');
  });

  test('limits that change hold at once', () => {
    const key = new Key({ requestsPerMin: 100 });
    expect(key.ask(of(0), 0)).toBe('ok');
    key.limits = { ...FREE, requestsPerMin: 1 };
    expect(key.ask(of(0), 0)).toBe('ok');
    expect(key.ask(of(0), 0)).toBe('429 requests 60000');
    key.limits = { ...FREE, requestsPerMin: 0 };
    expect(key.ask(of(0), 1e6)).toBe('429 requests null');
    key.limits = FREE;
    expect(key.ask(of(1e12), 1e6)).toBe('ok');
  });

  test('headers as those of OpenAI', () => {
    const key = new Key({ requestsPerMin: 60, tokensPerMin: 1000 });
    const reserved = reserve(key.limits, key.usage, of(150), 0);
    expect(rateLimitHeaders(reserved.numbers)).toEqual({
      'x-ratelimit-limit-requests': '60',
      'x-ratelimit-remaining-requests': '59',
      'x-ratelimit-reset-requests': '1s',
      'x-ratelimit-limit-tokens': '1000',
      'x-ratelimit-remaining-tokens': '850',
      'x-ratelimit-reset-tokens': '9s',
    });
    expect(rateLimitHeaders(reserve(FREE, key.usage, of(1), 0).numbers)).toEqual({});
    const slow = reserve({ ...FREE, requestsPerMin: 1 }, key.usage, of(0), 0).numbers;
    expect(rateLimitHeaders(slow)['x-ratelimit-reset-requests']).toBe('1m0s');
    expect(rateLimitHeaders({ ...slow, resetRequestsMs: 12 })['x-ratelimit-reset-requests']).toBe('12ms');
  });

  test('never more than a minute of it beyond the rate, and the time it names is enough', () => {
    const step = fc.record({
      afterMs: fc.integer({ min: 0, max: 5000 }),
      estimate: fc.integer({ min: 0, max: 120 }),
      share: fc.double({ min: 0, max: 1, noNaN: true }),
      cancelled: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 150 }), fc.integer({ min: 1, max: 37 }), (steps, requestsPerMin) => {
        const key = new Key({
          requestsPerMin,
          tokensPerMin: 100,
          maxParallel: 50,
          budget: { max: 3000, periodMs: null },
        });
        let [now, requests, tokens, spent] = [0, 0, 0, 0];
        for (const { afterMs, estimate, share, cancelled } of steps) {
          now += afterMs;
          const reserved = reserve(key.limits, key.usage, of(estimate, estimate), now);
          if (!reserved.ok) {
            if (reserved.retryAfterMs === null) continue;
            expect(reserved.retryAfterMs).toBeGreaterThan(0);
            expect(reserve(key.limits, reserved.usage, of(estimate, estimate), now + reserved.retryAfterMs).ok).toBe(
              true,
            );
            continue;
          }
          if (cancelled) {
            key.usage = cancelReservation(key.limits, reserved.usage, of(estimate, estimate), now);
            continue;
          }
          const actual = Math.floor(estimate * share);
          key.usage = settle(key.limits, reserved.usage, of(estimate, estimate), of(actual, actual), now);
          requests++;
          tokens += actual;
          spent += actual;
          expect(requests).toBeLessThanOrEqual(requestsPerMin * (1 + now / 60_000) + 1e-6);
          expect(tokens).toBeLessThanOrEqual(100 * (1 + now / 60_000) + 1e-6);
          expect(spent).toBeLessThanOrEqual(3000);
          expect(key.usage).toMatchObject({ parallel: 0, reserved: 0, spent });
        }
      }),
      { seed: 21, numRuns: 300 },
    );
  });
});
