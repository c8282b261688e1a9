/**
 * Requests held while no endpoint has room (llm-d-router's flow control): bands by priority, fairness between the keys of a band,
 * first come first served within a key. Fair means by tokens: self-clocked fair queueing (Golestani 1994), which gives each key
 * the share that deficit round robin gives it, at a logarithm of the number of keys a request whatever the sizes.
 */
import type { QueueSpec } from '../spec/fleet_spec.ts';
import { type Links, List } from './list.ts';

export interface Asked<T> {
  /** Whole; higher goes first, below 0 = dropped first. */
  readonly priority: number;
  /** Fairness: whose it is. */
  readonly key: string;
  readonly tokens: number;
  readonly bytes: number;
  readonly value: T;
}

/** One held request; the handle for `cancel`. */
export interface Held<T> {
  readonly value: T;
  readonly priority: number;
  readonly key: string;
  readonly heldAt: number;
}

/** Of `x-llm-d-request-dropped-reason`. */
export type DroppedReason =
  | 'rejected-saturated'
  | 'rejected-no-endpoints'
  | 'rejected-ttl-expired'
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

interface Item<T> extends Held<T> {
  readonly tokens: number;
  readonly bytes: number;
  /** Null once it has left the queue. */
  flow: Flow<T> | null;
  readonly inAll: Links<Item<T>>;
  readonly inBand: Links<Item<T>>;
  readonly inFlow: Links<Item<T>>;
}

/** The requests of a key in a band. */
interface Flow<T> {
  readonly key: string;
  readonly band: Band<T>;
  readonly items: List<Item<T>>;
  /** Virtual time at which the turn of its first request began, and at which it ends. */
  start: number;
  finish: number;
  /** Breaks ties: who waits longer. */
  order: number;
  heapIndex: number;
}

interface Band<T> {
  readonly priority: number;
  readonly flows: Map<string, Flow<T>>;
  /** Binary heap by `finish`. */
  readonly heap: Flow<T>[];
  readonly items: List<Item<T>>;
  bytes: number;
  /** Virtual time: the finish of what went last. */
  clock: number;
}

const RETRY_AFTER_MS = 1000;

/**
 * Of one service: `offer`, then `take` while endpoints have room. A request that finds the queue empty and room at an endpoint
 * needs no place in it.
 */
export class HoldQueue<T> {
  /** May be replaced; holds for what is offered and expires from then on. */
  limits: QueueSpec;
  /** Highest priority first; none is empty. */
  private readonly bands: Band<T>[] = [];
  /** In order of arrival. */
  private readonly all = new List<Item<T>>((item) => item.inAll);
  private heldBytes = 0;
  private orders = 0;
  private closed = false;

  constructor(limits: QueueSpec) {
    this.limits = limits;
  }

  get size(): number {
    return this.all.size;
  }

  get bytes(): number {
    return this.heldBytes;
  }

  offer(asked: Asked<T>, pool: Pool, now: number): Offered<T> {
    if (this.closed) return refuse(503, 'rejected-shutting-down');
    if (pool.endpointsSince === null && !pool.holds) return refuse(503, 'rejected-no-endpoints');
    if (pool.endpointsSince !== null && pool.saturated && asked.priority < 0) return refuse(429, 'rejected-saturated');
    const evicted = this.makeRoom(asked);
    if (evicted === null) return refuse(429, 'rejected-saturated');
    return { kind: 'held', held: this.add(asked, now), evicted };
  }

  /** The next to go, or null. The caller asks only while an endpoint has room. */
  take(): Held<T> | null {
    const band = this.bands[0];
    if (band === undefined) return null;
    const flow = band.heap[0] as Flow<T>;
    // A cancelled first request can leave a finish that is past already.
    band.clock = Math.max(band.clock, flow.finish);
    flow.start = flow.finish;
    const item = flow.items.first as Item<T>;
    this.remove(item);
    return item;
  }

