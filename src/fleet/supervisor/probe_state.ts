/**
 * The kubelet's rules of probes, without a clock or a socket: when the next look is due, and what its answer changes. Until a
 * replica is ready it is looked at more often than the period says, so that a cold start does not wait for the next look;
 * failures still count once a period, as the kubelet counts them.
 */
import type { ProbeSpec } from '../spec/fleet_spec.ts';

export interface ProbeState {
  /** Since when the initial delay runs, ms. */
  readonly since: number;
  readonly nextAt: number;
  /** Before this, failures do not count; ms. */
  readonly countsAt: number;
  readonly successes: number;
  readonly failures: number;
  /** Verdict so far; null = none. */
  readonly passing: boolean | null;
}

/** Between two looks at a replica that has not answered yet, ms. */
const EAGER_MS = 100;

export function newProbe(spec: ProbeSpec, now: number): ProbeState {
  const first = now + spec.initialDelayMs;
  return { since: now, nextAt: first, countsAt: first, successes: 0, failures: 0, passing: null };
}

export function isDue(state: ProbeState, now: number): boolean {
  return now >= state.nextAt;
}

/** A look has begun: none beside it. */
export function looking(state: ProbeState, spec: ProbeSpec, now: number): ProbeState {
  return { ...state, nextAt: now + spec.timeoutMs + spec.periodMs };
}

/** @param eager look again soon while it does not pass */
export function afterLook(state: ProbeState, spec: ProbeSpec, ok: boolean, now: number, eager: boolean): ProbeState {
  if (ok) {
    const successes = state.successes + 1;
    const passing = successes >= spec.successThreshold ? true : state.passing;
    const nextAt = now + (eager && passing !== true ? Math.min(EAGER_MS, spec.periodMs) : spec.periodMs);
    return { ...state, nextAt, countsAt: now + spec.periodMs, successes, failures: 0, passing };
  }
  const counts = now >= state.countsAt;
  const failures = state.failures + (counts ? 1 : 0);
  const passing = failures >= spec.failureThreshold ? false : state.passing;
  return {
    ...state,
    nextAt: now + (eager ? Math.min(EAGER_MS, spec.periodMs) : spec.periodMs),
    countsAt: counts ? now + spec.periodMs : state.countsAt,
    successes: 0,
    failures,
    passing,
  };
}
