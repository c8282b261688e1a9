export interface LoraState {
  readonly running: readonly string[];
  readonly waiting: readonly string[];
  readonly max: number;
}

/** What the gateway knows of an endpoint; null = not known, never 0. */
export interface EndpointView {
  readonly id: string;
  /** The breaker lets requests through. */
  readonly available: boolean;
  /** Of this gateway: requests and their tokens. */
  readonly inFlight: number;
  readonly inFlightTokens: number;
  /** Of the last sample. */
  readonly waiting: number | null;
  readonly running: number | null;
  /** 0..1 */
  readonly kvUsage: number | null;
  readonly lora: LoraState | null;
  readonly sampleAgeMs: number | null;
}

export interface RequestFacts {
  readonly prefix: PrefixHashes | null;
  readonly sessionKey: string | null;
  readonly lora: string | null;
  readonly promptTokens: number;
}

import type { PrefixHashes } from './prefix_index.ts';

export type ScorerName =
  | 'queue'
  | 'running'
  | 'kvCache'
  | 'prefix'
  | 'lora'
  | 'session'
  | 'activeRequests'
  | 'tokenLoad';
export type ScorerWeights = Readonly<Record<ScorerName, number>>;

/** Default weights with those of `GatewaySpec.scorers` (own names or llm-d's). @throws TokenmillError invalid_manifest */
export declare function scorerWeights(asked: Readonly<Record<string, number>>): ScorerWeights;
