export declare class RetryBudget {
  /** `ratio` of the requests of the last 10 s, and `floorPerS` whatever they are. */
  constructor(policy?: { readonly ratio: number; readonly floorPerS: number });
  /** A request of a client, not a retry. */
  request(now: number): void;
  /** Takes one retry (or hedge) if there is one. */
  take(now: number): boolean;
}

export interface Attempt {
  /** Of the request so far, this one included. */
  readonly attempts: number;
  readonly maxAttempts: number;
  /** Bytes of an answer went to the client. */
  readonly answered: boolean;
  /** Endpoints not yet tried. */
  readonly othersLeft: number;
}

export interface RetryDecision {
  readonly retry: boolean;
  readonly reason: 'retry' | 'answered' | 'not retryable' | 'attempts' | 'no endpoint' | 'budget';
}

/** `status` null = no answer: refused, reset, timed out. */
export declare function decideRetry(
  attempt: Attempt,
  status: number | null,
  budget: RetryBudget,
  now: number,
): RetryDecision;

/** A second try beside the first, when that is silent for `hedgeAfterMs`; `atMs` null = never. */
export declare function hedgeAt(attempt: Attempt, hedgeAfterMs: number, startedAt: number): number | null;
export declare function decideHedge(
  attempt: Attempt,
  hedgeAfterMs: number,
  startedAt: number,
  budget: RetryBudget,
  now: number,
): boolean;
