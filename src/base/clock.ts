/** Monotonic time in milliseconds, passed in so that decision code reads no clock and tests run in virtual time. */
export interface Clock {
  now(): number;
}

/** Asked for once: a look at it costs as much as one at the time. */
const originMs = performance.timeOrigin;

/** The process clock: milliseconds of wall time at the start plus monotonic ones since, the same on all threads of the process. */
export const systemClock: Clock = { now: () => originMs + performance.now() };
