/**
 * Second tries, and how many of them a fleet can bear: no more than a share of the requests and a floor (Finagle's RetryBudget),
 * so that retries never multiply an overload.
 */

export interface RetryPolicy {
  /** Retries per request. */
  readonly ratio: number;
  /** Retries a second whatever the requests. */
  readonly floorPerS: number;
}

const RETRY_POLICY: RetryPolicy = { ratio: 0.2, floorPerS: 10 };

const WINDOW_S = 10;

/** Over the last 10 s, in slices of one. */
export class RetryBudget {
  private readonly policy: RetryPolicy;
  private readonly requests = new Float64Array(WINDOW_S);
  private readonly retries = new Float64Array(WINDOW_S);
  /** Second that the newest slice stands for. */
  private second = Number.NEGATIVE_INFINITY;

  constructor(policy: RetryPolicy = RETRY_POLICY) {
    this.policy = policy;
  }

  /** A request of a client, not a retry. */
  request(now: number): void {
    this.add(this.requests, now);
  }

  /** Takes one retry (or hedge) if there is one. */
  take(now: number): boolean {
    this.turn(now);
    const { ratio, floorPerS } = this.policy;
    if (sum(this.retries) + 1 > ratio * sum(this.requests) + floorPerS * WINDOW_S) return false;
    this.add(this.retries, now);
    return true;
  }

  private add(counts: Float64Array, now: number): void {
    this.turn(now);
    const slice = this.second % WINDOW_S;
    counts[slice] = (counts[slice] as number) + 1;
  }

  private turn(now: number): void {
    const second = Math.floor(now / 1000);
    const passed = second - this.second;
    if (passed <= 0) return;
    if (passed >= WINDOW_S) {
      this.requests.fill(0);
      this.retries.fill(0);
    } else {
      for (let i = 0; i < passed; i++) {
        this.requests[(second - i) % WINDOW_S] = 0;
        this.retries[(second - i) % WINDOW_S] = 0;
      }
    }
    this.second = second;
  }
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

/**
 * After a try that failed; takes from the budget when it says yes. `status` null = no answer: refused, reset, timed out. Generation
 * has no side effect, so a request whose answer has not begun may always be asked again; 429 of one replica is not another's.
 */
export function decideRetry(attempt: Attempt, status: number | null, budget: RetryBudget, now: number): RetryDecision {
  const no = (reason: RetryDecision['reason']): RetryDecision => ({ retry: false, reason });
  if (attempt.answered) return no('answered');
  if (status !== null && status !== 429 && !(status >= 500 && status !== 501)) return no('not retryable');
  if (attempt.attempts >= attempt.maxAttempts) return no('attempts');
  if (attempt.othersLeft <= 0) return no('no endpoint');
  return budget.take(now) ? { retry: true, reason: 'retry' } : no('budget');
}

/** When a second try is due beside the first if no token came by then, ms; null = never. `hedgeAfterMs` 0 = off. */
export function hedgeAt(attempt: Attempt, hedgeAfterMs: number, startedAt: number): number | null {
  const { answered, attempts, maxAttempts, othersLeft } = attempt;
  if (hedgeAfterMs <= 0 || answered || attempts >= maxAttempts || othersLeft <= 0) return null;
  return startedAt + hedgeAfterMs;
}

/** Whether to hedge now; takes from the budget when it says yes. */
export function decideHedge(
  attempt: Attempt,
  hedgeAfterMs: number,
  startedAt: number,
  budget: RetryBudget,
  now: number,
): boolean {
  const at = hedgeAt(attempt, hedgeAfterMs, startedAt);
  return at !== null && now >= at && budget.take(now);
}

function sum(counts: Float64Array): number {
  let total = 0;
  for (const count of counts) total += count;
  return total;
}
