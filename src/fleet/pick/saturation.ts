/** How full endpoints are (llm-d-router's utilization detector), and how many requests one can get at once. */
import type { EndpointView } from './scorers.ts';

export interface SaturationPolicy {
  /** Requests waiting in an engine at which it is full. */
  readonly queueFull: number;
  /** Use of its KV cache at which it is full, 0..1. */
  readonly kvFull: number;
  /** A sample older than this is not known, ms. */
  readonly staleMs: number;
  /** Requests an engine runs at once (`max_num_seqs`); 0 = not known: what was sent since the sample counts as waiting. */
  readonly runsAtOnce: number;
}

export const SATURATION_POLICY: SaturationPolicy = { queueFull: 5, kvFull: 0.8, staleMs: 1000, runsAtOnce: 0 };

/** Of a sample: whether it may be believed. */
export function isFresh({ sampleAgeMs }: EndpointView, staleMs: number): boolean {
  return sampleAgeMs !== null && sampleAgeMs <= staleMs;
}

/** 1 and more = saturated; without a fresh sample it is 1. */
export function endpointSaturation(endpoint: EndpointView, policy: SaturationPolicy = SATURATION_POLICY): number {
  const { waiting, kvUsage } = endpoint;
  if (!isFresh(endpoint, policy.staleMs) || waiting === null || kvUsage === null) return 1;
  return Math.max(waiting / policy.queueFull, kvUsage / policy.kvFull);
}

/** Mean over its endpoints; 1 without any. */
export function poolSaturation(
  endpoints: readonly EndpointView[],
  policy: SaturationPolicy = SATURATION_POLICY,
): number {
  if (endpoints.length === 0) return 1;
  let sum = 0;
  for (const endpoint of endpoints) sum += endpointSaturation(endpoint, policy);
  return sum / endpoints.length;
}

/**
 * Requests the endpoint can get now before its own queue is full. An endpoint that nothing is known of, or that looks full and
 * has nothing of ours, gets one at a time: so nothing is held for ever.
 */
export function roomOf(endpoint: EndpointView, policy: SaturationPolicy = SATURATION_POLICY): number {
  const { available, inFlight, waiting, running, kvUsage } = endpoint;
  if (!available) return 0;
  const one = inFlight === 0 ? 1 : 0;
  if (!isFresh(endpoint, policy.staleMs) || waiting === null) return one;
  if (kvUsage !== null && kvUsage >= policy.kvFull) return one;
  const waitingNow = Math.max(waiting, inFlight - Math.max(running ?? 0, policy.runsAtOnce));
  return Math.max(one, policy.queueFull - waitingNow);
}