  /** The client left. False when it is no longer held. */
  cancel(held: Held<T>): boolean {
    const item = held as Item<T>;
    if (item.flow === null) return false;
    this.remove(item);
    return true;
  }

  /** What was held too long. */
  expire(pool: Pool, now: number): readonly Dropped<T>[] {
    const dropped: Dropped<T>[] = [];
    const { endpointsSince, holds } = pool;
    const status = endpointsSince === null ? 503 : 429;
    const reason = endpointsSince === null && !holds ? 'rejected-no-endpoints' : 'rejected-ttl-expired';
    for (let item = this.all.first; item !== null && this.expiryOf(item, pool) <= now; item = this.all.first) {
      this.remove(item);
      dropped.push({ held: item, status, reason });
    }
    return dropped;
  }

  /** When `expire` has something to do at the earliest; null = nothing is held. */
  nextExpiryAt(pool: Pool): number | null {
    const { first } = this.all;
    return first === null ? null : this.expiryOf(first, pool);
  }

  /** Those below priority 0, when the pool is saturated. */
  shed(pool: Pool): readonly Dropped<T>[] {
    const dropped: Dropped<T>[] = [];
    if (pool.endpointsSince === null || !pool.saturated) return dropped;
    for (let band = this.bands.at(-1); band !== undefined && band.priority < 0; band = this.bands.at(-1)) {
      const item = band.items.first as Item<T>;
      this.remove(item);
      dropped.push({ held: item, status: 429, reason: 'rejected-saturated' });
    }
    return dropped;
  }

  /** All of it, and no more from now on: shutting down. */
  close(): readonly Dropped<T>[] {
    this.closed = true;
    const dropped: Dropped<T>[] = [];
    for (let item = this.all.first; item !== null; item = this.all.first) {
      this.remove(item);
      dropped.push({ held: item, status: 503, reason: 'rejected-shutting-down' });
    }
    return dropped;
  }

  /**
   * The time without endpoints counts by itself: who waited for a cold start has the whole ttl once it is over. Both times
   * together bound it, however often endpoints come and go. Grows with the arrival, so the oldest expires first.
   */
  private expiryOf({ heldAt }: Item<T>, { endpointsSince, holds }: Pool): number {
    const { ttlMs, coldTtlMs } = this.limits;
    if (endpointsSince === null) return holds ? heldAt + coldTtlMs : heldAt;
    return Math.min(Math.max(heldAt, endpointsSince) + ttlMs, heldAt + coldTtlMs + ttlMs);
  }

  /** Drops the youngest of the lowest bands below it until it fits; null = it does not, and nothing was dropped. */
  private makeRoom({ priority, bytes }: Asked<T>): Dropped<T>[] | null {
    const { maxRequests, maxBytes } = this.limits;
    const fits = (requests: number, held: number) => requests < maxRequests && held + bytes <= maxBytes;
    if (fits(this.size, this.heldBytes)) return [];
    let { size, heldBytes } = this;
    for (let i = this.bands.length - 1; i >= 0 && !fits(size, heldBytes); i--) {
      const band = this.bands[i] as Band<T>;
      if (band.priority >= priority) return null;
      size -= band.items.size;
      heldBytes -= band.bytes;
    }
    if (!fits(size, heldBytes)) return null;
    const dropped: Dropped<T>[] = [];
    while (!fits(this.size, this.heldBytes)) {
      const item = (this.bands.at(-1) as Band<T>).items.last as Item<T>;
      this.remove(item);
      dropped.push({ held: item, status: 429, reason: 'evicted-priority' });
    }
    return dropped;
  }

