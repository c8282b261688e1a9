/**
 * What the control loop tells the gateway, whole, each time it changes, and what the gateway tells it back. Both are JSON; the
 * gateway is a process of its own and goes on with the last table when nobody speaks to it.
 */
import type { GatewaySpec, GraphSpec, RouteSpec, TrafficSpec } from '../spec/fleet_spec.ts';

export interface RoutingTable {
  /** Grows with each table; an older one is refused. */
  readonly version: number;
  readonly services: readonly ServiceRoute[];
  readonly routes: readonly RouteSpec[];
  readonly graphs: readonly GraphSpec[];
  readonly gateway: GatewaySpec;
}

export interface ServiceRoute {
  readonly id: string;
  /** Names that requests call it by. */
  readonly models: readonly string[];
  readonly revisions: readonly RevisionRoute[];
  readonly traffic: TrafficSpec;
  /** May have no replica: hold its requests and count them. False with no endpoint = 503 at once. */
  readonly holds: boolean;
}

export interface RevisionRoute {
  /** `llama-00002` or the name of a canary. */
  readonly id: string;
  /** Of the service's requests, 0..100; those of a service add up to 100, or to 0 when it is stopped. */
  readonly percent: number;
  /** Also reachable under these tags (`prev`, `latest`), by the header `x-tokenmill-revision` and by `pins`. */
  readonly tags: readonly string[];
  readonly endpoints: readonly Endpoint[];
}

export interface Endpoint {
  /** Of the replica. */
  readonly id: string;
  /** `http://127.0.0.1:40213` */
  readonly url: string;
  /** `draining`: finishes what it has and gets nothing new. */
  readonly state: 'ready' | 'draining';
}

/** Counters since the gateway's start; who reads takes differences. */
export interface GatewayStats {
  /** Changes with each start of the gateway: counters began again. */
  readonly epoch: string;
  readonly tableVersion: number;
  /** Of the gateway's clock, ms. */
  readonly at: number;
  readonly services: Readonly<Record<string, ServiceStats>>;
}

export interface ServiceStats {
  /** Held in the queue now. */
  readonly waiting: number;
  readonly inFlight: number;
  /** Requests that arrived, refused ones included. */
  readonly arrivals: number;
  readonly refused: number;
  /** When the last one arrived or ended, ms; null = none yet. */
  readonly lastActiveAt: number | null;
  readonly revisions: Readonly<Record<string, RevisionStats>>;
  readonly endpoints: Readonly<Record<string, { readonly inFlight: number; readonly ejected: boolean }>>;
}

export interface RevisionStats {
  /** That ended, in whatever way, errors among them: an error and its request are counted together. */
  readonly requests: number;
  /** Answers of 5xx, broken streams, timeouts; a client that leaves is none. */
  readonly errors: number;
  readonly promptTokens: number;
  readonly outputTokens: number;
  readonly ttftMs: Histogram;
  readonly tpotMs: Histogram;
}

/** Counts by bucket: `counts[i]` of values up to `bounds[i]`, the last of those above all. */
export interface Histogram {
  readonly bounds: readonly number[];
  readonly counts: readonly number[];
  readonly sum: number;
}
