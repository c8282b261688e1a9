/** What the gateway asks of keys; `requireKey` off and no key in the request = everyone may do everything. */
import type { ExchangeEnd } from '../client_request.ts';

export interface Admitted {
  /** Of whom, for fairness; '' = nobody. */
  readonly key: string;
  readonly headers: readonly string[];
  /** Once, when the request is over. */
  settle(end: ExchangeEnd): void;
}

export interface KeyGate {
  /**
   * `token`: of `Authorization: Bearer`, null = none. `estimateTokens`: prompt and the most that may be generated.
   * @throws TokenmillError unauthorized, model_not_allowed, rate_limited, budget_exceeded
   */
  admit(token: string | null, model: string, estimateTokens: number, required: boolean): Admitted;
  /** Models that the token may list; null = all. @throws TokenmillError unauthorized */
  visible(token: string | null, required: boolean): ReadonlySet<string> | null;
  /** True = the token is one of ours and no business of a replica. */
  knows(token: string): boolean;
}