  private add(asked: Asked<T>, now: number): Item<T> {
    const band = this.bandOf(asked.priority);
    let flow = band.flows.get(asked.key);
    if (flow === undefined) {
      flow = {
        key: asked.key,
        band,
        items: new List((member) => member.inFlow),
        start: band.clock,
        finish: 0,
        order: this.orders++,
        heapIndex: -1,
      };
      band.flows.set(asked.key, flow);
    }
    const links = (): Links<Item<T>> => ({ before: null, after: null });
    const item: Item<T> = { ...asked, heldAt: now, flow, inAll: links(), inBand: links(), inFlow: links() };
    flow.items.push(item);
    if (flow.items.size === 1) {
      setFinish(flow);
      place(band.heap, flow, band.heap.length);
      siftUp(band.heap, flow);
    }
    band.items.push(item);
    band.bytes += item.bytes;
    this.all.push(item);
    this.heldBytes += item.bytes;
    return item;
  }

  private remove(item: Item<T>): void {
    const flow = item.flow as Flow<T>;
    const { band } = flow;
    const wasFirst = flow.items.first === item;
    item.flow = null;
    flow.items.remove(item);
    band.items.remove(item);
    band.bytes -= item.bytes;
    this.all.remove(item);
    this.heldBytes -= item.bytes;
    if (flow.items.size === 0) {
      band.flows.delete(flow.key);
      removeFromHeap(band.heap, flow);
    } else if (wasFirst) {
      setFinish(flow);
      siftUp(band.heap, flow);
      siftDown(band.heap, flow);
    }
    if (band.items.size === 0) this.bands.splice(this.bandIndex(band.priority), 1);
  }

  private bandOf(priority: number): Band<T> {
    const index = this.bandIndex(priority);
    const known = this.bands[index];
    if (known?.priority === priority) return known;
    const band: Band<T> = {
      priority,
      flows: new Map(),
      heap: [],
      items: new List((item) => item.inBand),
      bytes: 0,
      clock: 0,
    };
    this.bands.splice(index, 0, band);
    return band;
  }

  /** Of the band, or where it would be. */
  private bandIndex(priority: number): number {
    let low = 0;
    let high = this.bands.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.bands[middle] as Band<T>).priority > priority) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

function refuse(status: 429 | 503, reason: DroppedReason): Offered<never> {
  return { kind: 'refused', status, reason, retryAfterMs: RETRY_AFTER_MS };
}

function setFinish<T>(flow: Flow<T>): void {
  flow.finish = flow.start + Math.max(1, (flow.items.first as Item<T>).tokens);
}

function isBefore<T>(a: Flow<T>, b: Flow<T>): boolean {
  return a.finish < b.finish || (a.finish === b.finish && a.order < b.order);
}

function place<T>(heap: Flow<T>[], flow: Flow<T>, index: number): void {
  heap[index] = flow;
  flow.heapIndex = index;
}

function siftUp<T>(heap: Flow<T>[], flow: Flow<T>): void {
  let index = flow.heapIndex;
  while (index > 0) {
    const parentIndex = (index - 1) >> 1;
    const parent = heap[parentIndex] as Flow<T>;
    if (!isBefore(flow, parent)) break;
    place(heap, parent, index);
    index = parentIndex;
  }
  place(heap, flow, index);
}

function siftDown<T>(heap: Flow<T>[], flow: Flow<T>): void {
  let index = flow.heapIndex;
  for (;;) {
    let childIndex = 2 * index + 1;
    if (childIndex >= heap.length) break;
    const right = heap[childIndex + 1];
    if (right !== undefined && isBefore(right, heap[childIndex] as Flow<T>)) childIndex++;
    const child = heap[childIndex] as Flow<T>;
    if (!isBefore(child, flow)) break;
    place(heap, child, index);
    index = childIndex;
  }
  place(heap, flow, index);
}

function removeFromHeap<T>(heap: Flow<T>[], flow: Flow<T>): void {
  const last = heap.pop() as Flow<T>;
  if (last === flow) return;
  place(heap, last, flow.heapIndex);
  siftUp(heap, last);
  siftDown(heap, last);
}
