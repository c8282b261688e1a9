import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type Attempt, decideHedge, decideRetry, hedgeAt, RetryBudget } from './retry_budget.ts';

const FIRST: Attempt = { attempts: 1, maxAttempts: 3, answered: false, othersLeft: 2 };

describe('retry budget', () => {
  test('a share of the requests of the last ten seconds, and a floor', () => {
    const budget = new RetryBudget({ ratio: 0.2, floorPerS: 0.5 });
    for (let i = 0; i < 50; i++) budget.request(0);
    const taken = (now: number) => {
      let count = 0;
      while (budget.take(now)) count++;
      return count;
    };
    expect(taken(0)).toBe(15);
    expect(taken(9999)).toBe(0);
    // The requests are forgotten, and so are the retries.
    expect(taken(10_000)).toBe(5);
  });

  test('never more than its share within any ten slices', () => {
    const step = fc.record({ retry: fc.boolean(), afterMs: fc.integer({ min: 0, max: 700 }) });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 300 }), (steps) => {
        const budget = new RetryBudget({ ratio: 0.5, floorPerS: 0.1 });
        const seen: { readonly second: number; readonly retry: boolean }[] = [];
        let now = 0;
        for (const { retry, afterMs } of steps) {
          now += afterMs;
          const second = Math.floor(now / 1000);
          const inWindow = seen.filter((entry) => second - entry.second < 10);
          const retries = inWindow.filter((entry) => entry.retry).length;
          const allowed = 0.5 * (inWindow.length - retries) + 1;
          if (!retry) budget.request(now);
          else expect(budget.take(now)).toBe(retries + 1 <= allowed);
          if (!retry || retries + 1 <= allowed) seen.push({ second, retry });
        }
      }),
      { seed: 7, numRuns: 200 },
    );
  });
});

describe('retries', () => {
  test.each<[string, Partial<Attempt>, number | null, string]>([
    ['no answer', {}, null, 'retry'],
    ['500', {}, 500, 'retry'],
    ['503', {}, 503, 'retry'],
    ['429', {}, 429, 'retry'],
    ['501', {}, 501, 'not retryable'],
    ['400', {}, 400, 'not retryable'],
    ['an answer that has begun', { answered: true }, null, 'answered'],
    ['the last try', { attempts: 3 }, null, 'attempts'],
    ['no other endpoint', { othersLeft: 0 }, null, 'no endpoint'],
  ])('%s', (_, attempt, status, reason) => {
    const decision = decideRetry({ ...FIRST, ...attempt }, status, new RetryBudget(), 0);
    expect(decision).toEqual({ retry: reason === 'retry', reason });
  });

  test('without a budget there is none', () => {
    expect(decideRetry(FIRST, null, new RetryBudget({ ratio: 1, floorPerS: 0 }), 0).reason).toBe('budget');
  });

  test('hedges go out when it is time, and draw on the same budget', () => {
    const budget = new RetryBudget({ ratio: 0, floorPerS: 0.1 });
    expect(hedgeAt(FIRST, 0, 100)).toBeNull();
    expect(hedgeAt({ ...FIRST, answered: true }, 50, 100)).toBeNull();
    expect(hedgeAt({ ...FIRST, othersLeft: 0 }, 50, 100)).toBeNull();
    expect(hedgeAt(FIRST, 50, 100)).toBe(150);
    expect(decideHedge(FIRST, 50, 100, budget, 149)).toBe(false);
    expect(decideHedge(FIRST, 50, 100, budget, 150)).toBe(true);
    expect(decideHedge(FIRST, 50, 100, budget, 150)).toBe(false);
  });
});
