import fc from 'fast-check';
import { expect, it } from 'vitest';
import { EventBoundary } from './event_boundary.ts';

it('passes whole events only, and in the end every byte', () => {
  const text = fc.array(fc.constantFrom('data: a\n\n', 'data: bb\r\n\r\n', ': c\n', 'data: dddd\ndata: e\n\n'), {
    maxLength: 12,
  });
  fc.assert(
    fc.property(text, fc.array(fc.nat(100), { maxLength: 10 }), (events, places) => {
      const bytes = Buffer.from(events.join(''));
      const boundary = new EventBoundary();
      const cuts = [...places.map((place) => Math.min(place, bytes.length)), bytes.length].sort((a, b) => a - b);
      let passed = '';
      let at = 0;
      for (const cut of cuts) {
        if (cut === at) continue;
        passed += Buffer.concat([...boundary.pass([bytes.subarray(at, cut)])]).toString();
        expect(passed === '' || /\n\r?\n$/.test(passed)).toBe(true);
        at = cut;
      }
      expect(passed + (boundary.rest()?.toString() ?? '')).toBe(bytes.toString());
    }),
    { seed: 3, numRuns: 500 },
  );
});

it('does not keep an event without end', () => {
  const boundary = new EventBoundary();
  const block = Buffer.alloc(2 ** 20, 'x');
  boundary.pass([block]);
  expect(boundary.pass([block])[0]?.length).toBe(2 ** 21);
});
