/**
 * Endpoints that fail are left out for a while: Envoy's outlier detection (consecutive errors, ejection for base time x count,
 * a largest share, never all) and then, as a circuit breaker does, one request at a time until one succeeds.
 */

/**
 * How a request ended: `serverError` 5xx of the endpoint, `gatewayFailure` no answer (refused, reset, timed out) or 502, 503,
 * 504; `neutral` says nothing of the endpoint (the client left, 429).
 */
export type Outcome = 'ok' | 'serverError' | 'gatewayFailure' | 'neutral';

export interface BreakerPolicy {
  /** Errors of both kinds, and gateway failures alone, one after another, that eject; 0 = never. */
  readonly consecutiveErrors: number;
  readonly consecutiveGatewayFailures: number;
  /** After each of these without an ejection the next one is shorter by one base time, ms. */
  readonly intervalMs: number;
  readonly baseEjectionMs: number;
  readonly maxEjectionMs: number;
  /** Of the endpoints; one may always be ejected if others are left. */
  readonly maxEjectionPercent: number;
}

/** Envoy's, but for the gateway failures (a replica that is gone should cost few requests) and the share (fleets are small). */
export const BREAKER_POLICY: BreakerPolicy = {
  consecutiveErrors: 5,
  consecutiveGatewayFailures: 3,
  intervalMs: 10_000,
  baseEjectionMs: 30_000,
  maxEjectionMs: 300_000,
  maxEjectionPercent: 50,
};

interface Health {
  errors: number;
  gatewayFailures: number;
  /** Multiplier of the last ejection. */
  ejections: number;
  /** When `ejections` last changed, ms. */
  ejectionsAt: number;
  /** Null = not ejected. Past = half open: probes go. */
  ejectedUntil: number | null;
  /** When the probe in flight was sent, ms; null = there is none. */
  probeAt: number | null;
}

/** Of the endpoints that share the work: those of a revision. Endpoints it has not been told of are allowed and not counted. */
export class Breaker {
  private readonly policy: BreakerPolicy;
  private readonly endpoints = new Map<string, Health>();

  constructor(policy: BreakerPolicy = BREAKER_POLICY) {
    this.policy = policy;
  }

  /** All there are; the others are forgotten. */
  setEndpoints(ids: readonly string[]): void {
    const kept = new Set(ids);
    for (const id of this.endpoints.keys()) if (!kept.has(id)) this.endpoints.delete(id);
    for (const id of kept) if (!this.endpoints.has(id)) this.endpoints.set(id, healthy());
  }

  /** Whether the endpoint may be chosen. When all that are left are ejected, all are allowed. */
  allows(id: string, now: number): boolean {
    const health = this.endpoints.get(id);
    if (health === undefined || health.ejectedUntil === null) return true;
    if (this.ejectedCount() === this.endpoints.size) return true;
    return now >= health.ejectedUntil && !this.isProbing(health, now);
  }

  /** Left out now; a half-open one is not. */
  isEjected(id: string, now: number): boolean {
    const until = this.endpoints.get(id)?.ejectedUntil ?? null;
    return until !== null && now < until;
  }

  /** A request goes there. Takes the probe of a half-open one. */
  begin(id: string, now: number): void {
    const health = this.endpoints.get(id);
    if (health === undefined || health.ejectedUntil === null || now < health.ejectedUntil) return;
    if (!this.isProbing(health, now)) health.probeAt = now;
  }

  /** How a request ended. */
  report(id: string, outcome: Outcome, now: number): void {
    const health = this.endpoints.get(id);
    if (health === undefined) return;
    this.decay(health, now);
    if (health.ejectedUntil !== null) {
      this.reportEjected(health, outcome, now);
      return;
    }
    if (outcome === 'neutral') return;
    if (outcome === 'ok') {
      health.errors = 0;
      health.gatewayFailures = 0;
      return;
    }
    health.errors++;
    health.gatewayFailures = outcome === 'gatewayFailure' ? health.gatewayFailures + 1 : 0;
    const { consecutiveErrors, consecutiveGatewayFailures } = this.policy;
    const over =
      (consecutiveErrors > 0 && health.errors >= consecutiveErrors) ||
      (consecutiveGatewayFailures > 0 && health.gatewayFailures >= consecutiveGatewayFailures);
    if (over && this.mayEject()) this.eject(health, now);
  }

  /** Answers that began before the ejection say nothing new; only those after its end do. */
  private reportEjected(health: Health, outcome: Outcome, now: number): void {
    if (now < (health.ejectedUntil as number) || health.probeAt === null) return;
    health.probeAt = null;
    if (outcome === 'neutral') return;
    if (outcome === 'ok') {
      health.ejectedUntil = null;
      health.errors = 0;
      health.gatewayFailures = 0;
    } else this.eject(health, now);
  }

  private eject(health: Health, now: number): void {
    const { baseEjectionMs, maxEjectionMs } = this.policy;
    health.ejections = Math.min(health.ejections + 1, Math.max(1, Math.ceil(maxEjectionMs / baseEjectionMs)));
    health.ejectedUntil = now + Math.min(maxEjectionMs, baseEjectionMs * health.ejections);
    // Time spent ejected is no good behaviour.
    health.ejectionsAt = health.ejectedUntil;
    health.probeAt = null;
  }

  private mayEject(): boolean {
    const after = this.ejectedCount() + 1;
    if (after >= this.endpoints.size) return false;
    return after === 1 || (after / this.endpoints.size) * 100 <= this.policy.maxEjectionPercent;
  }

  private decay(health: Health, now: number): void {
    if (health.ejections === 0 || health.ejectedUntil !== null) return;
    const intervals = Math.floor((now - health.ejectionsAt) / this.policy.intervalMs);
    if (intervals <= 0) return;
    health.ejections = Math.max(0, health.ejections - intervals);
    health.ejectionsAt += intervals * this.policy.intervalMs;
  }

  /** A probe whose end is never told does not close the way for ever. */
  private isProbing({ probeAt }: Health, now: number): boolean {
    return probeAt !== null && now - probeAt < this.policy.baseEjectionMs;
  }

  private ejectedCount(): number {
    let count = 0;
    for (const { ejectedUntil } of this.endpoints.values()) if (ejectedUntil !== null) count++;
    return count;
  }
}

function healthy(): Health {
  return { errors: 0, gatewayFailures: 0, ejections: 0, ejectionsAt: 0, ejectedUntil: null, probeAt: null };
}
