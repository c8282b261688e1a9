/** Null = no limit. */
export interface KeyLimits {
  readonly requestsPerMin: number | null;
  readonly tokensPerMin: number | null;
  readonly maxParallel: number | null;
  /** In any unit, that of `cost`; `periodMs` null = for ever. */
  readonly budget: { readonly max: number; readonly periodMs: number | null } | null;
}

/** JSON; the caller keeps it by key. */
export interface KeyUsage {
  readonly requests: Bucket;
  readonly tokens: Bucket;
  readonly parallel: number;
  readonly spent: number;
  readonly reserved: number;
  readonly periodAt: number;
}

export interface Bucket {
  /** Left of the limit; below 0 = owed. Null = full. */
  readonly level: number | null;
  readonly at: number;
}

export interface Amount {
  readonly tokens: number;
  readonly cost: number;
}

export interface RateNumbers {
  readonly limitRequests: number | null;
  readonly remainingRequests: number | null;
  readonly resetRequestsMs: number | null;
  readonly limitTokens: number | null;
  readonly remainingTokens: number | null;
  readonly resetTokensMs: number | null;
}

export type Reserved =
  | { readonly ok: true; readonly usage: KeyUsage; readonly numbers: RateNumbers }
  | {
      readonly ok: false;
      /** 429; 400 for the budget, as LiteLLM. */
      readonly status: 429 | 400;
      readonly reason: 'requests' | 'tokens' | 'too large' | 'parallel' | 'budget';
      readonly message: string;
      /** Null = time does not help. */
      readonly retryAfterMs: number | null;
      readonly usage: KeyUsage;
      readonly numbers: RateNumbers;
    };

export declare function initialUsage(now: number): KeyUsage;
/** Of a usage read back after a restart: nothing is in flight. */
export declare function restoredUsage(usage: KeyUsage): KeyUsage;
export declare function reserve(limits: KeyLimits, usage: KeyUsage, estimate: Amount, now: number): Reserved;
/** Once for each reservation, aborted requests too; `estimate` as it was reserved. */
export declare function settle(
  limits: KeyLimits,
  usage: KeyUsage,
  estimate: Amount,
  actual: Amount,
  now: number,
): KeyUsage;
/** Takes a reservation back as if it had not been asked: another limit refused. */
export declare function cancelReservation(limits: KeyLimits, usage: KeyUsage, estimate: Amount, now: number): KeyUsage;
/** `x-ratelimit-*`, as OpenAI's. */
export declare function rateLimitHeaders(numbers: RateNumbers): Record<string, string>;
