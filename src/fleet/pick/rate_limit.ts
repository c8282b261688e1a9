/**
 * What a key may use: requests and tokens a minute, requests at once, and a budget. Tokens are reserved by an estimate when a
 * request starts and settled with the true count when it ends. Rates are token buckets of one minute's worth. Pure: the usage is
 * JSON that goes in and comes back.
 */

/** Null = no limit. */
export interface KeyLimits {
  readonly requestsPerMin: number | null;
  readonly tokensPerMin: number | null;
  readonly maxParallel: number | null;
  /** In the unit of `cost`; `periodMs` null = for ever. */
  readonly budget: { readonly max: number; readonly periodMs: number | null } | null;
}

/** JSON; the caller keeps it by key. */
export interface KeyUsage {
  readonly requests: Bucket;
  readonly tokens: Bucket;
  readonly parallel: number;
  /** Of the budget in this period; `reserved` is what requests in flight may cost. */
  readonly spent: number;
  readonly reserved: number;
  readonly periodAt: number;
}

export interface Bucket {
  /** Left of the limit; below 0 = owed; null = full. */
  readonly level: number | null;
  readonly at: number;
}

export interface Amount {
  readonly tokens: number;
  readonly cost: number;
}

/** Null = no such limit. */
export interface RateNumbers {
  readonly limitRequests: number | null;
  readonly remainingRequests: number | null;
  /** Until the bucket is full, ms. */
  readonly resetRequestsMs: number | null;
  readonly limitTokens: number | null;
  readonly remainingTokens: number | null;
  readonly resetTokensMs: number | null;
}

export type Reserved =
  | { readonly ok: true; readonly usage: KeyUsage; readonly numbers: RateNumbers }
  | {
      readonly ok: false;
      /** 400 for the budget, as LiteLLM. */
      readonly status: 429 | 400;
      readonly reason: 'requests' | 'tokens' | 'too large' | 'parallel' | 'budget';
      readonly message: string;
      /** Null = time does not help, or nobody knows when. */
      readonly retryAfterMs: number | null;
      readonly usage: KeyUsage;
      readonly numbers: RateNumbers;
    };

type Refusal = Pick<Extract<Reserved, { ok: false }>, 'status' | 'reason' | 'message' | 'retryAfterMs'>;

const MINUTE_MS = 60_000;

export function initialUsage(now: number): KeyUsage {
  const full = { level: null, at: now };
  return { requests: full, tokens: full, parallel: 0, spent: 0, reserved: 0, periodAt: now };
}

/** Of a usage read back after a restart: nothing is in flight. What was reserved stays charged to the rates. */
export function restoredUsage(usage: KeyUsage): KeyUsage {
  return { ...usage, parallel: 0, reserved: 0 };
}

export function reserve(limits: KeyLimits, usage: KeyUsage, estimate: Amount, now: number): Reserved {
  const current = refreshed(limits, usage, now);
  const refusal = refuse(limits, current, estimate, now);
  if (refusal !== null) return { ok: false, ...refusal, usage: current, numbers: numbersOf(limits, current) };
  const taken: KeyUsage = {
    ...current,
    requests: changed(current.requests, limits.requestsPerMin, -1),
    tokens: changed(current.tokens, limits.tokensPerMin, -estimate.tokens),
    parallel: current.parallel + 1,
    reserved: current.reserved + estimate.cost,
  };
  return { ok: true, usage: taken, numbers: numbersOf(limits, taken) };
}

/** Once for each reservation, aborted requests too; `estimate` as it was reserved. */
export function settle(limits: KeyLimits, usage: KeyUsage, estimate: Amount, actual: Amount, now: number): KeyUsage {
  const current = refreshed(limits, usage, now);
  return {
    ...current,
    tokens: changed(current.tokens, limits.tokensPerMin, estimate.tokens - actual.tokens),
    parallel: Math.max(0, current.parallel - 1),
    reserved: Math.max(0, current.reserved - estimate.cost),
    spent: current.spent + actual.cost,
  };
}

/** Takes a reservation back as if it had not been asked: another limit refused. */
export function cancelReservation(limits: KeyLimits, usage: KeyUsage, estimate: Amount, now: number): KeyUsage {
  const settled = settle(limits, usage, estimate, { tokens: 0, cost: 0 }, now);
  return { ...settled, requests: changed(settled.requests, limits.requestsPerMin, 1) };
}

/** `x-ratelimit-*`, as OpenAI's. */
export function rateLimitHeaders(numbers: RateNumbers): Record<string, string> {
  const headers: Record<string, string> = {};
  for (const [unit, limit, remaining, resetMs] of [
    ['requests', numbers.limitRequests, numbers.remainingRequests, numbers.resetRequestsMs],
    ['tokens', numbers.limitTokens, numbers.remainingTokens, numbers.resetTokensMs],
  ] as const) {
    if (limit === null) continue;
    headers[`x-ratelimit-limit-${unit}`] = String(limit);
    headers[`x-ratelimit-remaining-${unit}`] = String(remaining);
    headers[`x-ratelimit-reset-${unit}`] = duration(resetMs ?? 0);
  }
  return headers;
}

