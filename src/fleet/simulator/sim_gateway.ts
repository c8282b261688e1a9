/** The gateway in virtual time: holds what no replica can take, sends to the replica with the least, counts as the real one does. */
import { FINE_BOUNDS_MS, FINE_GROWTH } from '../autoscaler/histogram.ts';
import type { GatewayStats, Histogram } from '../gateway/routing_table.ts';
import type { QueueSpec } from '../spec/fleet_spec.ts';
import type { Arrivals } from './arrivals.ts';

/** Of a request, by its number. */
export const OUTCOMES = { open: 0, completed: 1, refused: 2, expired: 3, broken: 4 } as const;

const REVISION = 'simulated';
const LOG_GROWTH = Math.log(FINE_GROWTH);

export class SimGateway {
  readonly arrivals: Arrivals;
  readonly firstTokenMs: Float64Array;
  readonly endMs: Float64Array;
  readonly outcomes: Uint8Array;
  arrived = 0;
  /** Refused or given up while no replica was ready. */
  lostAtZero = 0;
  inFlight = 0;
  private readonly limits: QueueSpec;
  private queue: number[] = [];
  private head = 0;
  private lastActiveAt: number | null = null;
  private readonly counts = { refused: 0, completed: 0, errors: 0, promptTokens: 0, outputTokens: 0 };
  private readonly ttft = new Latencies();
  private readonly tpot = new Latencies();

  constructor(arrivals: Arrivals, limits: QueueSpec) {
    this.arrivals = arrivals;
    this.limits = limits;
    this.firstTokenMs = new Float64Array(arrivals.count).fill(Number.NaN);
    this.endMs = new Float64Array(arrivals.count).fill(Number.NaN);
    this.outcomes = new Uint8Array(arrivals.count);
  }

  get waiting(): number {
    return this.queue.length - this.head;
  }

  get open(): number {
    return this.waiting + this.inFlight;
  }

  /** Counts it, and holds it unless the queue is full. */
  arrive(request: number, now: number, isCold: boolean): void {
    this.arrived++;
    this.lastActiveAt = now;
    if (this.waiting < this.limits.maxRequests) this.queue.push(request);
    else this.close(request, OUTCOMES.refused, now, isCold);
  }

  /** The next one held, or -1. */
  take(): number {
    if (this.head === this.queue.length) return -1;
    const request = this.queue[this.head++] as number;
    if (this.head > 4096 && this.head * 2 > this.queue.length) {
      this.queue = this.queue.slice(this.head);
      this.head = 0;
    }
    this.inFlight++;
    return request;
  }

  /** From a replica that is gone, to the front. */
  putBack(requests: readonly number[]): void {
    this.queue = [...requests, ...this.queue.slice(this.head)];
    this.head = 0;
    this.inFlight -= requests.length;
  }

  /** Held too long. */
  expire(now: number, isCold: boolean): void {
    const ttlMs = isCold ? this.limits.coldTtlMs : this.limits.ttlMs;
    while (this.head < this.queue.length) {
      const request = this.queue[this.head] as number;
      if (now - (this.arrivals.atMs[request] as number) <= ttlMs) return;
      this.head++;
      this.close(request, OUTCOMES.expired, now, isCold);
    }
  }

  firstToken(request: number, now: number): void {
    this.firstTokenMs[request] = now;
    this.ttft.observe(now - (this.arrivals.atMs[request] as number));
  }

  ended(request: number, now: number): void {
    this.inFlight--;
    this.lastActiveAt = now;
    this.outcomes[request] = OUTCOMES.completed;
    this.endMs[request] = now;
    const tokens = this.arrivals.outputTokens[request] as number;
    this.counts.completed++;
    this.counts.promptTokens += this.arrivals.promptTokens[request] as number;
    this.counts.outputTokens += tokens;
    if (tokens > 1) this.tpot.observe((now - (this.firstTokenMs[request] as number)) / (tokens - 1));
  }

  broken(requests: readonly number[], now: number): void {
    for (const request of requests) {
      this.inFlight--;
      this.counts.errors++;
      this.outcomes[request] = OUTCOMES.broken;
      this.endMs[request] = now;
    }
    if (requests.length > 0) this.lastActiveAt = now;
  }

  stats(service: string, now: number): GatewayStats {
    const { completed, errors, promptTokens, outputTokens, refused } = this.counts;
    const revision = {
      requests: completed + errors,
      errors,
      promptTokens,
      outputTokens,
      ttftMs: this.ttft.histogram,
      tpotMs: this.tpot.histogram,
    };
    const { arrived: arrivals, waiting, inFlight, lastActiveAt } = this;
    const of = {
      waiting,
      inFlight,
      arrivals,
      refused,
      lastActiveAt,
      revisions: { [REVISION]: revision },
      endpoints: {},
    };
    return { epoch: 'simulated', tableVersion: 1, at: now, services: { [service]: of } };
  }

  private close(request: number, outcome: number, now: number, isCold: boolean): void {
    this.outcomes[request] = outcome;
    this.endMs[request] = now;
    this.counts.refused++;
    if (isCold) this.lostAtZero++;
  }
}

/** Copied only when something came after it was handed out. */
class Latencies {
  private given: Histogram = {
    bounds: FINE_BOUNDS_MS,
    counts: new Array<number>(FINE_BOUNDS_MS.length + 1).fill(0),
    sum: 0,
  };
  private counts: number[] | null = null;
  private sum = 0;

  observe(value: number): void {
    this.counts ??= [...this.given.counts];
    const bucket = value <= 1 ? 0 : Math.min(this.counts.length - 1, Math.ceil(Math.log(value) / LOG_GROWTH));
    this.counts[bucket] = (this.counts[bucket] as number) + 1;
    this.sum += value;
  }

  get histogram(): Histogram {
    if (this.counts !== null) this.given = { bounds: FINE_BOUNDS_MS, counts: this.counts, sum: this.sum };
    this.counts = null;
    return this.given;
  }
}
