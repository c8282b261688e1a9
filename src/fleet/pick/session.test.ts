import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { SessionRing } from './session.ts';

const KEYS = Array.from({ length: 2000 }, (_, i) => `session-${i}`);
const idle = () => 0;

describe('sessions', () => {
  test('when an endpoint goes or comes only its keys move', () => {
    const endpoint = fc.string({ minLength: 1, maxLength: 8 });
    fc.assert(
      fc.property(fc.uniqueArray(endpoint, { minLength: 2, maxLength: 12 }), fc.nat(), (ids, pick) => {
        const gone = ids[pick % ids.length] as string;
        const all = new SessionRing(ids);
        const left = new SessionRing(ids.filter((id) => id !== gone).reverse());
        for (const key of KEYS.slice(0, 300)) {
          const before = all.place(key, idle);
          const after = left.place(key, idle);
          if (before !== gone) expect(after).toBe(before);
          else expect(after).not.toBe(gone);
          // The same as one that is there and not to be chosen.
          expect(all.place(key, (id) => (id === gone ? null : 0))).toBe(after);
        }
      }),
      { seed: 3, numRuns: 40 },
    );
  });

  test('none is loaded beyond 1.25 times the mean, whatever the keys', () => {
    const ids = ['a', 'b', 'c', 'd', 'e'];
    const ring = new SessionRing(ids);
    const loads = new Map(ids.map((id) => [id, 0]));
    for (let i = 0; i < 3000; i++) {
      // Every other request is of one hot session.
      const key = i % 2 === 0 ? 'hot' : `k${i}`;
      const id = ring.place(key, (of) => loads.get(of) ?? null) as string;
      loads.set(id, (loads.get(id) as number) + 1);
      expect(Math.max(...loads.values())).toBeLessThanOrEqual(Math.ceil((1.25 * (i + 1)) / ids.length));
    }
  });

  test('keys spread over the endpoints', () => {
    const ids = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'];
    const ring = new SessionRing(ids);
    const counts = new Map<string | null, number>();
    for (const key of KEYS) counts.set(ring.place(key, idle), (counts.get(ring.place(key, idle)) ?? 0) + 1);
    expect(counts.size).toBe(8);
    for (const count of counts.values()) expect(Math.abs(count - 250)).toBeLessThan(100);
  });

  test('none when there is none', () => {
    expect(new SessionRing([]).place('k', idle)).toBeNull();
    expect(new SessionRing(['a']).place('k', () => null)).toBeNull();
  });
});
