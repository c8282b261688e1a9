import type { PrefixIndex } from './prefix_index.ts';
import type { EndpointView, RequestFacts, ScorerWeights } from './scorers.ts';
import type { SessionRing } from './session.ts';

export interface PickPolicy {
  readonly weights: ScorerWeights;
  /** A sample older than this is not known, ms. */
  readonly staleMs: number;
}

export interface PickState {
  readonly prefixes: PrefixIndex | null;
  readonly sessions: SessionRing | null;
}

export interface Candidate {
  readonly id: string;
  /** Into the endpoints that were asked about. */
  readonly index: number;
  /** 0..1 */
  readonly score: number;
}

/** Best first: the first is asked, the others are its fallbacks. Empty when none is available. */
export declare function pickEndpoints(
  policy: PickPolicy,
  state: PickState,
  endpoints: readonly EndpointView[],
  request: RequestFacts,
  seed: number,
): readonly Candidate[];

/** For `x-gateway-destination-endpoint-scores`. */
export declare function scoresHeader(candidates: readonly Candidate[]): string;
