import { describe, expect, it } from 'vitest';
import { TokenmillError } from '../../base/errors.ts';
import { compileFormula, evaluateFormula } from './formula.ts';

/** a = 4, b = 0.5, c has no value. */
const VALUES = new Map([
  ['a', 4],
  ['b', 0.5],
]);

function result(text: string): unknown {
  return evaluateFormula(compileFormula(text, ['a', 'b', 'c']), VALUES);
}

function refusal(text: string): TokenmillError {
  try {
    compileFormula(text, ['a', 'b', 'c']);
  } catch (error) {
    if (error instanceof TokenmillError) return error;
    throw error;
  }
  throw new Error(`accepted: ${text.slice(0, 100)}`);
}

describe('formula', () => {
  it.each<[string, number | null]>([
    ['a', 4],
    ['(a + b) / 2', 2.25],
    ['a * 0.3 + b * 0.7', 4 * 0.3 + 0.5 * 0.7],
    ['a - 6', -2],
    ['a > b ? a : b', 4],
    ['a > 5 ? 1 : a > 3 ? 2 : 3', 2],
    ['max([a, 1])', 4],
    ['max(a, b, [7, 2])', 7],
    ['min([a, b])', 0.5],
    ['sum([a, b, 1])', 5.5],
    ['sum([a, b], # * 2)', 9],
    ['mean([a, b])', 2.25],
    ['median([a, b, 9])', 4],
    ['median([a, b])', 2.25],
    ['count([a, b], # > 1)', 1],
    ['count([a > 1, b > 1, true])', 2],
    ['any([a, b], {# > 3}) ? 1 : 0', 1],
    ['all([a, b], {# > 3}) ? 1 : 0', 0],
    ['none([a, b], # > 9) ? 1 : 0', 1],
    ['one([a, b], # > 3) ? 1 : 0', 1],
    ['len(filter([a, b], # > 1))', 1],
    ['sum(map([a, b], # + 1))', 6.5],
    // Precedence and associativity.
    ['2 ** 3 ** 2', 512],
    ['-2 ** 2', -4],
    ['2 + 3 * a - 1', 13],
    ['10 - 4 - 3', 3],
    ['a ^ 2', 16],
    ['not (a > 5) and b < 1 or false ? 1 : 2', 1],
    ['!(a == 4) ? 1 : 2', 2],
    ['a == 4 && 1 == 1.0 && nil == nil && [1] == [1.0] && a != nil ? 1 : 2', 1],
    // Whole numbers are int64 until they meet a fraction.
    ['7 % 4', 3],
    ['-7 % 4', -3],
    ['int(a) % 3', 1],
    ['7 / 2', 3.5],
    ['9223372036854775807 + 1', -(2 ** 63)],
    ['int(-2.7)', -2],
    ['round(2.5) + round(-2.5) + ceil(b) + floor(b) + abs(-1)', 2],
    ['float(3)', 3],
    ['.5e1 + 1.5', 6.5],
    // Nothing.
    ['c ?? a', 4],
    ['c ?? b ?? 3', 0.5],
    ['1 + (c ?? 2)', 3],
    ['2 * c ?? 3', 6],
    ['c ?? nil', null],
    ['a > 1 ? a : c', 4],
    ['a > 1 || c > 1 ? 1 : 2', 1],
  ])('%s', (text, value) => {
    expect(result(text)).toEqual({ value });
  });

  it.each(['c', 'a + c', 'c > 1 ? 1 : 2', 'max([a, c])', 'sum([a, c])', 'a > 1 ? c : a', '-c', 'float(c)'])(
    'fails where a value it needs is missing: %s',
    (text) => {
      expect(result(text)).toEqual({ failed: expect.stringMatching(/not nil.* at position \d+\.$/) });
    },
  );

  it('gives infinity for a division by zero, as doubles do', () => {
    expect(result('a / 0')).toEqual({ value: Number.POSITIVE_INFINITY });
  });

  it.each<[string, RegExp]>([
    ['', /unexpected end at position 1/],
    ['   ', /unexpected end at position 1/],
    ['a +', /unexpected end at position 4/],
    ['a b', /unexpected "b" at position 3/],
    ['(a', /where "\)" was expected at position 3/],
    ['[a, b', /where "," was expected at position 6/],
    ['max(a b)', /unexpected "b", where "," was expected at position 7/],
    ['a ? b', /where ":" was expected/],
    ['a ; b', /unexpected ";" at position 3/],
    ['"text"', /unexpected "\\"" at position 1/],
    ['a.b', /unexpected "\." at position 2/],
    ['a ?? b + 1', /"\+" after "\?\?" needs parentheses/],
    ['system(1)', /the function "system" is not supported .* at position 1/],
    ['a + constructor(1)', /the function "constructor" is not supported .* at position 5/],
    ['a + __proto__', /no trigger has the name "__proto__" at position 5/],
    ['d + 1', /no trigger has the name "d" at position 1/],
    ['true ? 1 : toString', /no trigger has the name "toString"/],
    ['let x = 1', /unexpected "=" at position 7/],
    ['max()', /max with 0 arguments/],
    ['any([a])', /any with 1 arguments/],
    ['# + 1', /"#" outside of a condition/],
    ['sum(#, # > 1)', /"#" outside of a condition on the items of an array at position 5/],
    ['a > b', /the result needs a number, not a boolean/],
    ['[a, b]', /the result needs a number, not an array/],
    ['nil', /the result needs a number, not nil/],
    ['a && b', /&& needs true or false, not a number/],
    ['a ? 1 : 2', /\? needs true or false, not a number/],
    ['a % 2', /"%" of what is not a whole number .* at position 3/],
    ['1 % 0', /"%" by zero/],
    ['true + 1', /\+ needs a number, not a boolean/],
    ['max([])', /min or max of nothing/],
    ['sum(a)', /sum needs an array, not a number/],
    ['[[1]] == [[1]] ? 1 : 2', /an array in an array is not supported/],
    ['99999999999999999999', /does not fit 64 bits/],
  ])('refuses %s', (text, message) => {
    const error = refusal(text);
    expect(error.code).toBe('invalid_manifest');
    expect(error.message).toMatch(/at position \d+\.$/);
    expect(error.message).toMatch(message);
  });

  it('has bounds: length, nesting, steps', () => {
    expect(refusal('1+'.repeat(3000)).message).toMatch(/longer than the 4096 characters/);
    for (const [open, close] of [
      ['(', ')'],
      ['[', ']'],
      ['-', ''],
      ['!', ''],
      ['max(', ')'],
      ['1 ? 1 : ', ''],
      ['1 ** ', ''],
    ] as const) {
      expect(refusal(`${open.repeat(400)}1${close.repeat(400)}`).message).toMatch(/nested deeper than 64/);
    }
    const wide = `[${'1,'.repeat(40)}1]`;
    const nested = `sum(${wide}, sum(${wide}, sum(${wide}, 1)))`;
    expect(refusal(nested).message).toMatch(/more than 20000 steps/);
    // As long as is allowed, and flat: no bound is near.
    expect(evaluateFormula(compileFormula(`${'1+'.repeat(2047)}1`, []), VALUES)).toEqual({ value: 2048 });
  });
});
