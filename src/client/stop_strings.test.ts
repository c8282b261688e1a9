import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { StopStrings } from './stop_strings.ts';

/** Pushes the pieces until a hit; what was held back comes at the end. */
function run(stops: readonly string[], pieces: readonly string[], include = false) {
  const strings = new StopStrings(stops, include);
  let text = '';
  for (const [i, piece] of pieces.entries()) {
    const result = strings.push(piece);
    text += result.text;
    if (result.stop !== null) return { text, stop: result.stop, piece: i };
  }
  return { text: text + strings.flush(), stop: null, piece: null };
}

/** The definition: the stop string that is complete first in the whole text; ties go to the first in the list. */
function definition(stops: readonly string[], text: string, include: boolean) {
  for (let end = 1; end <= text.length; end++) {
    const stop = stops.find((candidate) => text.slice(0, end).endsWith(candidate));
    if (stop !== undefined) return { text: text.slice(0, include ? end : end - stop.length), stop };
  }
  return { text, stop: null };
}

function cut(text: string, cuts: readonly number[]): string[] {
  const at = [...new Set(cuts.map((c) => c % (text.length + 1)))].sort((a, b) => a - b);
  return [...at, text.length].map((end, i) => text.slice(i === 0 ? 0 : at[i - 1], end));
}

describe('stop strings', () => {
  test.each([
    [['b'], ['abc'], { text: 'a', stop: 'b' }],
    [['bc'], ['ab', 'cd'], { text: 'a', stop: 'bc' }],
    [['aab'], ['aa', 'a', 'b'], { text: 'a', stop: 'aab' }],
    [['abc', 'b'], ['abc'], { text: 'a', stop: 'b' }],
    [['ab', 'b'], ['ab'], { text: '', stop: 'ab' }],
    [['b', 'ab'], ['ab'], { text: 'a', stop: 'b' }],
    [['xyz'], ['ab', 'xy'], { text: 'abxy', stop: null }],
    [[], ['ab'], { text: 'ab', stop: null }],
  ])('%j in %j', (stops, pieces, expected) => {
    expect(run(stops, pieces)).toMatchObject(expected);
  });

  test('only what may become a stop string is held back', () => {
    const strings = new StopStrings(['</s>'], false);
    expect(strings.push('a < b</')).toEqual({ text: 'a < b', stop: null });
    expect(strings.push('s')).toEqual({ text: '', stop: null });
    expect(strings.push('x')).toEqual({ text: '</sx', stop: null });
  });

  test('included stop strings hold nothing back', () => {
    const strings = new StopStrings(['abc'], true);
    expect(strings.push('xab')).toEqual({ text: 'xab', stop: null });
    expect(strings.push('cd')).toEqual({ text: 'c', stop: 'abc' });
  });

  test('before min_tokens nothing stops; what begins before may end after', () => {
    const strings = new StopStrings(['ab'], false);
    expect(strings.push('ab', false)).toEqual({ text: 'ab', stop: null });
    expect(strings.push('a', false)).toEqual({ text: '', stop: null });
    expect(strings.push('b')).toEqual({ text: '', stop: 'ab' });
  });

  const letters = fc.string({ unit: fc.constantFrom('a', 'b', '<'), maxLength: 40 });
  const stopList = fc.array(fc.string({ unit: fc.constantFrom('a', 'b', '<'), minLength: 1, maxLength: 5 }), {
    maxLength: 4,
  });
  test('any chunking gives what the whole text gives', () => {
    fc.assert(
      fc.property(
        letters,
        stopList,
        fc.array(fc.nat(), { maxLength: 12 }),
        fc.boolean(),
        (text, stops, cuts, include) => {
          const { text: out, stop } = run(stops, cut(text, cuts), include);
          expect({ text: out, stop }).toEqual(definition(stops, text, include));
        },
      ),
      { numRuns: 2000 },
    );
  });

  test('nothing of a stop string is ever sent before it is complete', () => {
    fc.assert(
      fc.property(letters, stopList, (text, stops) => {
        const strings = new StopStrings(stops, false);
        let sent = '';
        for (const character of text) {
          const result = strings.push(character);
          sent += result.text;
          if (result.stop !== null) break;
        }
        expect(definition(stops, text, false).text.startsWith(sent)).toBe(true);
      }),
      { numRuns: 2000 },
    );
  });
});
