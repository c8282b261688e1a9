/** Monotonic time in milliseconds, passed in so that decision code reads no clock and tests run in virtual time. */
export interface Clock {
  now(): number;
}

/** The process clock: milliseconds since the time origin, shared by all threads of the process. */
export const systemClock: Clock = { now: () => performance.timeOrigin + performance.now() };
