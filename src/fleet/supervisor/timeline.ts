/** What the fleet page draws: decisions with their reasons, and how busy each service was, second by second. Bounded rings. */
import type { GatewayStats, ServiceStats } from '../gateway/routing_table.ts';

export interface DecisionPoint {
  readonly at: number;
  readonly service: string;
  readonly replicas: number;
  readonly reason: string;
}

export interface LoadPoint {
  readonly at: number;
  readonly service: string;
  readonly ready: number;
  readonly wanted: number;
  readonly waiting: number;
  readonly inFlight: number;
  readonly requestsPerSecond: number;
  readonly outputTokensPerSecond: number;
}

const MAX_DECISIONS = 2000;
const MAX_LOAD_POINTS = 20_000;
const LOAD_PERIOD_MS = 1000;

interface Counted {
  readonly at: number;
  readonly epoch: string;
  readonly arrivals: number;
  readonly outputTokens: number;
}

export class Timeline {
  private decisions: DecisionPoint[] = [];
  private load: LoadPoint[] = [];
  private readonly counted = new Map<string, Counted>();
  private readonly lastDecision = new Map<string, DecisionPoint>();
  private lastLoadAt = Number.NEGATIVE_INFINITY;

  /** Kept when the count changes; the reason alone changes with every number in it. True when it was kept. */
  noteDecision(point: DecisionPoint): boolean {
    const isNew = this.lastDecision.get(point.service)?.replicas !== point.replicas;
    this.lastDecision.set(point.service, point);
    if (isNew) this.decisions = [...this.decisions, point].slice(-MAX_DECISIONS);
    return isNew;
  }

  /** The rule's last words, whether they changed anything or not. */
  latestDecision(service: string): DecisionPoint | null {
    return this.lastDecision.get(service) ?? null;
  }

  isLoadDue(now: number): boolean {
    return now - this.lastLoadAt >= LOAD_PERIOD_MS;
  }

  noteLoad(
    services: readonly { readonly service: string; readonly ready: number; readonly wanted: number }[],
    stats: GatewayStats,
    now: number,
  ): void {
    this.lastLoadAt = now;
    for (const { service, ready, wanted } of services) {
      const of = Object.hasOwn(stats.services, service) ? stats.services[service] : undefined;
      if (of === undefined) continue;
      this.load.push({
        at: now,
        service,
        ready,
        wanted,
        waiting: of.waiting,
        inFlight: of.inFlight,
        ...this.rates(service, stats.epoch, of, now),
      });
    }
    if (this.load.length > MAX_LOAD_POINTS) this.load = this.load.slice(-(MAX_LOAD_POINTS >> 1));
  }

  forget(service: string): void {
    this.counted.delete(service);
    this.lastDecision.delete(service);
  }

  since(at: number): { readonly decisions: readonly DecisionPoint[]; readonly load: readonly LoadPoint[] } {
    return {
      decisions: this.decisions.filter((point) => point.at > at),
      load: this.load.filter((point) => point.at > at),
    };
  }

  private rates(
    service: string,
    epoch: string,
    stats: ServiceStats,
    now: number,
  ): Pick<LoadPoint, 'requestsPerSecond' | 'outputTokensPerSecond'> {
    const outputTokens = Object.values(stats.revisions).reduce((sum, revision) => sum + revision.outputTokens, 0);
    const before = this.counted.get(service);
    this.counted.set(service, { at: now, epoch, arrivals: stats.arrivals, outputTokens });
    if (before === undefined || before.epoch !== epoch || now <= before.at)
      return { requestsPerSecond: 0, outputTokensPerSecond: 0 };
    const perSecond = (count: number): number => Math.max(0, count) / ((now - before.at) / 1000);
    return {
      requestsPerSecond: perSecond(stats.arrivals - before.arrivals),
      outputTokensPerSecond: perSecond(outputTokens - before.outputTokens),
    };
  }
}
