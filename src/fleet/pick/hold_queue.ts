import type { QueueSpec } from '../spec/fleet_spec.ts';

export interface Asked<T> {
  /** Higher goes first; below 0 = dropped first. */
  readonly priority: number;
  /** Fairness: whose it is. */
  readonly key: string;
  readonly tokens: number;
  readonly bytes: number;
  readonly value: T;
}

/** One held request; a handle for `cancel`. */
export interface Held<T> {
  readonly value: T;
  readonly priority: number;
  readonly key: string;
  readonly heldAt: number;
}

export type DroppedReason =
  | 'rejected-saturated'
  | 'rejected-no-endpoints'
  | 'rejected-ttl-expired'
  | 'rejected-context-cancelled'
  | 'rejected-shutting-down'
  | 'evicted-priority';

export interface Dropped<T> {
  readonly held: Held<T>;
  readonly status: 429 | 503;
  readonly reason: DroppedReason;
}

export interface Pool {
  /** Since when there is one that is ready, ms; null = there is none. */
  readonly endpointsSince: number | null;
  readonly saturated: boolean;
  /** The service may be without replicas and holds then. */
  readonly holds: boolean;
}

export type Offered<T> =
  /** `evicted`: of lower priority, had to go for it. */
  | { readonly kind: 'held'; readonly held: Held<T>; readonly evicted: readonly Dropped<T>[] }
  | {
      readonly kind: 'refused';
      readonly status: 429 | 503;
      readonly reason: DroppedReason;
      readonly retryAfterMs: number;
    };

/** Of one service. All requests go through it: `offer`, then `take` while endpoints have room. */
export declare class HoldQueue<T> {
  constructor(limits: QueueSpec);
  limits: QueueSpec;
  readonly size: number;
  readonly bytes: number;
  offer(asked: Asked<T>, pool: Pool, now: number): Offered<T>;
  /** The next to go, or null. The caller asks only while an endpoint has room. */
  take(): Held<T> | null;
  /** The client left. False when it is no longer held. */
  cancel(held: Held<T>): boolean;
  /** What was held too long. */
  expire(pool: Pool, now: number): readonly Dropped<T>[];
  /** When `expire` has something to do at the earliest; null = nothing is held. */
  nextExpiryAt(pool: Pool): number | null;
  /** Those below priority 0, of a saturated pool. */
  shed(pool: Pool): readonly Dropped<T>[];
  /** All of it: shutting down. */
  close(): readonly Dropped<T>[];
}
