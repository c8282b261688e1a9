import { describe, expect, it } from 'vitest';
import { median, percentile, summarize } from './statistics.ts';

describe('percentile', () => {
  // numpy.percentile([1, 2, 3, 4], [0, 25, 50, 90, 100]) = [1, 1.75, 2.5, 3.7, 4]
  it('interpolates as numpy does', () => {
    const values = [1, 2, 3, 4];
    expect([0, 25, 50, 90, 100].map((p) => percentile(values, p))).toEqual([1, 1.75, 2.5, 3.7, 4]);
  });

  it('of nothing is not a number', () => {
    expect(percentile([], 50)).toBeNaN();
  });
});

describe('summarize', () => {
  it('describes unsorted values without touching them', () => {
    const values = [4, 1, 3, 2];
    const summary = summarize(values);
    expect(values).toEqual([4, 1, 3, 2]);
    expect(summary).toMatchObject({ count: 4, mean: 2.5, min: 1, max: 4, p50: 2.5 });
    expect(summary?.std).toBeCloseTo(Math.sqrt(1.25), 12);
  });

  it('has nothing to say of nothing', () => {
    expect(summarize([])).toBeNull();
  });

  it('takes the middle', () => {
    expect(median([9, 1, 5])).toBe(5);
  });
});
