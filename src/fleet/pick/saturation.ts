import type { EndpointView } from './scorers.ts';

export interface SaturationPolicy {
  readonly queueFull: number;
  readonly kvFull: number;
  readonly staleMs: number;
}

export declare const SATURATION_POLICY: SaturationPolicy;
/** 1 and more = saturated; a stale sample is 1. */
export declare function endpointSaturation(endpoint: EndpointView, policy?: SaturationPolicy): number;
/** Mean of its endpoints'; 1 without any. */
export declare function poolSaturation(endpoints: readonly EndpointView[], policy?: SaturationPolicy): number;
/** Requests it can get now without a queue of its own growing beyond the limit; at least 1 when it has none of ours. */
export declare function roomOf(endpoint: EndpointView, policy?: SaturationPolicy): number;
