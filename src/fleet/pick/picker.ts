/**
 * Endpoint choice: filters, weighted scorers, then the best score, ties by lot (llm-d-router's scheduling profile). Pure but for
 * the states it reads.
 */
import { mix32 } from './hash.ts';
import type { PrefixIndex } from './prefix_index.ts';
import { endpointSaturation, isFresh, SATURATION_POLICY } from './saturation.ts';
import { type EndpointView, type RequestFacts, SCORERS, type ScorerInput, type ScorerWeights } from './scorers.ts';
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

interface Ranked extends Candidate {
  readonly saturated: boolean;
  readonly lot: number;
}

/**
 * Best first: the first is asked, the others are its fallbacks. Empty when none is available. Saturated endpoints come last;
 * when all are, only their scores count. The same `seed` (32 bits) breaks ties the same way.
 */
export function pickEndpoints(
  policy: PickPolicy,
  state: PickState,
  endpoints: readonly EndpointView[],
  request: RequestFacts,
  seed: number,
): readonly Candidate[] {
  const usable: EndpointView[] = [];
  const indexes: number[] = [];
  for (let index = 0; index < endpoints.length; index++) {
    const endpoint = endpoints[index] as EndpointView;
    if (!endpoint.available) continue;
    usable.push(endpoint);
    indexes.push(index);
  }
  if (usable.length === 0) return [];
  const scores = weigh(policy.weights, scorerInput(policy, state, usable, request));
  const saturation = { ...SATURATION_POLICY, staleMs: policy.staleMs };
  const ranked: Ranked[] = usable.map((endpoint, i) => ({
    id: endpoint.id,
    index: indexes[i] as number,
    score: scores[i] as number,
    // Not known is no reason to come last here: a gateway whose samples fail must still spread its requests.
    saturated: isFresh(endpoint, policy.staleMs) && endpointSaturation(endpoint, saturation) > 1,
    lot: mix32(seed ^ Math.imul(i + 1, 0x9e3779b9)),
  }));
  ranked.sort((a, b) => Number(a.saturated) - Number(b.saturated) || b.score - a.score || a.lot - b.lot);
  return ranked;
}

/** For `x-gateway-destination-endpoint-scores`. */
export function scoresHeader(candidates: readonly Candidate[]): string {
  return candidates.map(({ id, score }) => `${id}=${score.toFixed(3)}`).join(',');
}

function scorerInput(
  policy: PickPolicy,
  { prefixes, sessions }: PickState,
  endpoints: readonly EndpointView[],
  request: RequestFacts,
): ScorerInput {
  const matched = new Int32Array(endpoints.length);
  const { prefix, sessionKey } = request;
  const ids = endpoints.map(({ id }) => id);
  if (prefix !== null && prefixes !== null) prefixes.match(prefix, ids, matched);
  const indexOf = (id: string) => ids.indexOf(id);
  const session =
    sessionKey === null || sessions === null
      ? null
      : sessions.place(sessionKey, (id) => endpoints[indexOf(id)]?.inFlight ?? null);
  return {
    endpoints,
    fresh: endpoints.map((endpoint) => isFresh(endpoint, policy.staleMs)),
    request,
    matched,
    blocks: (prefix?.length ?? 0) >> 1,
    sessionIndex: session === null ? -1 : indexOf(session),
  };
}

/** Weighted means of the scores. */
function weigh(weights: ScorerWeights, input: ScorerInput): Float64Array {
  const count = input.endpoints.length;
  const sums = new Float64Array(count);
  const scores = new Float64Array(count);
  let total = 0;
  for (const scorer of SCORERS) {
    const weight = weights[scorer.name];
    if (weight === 0) continue;
    scorer.score(input, scores);
    fillUnknown(scores);
    for (let i = 0; i < count; i++) {
      const score = Math.min(1, Math.max(0, scores[i] as number));
      sums[i] = (sums[i] as number) + weight * score;
    }
    total += weight;
  }
  if (total > 0) for (let i = 0; i < count; i++) sums[i] = (sums[i] as number) / total;
  return sums;
}

function fillUnknown(scores: Float64Array): void {
  let sum = 0;
  let known = 0;
  for (const score of scores) {
    if (Number.isNaN(score)) continue;
    sum += score;
    known++;
  }
  if (known === scores.length) return;
  const mean = known === 0 ? 1 : sum / known;
  for (let i = 0; i < scores.length; i++) if (Number.isNaN(scores[i])) scores[i] = mean;
}
