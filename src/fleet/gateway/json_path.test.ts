import { describe, expect, it } from 'vitest';
import { compileCondition } from './json_path.ts';

/** The document of gjson's own README, with what its paths lead to. */
const DOCUMENT = {
  name: { first: 'Tom', last: 'Anderson' },
  age: 37,
  children: ['Sara', 'Alex', 'Jack'],
  'fav.movie': 'Deer Hunter',
  none: null,
  friends: [
    { first: 'Dale', last: 'Murphy', age: 44, nets: ['ig', 'fb', 'tw'] },
    { first: 'Roger', last: 'Craig', age: 68, nets: ['fb', 'tw'] },
    { first: 'Jane', last: 'Murphy', age: 47, nets: ['ig', 'tw'] },
  ],
};

describe('compileCondition', () => {
  it.each([
    ['name.last', true],
    ['name.middle', false],
    ['none', true],
    ['children', true],
    ['children.1', true],
    ['children.3', false],
    ['children.#', true],
    ['name.#', false],
    ['child*.2', true],
    ['c?ildren.0', true],
    ['fav\\.movie', true],
    ['fav.movie', false],
    ['friends.#.first', true],
    ['friends.1.last', true],
    ['friends.#(last=="Murphy").first', true],
    ['friends.#(last=="Smith").first', false],
    ['friends.#(last=="Murphy")#.first', true],
    ['friends.#(age>45)#.last', true],
    ['friends.#(age>450)', false],
    ['friends.#(first%"D*").last', true],
    ['friends.#(first!%"*").last', false],
    ['friends.#(nets.#(=="fb"))#.first', true],
    ['friends.#(nets.#(=="xx")).first', false],
    ['@this', true],
    ['[@this].#(age==37)', true],
    ['[@this].#(age==38)', false],
    ['name.__proto__', false],
    ['constructor', false],
  ])('%s exists: %s', (path, exists) => {
    expect(compileCondition(path)(DOCUMENT)).toBe(exists);
  });

  it.each(['', 'a|b', '@reverse', 'a.#(b==', 'a.#(b=={})', '{a,b}', '!"x"', 'x'.repeat(5000), 'a.'.repeat(100)])(
    'refuses %j',
    (path) => {
      expect(() => compileCondition(path)).toThrow(/condition/);
    },
  );
});
