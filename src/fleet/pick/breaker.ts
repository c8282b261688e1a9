export type Outcome = 'ok' | 'serverError' | 'gatewayFailure' | 'neutral';

export interface BreakerPolicy {
  readonly consecutiveErrors: number;
  readonly consecutiveGatewayFailures: number;
  readonly intervalMs: number;
  readonly baseEjectionMs: number;
  readonly maxEjectionMs: number;
  readonly maxEjectionPercent: number;
}

export declare const BREAKER_POLICY: BreakerPolicy;

/** Of the endpoints of one revision. */
export declare class Breaker {
  constructor(policy?: BreakerPolicy);
  setEndpoints(ids: readonly string[]): void;
  /** Whether the endpoint may be chosen. */
  allows(id: string, now: number): boolean;
  /** A request goes there: takes the probe of a half-open one. */
  begin(id: string, now: number): void;
  /** How it ended. `neutral`: says nothing of the endpoint (the client left, 4xx). */
  report(id: string, outcome: Outcome, now: number): void;
  isEjected(id: string, now: number): boolean;
}
