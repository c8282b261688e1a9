import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { RevisionRoute } from '../gateway/routing_table.ts';
import { chooseRevision, type Split, type SplitService } from './split.ts';

const revision = (id: string, percent: number, tags: readonly string[] = []): RevisionRoute => ({
  id,
  percent,
  tags,
  endpoints: [],
});

function service(
  shares: Readonly<Record<string, number>>,
  traffic: Partial<SplitService['traffic']> = {},
): SplitService {
  return {
    id: 'default/llama',
    revisions: Object.entries(shares).map(([id, percent]) => revision(id, percent, [`tag-${id}`])),
    traffic: { pins: [], stickyBy: null, ...traffic },
  };
}

const headers = (given: Readonly<Record<string, string>>) => (name: string) => given[name];
const shown = (split: Split) => (split.kind === 'revision' ? `${split.revision.id} by ${split.by}` : split.kind);
const USERS = Array.from({ length: 4000 }, (_, i) => `user-${i}`);
const keyed = (of: SplitService, user: string) => {
  const split = chooseRevision(of, headers({ authorization: user }), 0);
  return split.kind === 'revision' ? split.revision.id : split.kind;
};
const STICKY = { stickyBy: 'Authorization' };

describe('split', () => {
  const pins = [
    { header: 'X-Beta', value: '1', to: 'canary' },
    { header: 'X-Beta', value: '2', to: 'tag-old' },
    { header: 'X-Beta', value: '3', to: 'gone' },
  ];
  test.each<[Readonly<Record<string, string>>, number, string]>([
    [{}, 0, 'old by draw'],
    [{}, 0.8999, 'old by draw'],
    [{}, 0.9, 'canary by draw'],
    [{}, 0.9999, 'canary by draw'],
    [{ 'x-beta': '1' }, 0, 'canary by pin'],
    [{ 'x-beta': '2' }, 0.95, 'old by pin'],
    // Its revision is no longer there.
    [{ 'x-beta': '3' }, 0, 'old by draw'],
    [{ 'x-beta': '4' }, 0, 'old by draw'],
    [{ 'x-tokenmill-revision': 'tag-canary', 'x-beta': '2' }, 0, 'canary by header'],
    [{ 'x-tokenmill-revision': 'zero' }, 0, 'zero by header'],
    [{ 'x-tokenmill-revision': 'nothing' }, 0, 'unknown'],
    [{ 'x-tokenmill-revision': '__proto__' }, 0, 'unknown'],
  ])('%j at %d -> %s', (given, draw, expected) => {
    expect(shown(chooseRevision(service({ zero: 0, old: 90, canary: 10 }, { pins }), headers(given), draw))).toBe(
      expected,
    );
  });

  test('all shares 0 is stopped, whoever asks', () => {
    const stopped = service({ old: 0, canary: 0 }, { pins });
    expect(chooseRevision(stopped, headers({ 'x-beta': '1' }), 0).kind).toBe('stopped');
    expect(chooseRevision(service({}), headers({}), 0).kind).toBe('stopped');
  });

  test('the same key meets the same revision, and a growing share only gains keys', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 100 }), fc.integer({ min: 0, max: 100 }), (a, b) => {
        const [low, high] = a < b ? [a, b] : [b, a];
        const before = service({ old: 100 - low, canary: low }, STICKY);
        // The order in the table does not matter.
        const after = service({ canary: high, old: 100 - high }, STICKY);
        for (const user of USERS.slice(0, 300)) {
          const [was, is] = [keyed(before, user), keyed(after, user)];
          if (was !== is) expect([was, is]).toEqual(['old', 'canary']);
          expect(keyed(before, user)).toBe(was);
        }
      }),
      { seed: 2, numRuns: 60 },
    );
  });

  test('of three revisions, one that takes its share from all only gains', () => {
    const before = service({ a: 60, b: 30, c: 10 }, STICKY);
    const after = service({ a: 40, b: 20, c: 40 }, STICKY);
    for (const user of USERS) {
      const [was, is] = [keyed(before, user), keyed(after, user)];
      if (was !== is) expect(is).toBe('c');
    }
  });

  test('keys have the shares that are asked for', () => {
    const counts = new Map<string, number>();
    const of = service({ a: 70, b: 25, c: 5, d: 0 }, STICKY);
    for (const user of USERS) counts.set(keyed(of, user), (counts.get(keyed(of, user)) ?? 0) + 1);
    expect([...counts.keys()].sort()).toEqual(['a', 'b', 'c']);
    for (const [id, share] of [
      ['a', 0.7],
      ['b', 0.25],
      ['c', 0.05],
    ] as const) {
      // Four standard deviations.
      const slack = 4 * Math.sqrt((share * (1 - share)) / USERS.length);
      expect(Math.abs((counts.get(id) as number) / USERS.length - share)).toBeLessThan(slack);
    }
  });

  test('without the header of the key it is a draw', () => {
    expect(shown(chooseRevision(service({ old: 50, canary: 50 }, STICKY), headers({}), 0.7))).toBe('canary by draw');
  });
});
