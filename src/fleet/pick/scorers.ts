/**
 * The table of scorers (llm-d-router's plugins): each gives every candidate a score in 0..1. What is not known of an endpoint
 * counts as the mean of those of which it is known, so that silence neither draws requests nor drives them away.
 */
import { TokenmillError } from '../../base/errors.ts';
import type { PrefixHashes } from './prefix_index.ts';

export interface LoraState {
  readonly running: readonly string[];
  readonly waiting: readonly string[];
  /** Adapters that fit at once. */
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
}

export interface ScorerInput {
  readonly endpoints: readonly EndpointView[];
  /** Whether the sample of `endpoints[i]` is young enough. */
  readonly fresh: readonly boolean[];
  readonly request: RequestFacts;
  /** Blocks of the prompt that `endpoints[i]` has, of `blocks`. */
  readonly matched: Int32Array;
  readonly blocks: number;
  /** Index of the endpoint of the request's session, or -1. */
  readonly sessionIndex: number;
}

/** Writes a score for each endpoint; `Number.NaN` = not known. */
type Score = (input: ScorerInput, into: Float64Array) => void;

export interface Scorer {
  readonly name: string;
  /** Of llm-d-router's plugin, accepted in its place. */
  readonly alias: string;
  readonly weight: number;
  readonly doc: string;
  readonly score: Score;
}

/** In tokens: llm-d-router's. */
const TOKEN_LOAD_FULL = 4_194_304;

export const SCORERS = [
  {
    name: 'queue',
    alias: 'queue-scorer',
    weight: 2,
    doc: 'Requests waiting in the engine: the fewest 1, the most 0.',
    score: (input, into) => {
      // Where some have a queue, what was sent since the sample counts too: else all of it goes to the one that had none.
      const { endpoints, fresh } = input;
      const isQueued = endpoints.some(({ waiting }, i) => fresh[i] && waiting !== null && waiting > 0);
      fewest(input, into, ({ waiting, inFlight, running }) =>
        waiting !== null && isQueued ? Math.max(waiting, inFlight - (running ?? 0)) : waiting,
      );
    },
  },
  {
    name: 'running',
    alias: 'running-requests-size-scorer',
    weight: 0,
    doc: 'Requests running in the engine: the fewest 1, the most 0.',
    score: (input, into) => fewest(input, into, ({ running }) => running),
  },
  {
    name: 'kvCache',
    alias: 'kv-cache-utilization-scorer',
    weight: 2,
    doc: 'Free share of the KV cache.',
    score: ({ endpoints, fresh }, into) => {
      for (let i = 0; i < endpoints.length; i++) {
        const { kvUsage } = endpoints[i] as EndpointView;
        into[i] = kvUsage === null || !fresh[i] ? Number.NaN : 1 - kvUsage;
      }
    },
  },
  {
    name: 'prefix',
    alias: 'prefix-cache-scorer',
    weight: 3,
    doc: 'Share of the prompt whose blocks the endpoint has got before.',
    score: ({ endpoints, matched, blocks }, into) => {
      for (let i = 0; i < endpoints.length; i++) into[i] = blocks === 0 ? 0 : (matched[i] as number) / blocks;
    },
  },
  {
    name: 'lora',
    alias: 'lora-affinity-scorer',
    weight: 2,
    doc: 'Adapter: 1 running, 0.8 room for it, 0.6 waiting, 0 no room.',
    score: ({ endpoints, fresh, request }, into) => {
      for (let i = 0; i < endpoints.length; i++) {
        const { lora } = endpoints[i] as EndpointView;
        if (request.lora === null) into[i] = 1;
        else into[i] = lora === null || !fresh[i] ? Number.NaN : loraScore(lora, request.lora);
      }
    },
  },
  {
    name: 'session',
    alias: 'session-affinity-scorer',
    // More would move conversations off the prefix caches they are in whenever the bound moves their session.
    weight: 1,
    doc: 'The endpoint of the session 1, others 0.',
    score: ({ endpoints, sessionIndex }, into) => {
      for (let i = 0; i < endpoints.length; i++) into[i] = i === sessionIndex ? 1 : 0;
    },
  },
  {
    name: 'activeRequests',
    alias: 'active-request-scorer',
    weight: 1,
    doc: 'Requests this gateway has there: none 1, the most 0.',
    score: ({ endpoints }, into) => {
      let most = 1;
      for (const { inFlight } of endpoints) most = Math.max(most, inFlight);
      for (let i = 0; i < endpoints.length; i++) into[i] = 1 - (endpoints[i] as EndpointView).inFlight / most;
    },
  },
  {
    name: 'tokenLoad',
    alias: 'token-load-scorer',
    weight: 0,
    doc: `Tokens this gateway has there, of ${TOKEN_LOAD_FULL}: none 1.`,
    score: ({ endpoints }, into) => {
      for (let i = 0; i < endpoints.length; i++) {
        into[i] = 1 - Math.min(1, (endpoints[i] as EndpointView).inFlightTokens / TOKEN_LOAD_FULL);
      }
    },
  },
] as const satisfies readonly Scorer[];

export type ScorerName = (typeof SCORERS)[number]['name'];
export type ScorerWeights = Readonly<Record<ScorerName, number>>;

const MAX_WEIGHT = 1_000_000;

/** Default weights with those of `GatewaySpec.scorers` (own names or llm-d's). @throws TokenmillError invalid_manifest */
export function scorerWeights(asked: Readonly<Record<string, number>>): ScorerWeights {
  const weights = Object.fromEntries(SCORERS.map(({ name, weight }) => [name, weight])) as Record<ScorerName, number>;
  for (const [name, weight] of Object.entries(asked)) {
    const scorer = SCORERS.find((known) => known.name === name || known.alias === name);
    if (scorer === undefined) {
      throw new TokenmillError('invalid_manifest', `No scorer is called ${JSON.stringify(name)}.`, {
        param: 'scorers',
        remedy: `Use one of ${SCORERS.map((known) => known.name).join(', ')}.`,
      });
    }
    if (!(weight >= 0 && weight <= MAX_WEIGHT)) {
      throw new TokenmillError('invalid_manifest', `The weight of the scorer ${name} is ${weight}.`, {
        param: 'scorers',
        remedy: `Give a number from 0 to ${MAX_WEIGHT}.`,
      });
    }
    weights[scorer.name] = weight;
  }
  return weights;
}

/** (most - n) / (most - least) over those known; 1 for all when they are equal. */
function fewest(
  { endpoints, fresh }: ScorerInput,
  into: Float64Array,
  countOf: (endpoint: EndpointView) => number | null,
): void {
  let least = Number.POSITIVE_INFINITY;
  let most = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < endpoints.length; i++) {
    const count = fresh[i] ? countOf(endpoints[i] as EndpointView) : null;
    into[i] = count ?? Number.NaN;
    if (count === null) continue;
    least = Math.min(least, count);
    most = Math.max(most, count);
  }
  for (let i = 0; i < endpoints.length; i++) {
    into[i] = most > least ? (most - (into[i] as number)) / (most - least) : 1;
  }
}

function loraScore({ running, waiting, max }: LoraState, adapter: string): number {
  if (running.includes(adapter)) return 1;
  if (running.length + waiting.length < max) return 0.8;
  return waiting.includes(adapter) ? 0.6 : 0;
}