/** `250ms`, `6s`, `1m30s`. */
function duration(ms: number): string {
  if (ms < 1000) return `${Math.ceil(ms)}ms`;
  const seconds = Math.ceil(ms / 1000);
  return seconds < 60 ? `${seconds}s` : `${Math.floor(seconds / 60)}m${seconds % 60}s`;
}

function refuse(limits: KeyLimits, usage: KeyUsage, { tokens, cost }: Amount, now: number): Refusal | null {
  const { requestsPerMin, tokensPerMin, maxParallel, budget } = limits;
  const refused = (reason: Refusal['reason'], retryAfterMs: number | null, message: string): Refusal => ({
    status: reason === 'budget' ? 400 : 429,
    reason,
    message,
    retryAfterMs,
  });
  if (budget !== null && usage.spent + usage.reserved + cost > budget.max) {
    const { periodMs } = budget;
    const message = `Budget exceeded: ${usage.spent} of ${budget.max} is spent, ${usage.reserved} is in use, this request may cost ${cost}.`;
    return refused('budget', periodMs === null ? null : usage.periodAt + periodMs - now, message);
  }
  if (tokensPerMin !== null && tokens > tokensPerMin) {
    return refused(
      'too large',
      null,
      `The request may use ${tokens} tokens; the key's limit is ${tokensPerMin} a minute.`,
    );
  }
  if (maxParallel !== null && usage.parallel >= maxParallel) {
    return refused('parallel', null, `The key has ${usage.parallel} requests in flight, its limit.`);
  }
  const requestsWaitMs = waitMs(usage.requests, requestsPerMin, 1);
  const tokensWaitMs = waitMs(usage.tokens, tokensPerMin, tokens);
  if (requestsWaitMs === 0 && tokensWaitMs === 0) return null;
  return requestsWaitMs >= tokensWaitMs
    ? refused(
        'requests',
        requestsPerMin === 0 ? null : requestsWaitMs,
        `The key's limit of ${requestsPerMin} requests a minute is reached.`,
      )
    : refused('tokens', tokensWaitMs, `The key's limit of ${tokensPerMin} tokens a minute is reached.`);
}

/** Buckets filled up to now, and a new period if the old one is over. */
function refreshed({ requestsPerMin, tokensPerMin, budget }: KeyLimits, usage: KeyUsage, now: number): KeyUsage {
  const periodMs = budget?.periodMs ?? null;
  const passed = periodMs === null ? 0 : Math.floor((now - usage.periodAt) / periodMs);
  return {
    ...usage,
    requests: filled(usage.requests, requestsPerMin, now),
    tokens: filled(usage.tokens, tokensPerMin, now),
    spent: passed > 0 ? 0 : usage.spent,
    periodAt: passed > 0 ? usage.periodAt + passed * (periodMs as number) : usage.periodAt,
  };
}

function filled({ level, at }: Bucket, limit: number | null, now: number): Bucket {
  // A clock that went back fills nothing.
  if (limit === null || level === null) return { level: null, at: Math.max(at, now) };
  return { level: Math.min(limit, level + (limit * Math.max(0, now - at)) / MINUTE_MS), at: Math.max(at, now) };
}

function changed({ level, at }: Bucket, limit: number | null, by: number): Bucket {
  return limit === null ? { level: null, at } : { level: Math.min(limit, (level ?? limit) + by), at };
}

function waitMs({ level }: Bucket, limit: number | null, amount: number): number {
  const missing = limit === null ? 0 : amount - (level ?? limit);
  // Filling up in steps may end a rounding error below.
  return limit === null || missing < 1e-6 ? 0 : Math.ceil((missing / limit) * MINUTE_MS);
}

function numbersOf({ requestsPerMin, tokensPerMin }: KeyLimits, { requests, tokens }: KeyUsage): RateNumbers {
  const remaining = ({ level }: Bucket, limit: number | null) =>
    limit === null ? null : Math.max(0, Math.floor(level ?? limit));
  return {
    limitRequests: requestsPerMin,
    remainingRequests: remaining(requests, requestsPerMin),
    resetRequestsMs: requestsPerMin === null ? null : waitMs(requests, requestsPerMin, requestsPerMin),
    limitTokens: tokensPerMin,
    remainingTokens: remaining(tokens, tokensPerMin),
    resetTokensMs: tokensPerMin === null ? null : waitMs(tokens, tokensPerMin, tokensPerMin),
  };
}
