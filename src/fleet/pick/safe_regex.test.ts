import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { SafeRegex } from './safe_regex.ts';

/** Patterns over a, b and a digit that both engines read the same way. */
const patterns = fc.letrec<{ pattern: string; term: string; atom: string }>((tie) => ({
  pattern: fc
    .array(fc.array(tie('term'), { maxLength: 2 }), { minLength: 1, maxLength: 2 })
    .map((choices) => choices.map((terms) => terms.join('')).join('|')),
  term: fc
    .tuple(tie('atom'), fc.constantFrom('', '', '', '*', '+', '?', '{2}', '{0,2}', '{1,}', '*?', '+?', '{0}'))
    .map(([atom, repeat]) => (/^[\^$]$/.test(atom) ? atom : atom + repeat)),
  atom: fc.oneof(
    { maxDepth: 2, depthIdentifier: 'p' },
    fc.constantFrom(
      'a',
      'b',
      '.',
      '[ab]',
      '[^a]',
      '\\d',
      '\\D',
      '\\w',
      '\\W',
      '\\s',
      '[a-c1]',
      '[\\d-]',
      '[^\\W]',
      '\\.',
      '^',
      '$',
      '\\x61',
    ),
    tie('pattern').map((inner) => `(${inner})`),
    tie('pattern').map((inner) => `(?:${inner})`),
  ),
}));
const texts = fc.string({ unit: fc.constantFrom('a', 'b', '1', '-', '.', ' ', '\n', 'é'), maxLength: 5 });

describe('safe regular expressions', () => {
  test('match what those of JavaScript match whole', () => {
    fc.assert(
      fc.property(patterns.pattern, fc.array(texts, { minLength: 1, maxLength: 8 }), (pattern, given) => {
        const safe = new SafeRegex(pattern);
        const plain = new RegExp(`^(?:${pattern})$`);
        for (const text of given) {
          // JavaScript's `.` leaves out \r and two more line ends, its \s has all of Unicode's; RE2's do not.
          expect(safe.test(text), `${pattern} on ${JSON.stringify(text)}`).toBe(plain.test(text));
        }
      }),
      { seed: 13, numRuns: 3000 },
    );
  });

  test.each<[string, string, boolean]>([
    ['/v1/models/.*', '/v1/models/a/b', true],
    ['/v1/models', '/v1/models/', false],
    ['', '', true],
    ['a|', '', true],
    ['[]a]+', ']a', true],
    ['[a-]+', 'a-', true],
    ['a{,2}', 'a{,2}', true],
    ['(a+)+b', `${'a'.repeat(5000)}`, false],
    ['(a|a)*(a|a)*(a|a)*b', `${'a'.repeat(5000)}`, false],
    ['(.*)(.*)(.*)(.*)(.*)x', 'a'.repeat(16_384), false],
    ['.*', 'a'.repeat(16_385), false],
  ])('%s on a text: %s', (pattern, text, expected) => {
    expect(new SafeRegex(pattern).test(text)).toBe(expected);
  });

  test.each<[string, string]>([
    ['(?=a)', '(?=, which is not supported'],
    ['(?i)a', '(?i, which is not supported'],
    ['(a)\\1', '\\1, which is not supported'],
    ['\\ba', '\\b, which is not supported'],
    ['\\pL', '\\p, which is not supported'],
    ['[[:alpha:]]', '[: :]'],
    ['*a', 'nothing before it'],
    ['a**', 'repeats a repetition'],
    ['^*', 'repeats ^ or $'],
    ['a{3,2}', 'at most 1000 and ascending'],
    ['a{1001}', 'at most 1000 and ascending'],
    ['(a{1000}){1000}', 'more than 2000 steps'],
    ['((((){1000}){1000}){1000}){1000}', 'more than 2000 steps'],
    ['(a', 'a ( without its )'],
    ['a)', 'a ) without its ('],
    ['[a', 'ends too early'],
    ['a\\', 'ends too early'],
    ['[b-a]', 'does not ascend'],
    [`${'('.repeat(60)}a${')'.repeat(60)}`, 'more than 50 groups'],
    ['a'.repeat(1025), 'longer than 1024'],
  ])('%s is refused by name', (pattern, message) => {
    expect(() => new SafeRegex(pattern)).toThrow(message);
  });
});
