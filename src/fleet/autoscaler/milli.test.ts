import { describe, expect, it } from 'vitest';
import { fromMilli, toMilli, truncatedMilli } from './milli.ts';

describe('thousandths', () => {
  it.each([
    [0, 0],
    [1, 1000],
    [3.9918, 3992],
    [0.0005, 1],
    [0.0015, 2],
    [1.0005, 1000],
    // Exact ties: to the even digit, where toFixed goes up.
    [0.0625, 62],
    [0.1875, 188],
    [0.3125, 312],
    [2.0625, 2062],
    [-1, 0],
    [-0, 0],
    [Number.NaN, 0],
    [Number.POSITIVE_INFINITY, 0],
  ])('%d is %d', (value, milli) => {
    expect(toMilli(value)).toBe(milli);
  });

  it('are read back as the double that the API gives', () => {
    expect(fromMilli(700)).toBe(0.7000000000000001);
    expect(fromMilli(300)).toBe(0.3);
  });

  it('are cut toward zero, and to the lowest int64 where they do not fit', () => {
    expect(truncatedMilli(-2.9)).toBe(-2);
    expect(truncatedMilli(-0.5)).toBe(0);
    expect(truncatedMilli(Number.NaN)).toBe(-(2 ** 63));
    expect(truncatedMilli(2 ** 63)).toBe(-(2 ** 63));
  });
});
