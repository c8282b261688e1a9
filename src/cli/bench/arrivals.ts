/** When requests of a benchmark are sent. */
import type { Rng } from '../../base/rng.ts';

/**
 * Send times in seconds from the start, ascending. A Poisson process of `rate` requests a second: gaps are exponential and
 * independent, so bursts come as they come from many independent users. An infinite rate sends all at once.
 */
export function arrivalTimesS(count: number, rate: number, rng: Rng): number[] {
  const times: number[] = [];
  let now = 0;
  for (let i = 0; i < count; i++) {
    times.push(now);
    if (Number.isFinite(rate)) now += -Math.log(1 - rng.next()) / rate;
  }
  return times;
}
