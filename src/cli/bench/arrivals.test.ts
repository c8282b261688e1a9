import { describe, expect, it } from 'vitest';
import { Rng } from '../../base/rng.ts';
import { arrivalTimesS } from './arrivals.ts';

describe('arrivals', () => {
  it('are a Poisson process: mean gap 1/rate, and the variance of the gaps its square', () => {
    const times = arrivalTimesS(20_001, 4, new Rng(1));
    const gaps = times.slice(1).map((time, index) => time - (times[index] as number));
    const mean = gaps.reduce((a, b) => a + b) / gaps.length;
    const variance = gaps.reduce((a, b) => a + (b - mean) ** 2, 0) / gaps.length;
    expect(Math.min(...gaps)).toBeGreaterThanOrEqual(0);
    // Five standard errors of each estimate.
    expect(Math.abs(mean - 0.25)).toBeLessThan((5 * 0.25) / Math.sqrt(20_000));
    expect(Math.abs(variance / 0.0625 - 1)).toBeLessThan(5 * Math.sqrt(8 / 20_000));
  });

  it('repeat with the seed and differ without it', () => {
    expect(arrivalTimesS(50, 2, new Rng(7))).toEqual(arrivalTimesS(50, 2, new Rng(7)));
    expect(arrivalTimesS(50, 2, new Rng(7))).not.toEqual(arrivalTimesS(50, 2, new Rng(8)));
  });

  it('are all at once at an infinite rate', () => {
    expect(arrivalTimesS(3, Number.POSITIVE_INFINITY, new Rng(0))).toEqual([0, 0, 0]);
  });
});
