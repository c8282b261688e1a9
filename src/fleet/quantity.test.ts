import { describe, expect, it } from 'vitest';
import { parseQuantity } from './quantity.ts';

describe('quantities', () => {
  it.each([
    ['0', 0],
    ['5', 5],
    ['300m', 0.3],
    ['0.3', 0.3],
    ['700m', 0.7000000000000001],
    ['0.7', 0.7000000000000001],
    ['9m', 0.009000000000000001],
    ['0.009', 0.009000000000000001],
    ['1.5k', 1500],
    ['100k', 100_000],
    ['2Gi', 2 ** 31],
    ['1.5Ki', 1536],
    ['1e3', 1000],
    ['-250m', -0.25],
    ['.5', 0.5],
    ['12E', 12e18],
  ])('%s', (text, value) => {
    expect(parseQuantity(text)).toBe(value);
  });

  it.each(['', '.', 'm', '1 Gi', '1gi', '0x10', '1e', '--1', '1mi', '1e1000'])('refuses %j', (text) => {
    expect(() => parseQuantity(text)).toThrow(/is not a quantity/);
  });
});
