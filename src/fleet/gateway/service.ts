/** One service while the gateway runs: its route, its endpoints, its held requests and its counters. */
import { Breaker } from '../pick/breaker.ts';
import { type Dropped, HoldQueue, type Pool } from '../pick/hold_queue.ts';
import { type Candidate, pickEndpoints } from '../pick/picker.ts';
import { PrefixIndex } from '../pick/prefix_index.ts';
import { RetryBudget } from '../pick/retry_budget.ts';
import { poolSaturation, roomOf, SATURATION_POLICY, type SaturationPolicy } from '../pick/saturation.ts';
import type { EndpointView, RequestFacts, ScorerWeights } from '../pick/scorers.ts';
import { SessionRing } from '../pick/session.ts';
import { EndpointLive } from './endpoint.ts';
import { tpotHistogram, ttftHistogram } from './histogram.ts';
import type { RevisionRoute, RevisionStats, ServiceRoute, ServiceStats } from './routing_table.ts';

/** Samples come once a second; one lost is no reason to doubt. */
const SATURATION: SaturationPolicy = { ...SATURATION_POLICY, staleMs: 5000, runsAtOnce: 256 };
/** Of an endpoint that says nothing of itself. */
const UNKNOWN_ROOM = 256;
/** Of the prompt hasher's blocks. */
export const PREFIX_BLOCK_TOKENS = 64;
/** Counters of revisions that left the table are kept so long as there are not more than this. */
const MAX_REVISIONS = 64;

export class RevisionLive {
  readonly id: string;
  readonly breaker = new Breaker();
  endpoints: readonly EndpointLive[] = [];
  sessions = new SessionRing([]);
  requests = 0;
  errors = 0;
  promptTokens = 0;
  outputTokens = 0;
  readonly ttft = ttftHistogram();
  readonly tpot = tpotHistogram();

  constructor(id: string) {
    this.id = id;
  }

  views(now: number, without: ReadonlySet<string>): EndpointView[] {
    return this.endpoints.map((endpoint) =>
      endpoint.view(!without.has(endpoint.id) && this.breaker.allows(endpoint.id, now), now),
    );
  }

  stats(): RevisionStats {
    return {
      requests: this.requests,
      errors: this.errors,
      promptTokens: this.promptTokens,
      outputTokens: this.outputTokens,
      ttftMs: this.ttft.snapshot(),
      tpotMs: this.tpot.snapshot(),
    };
  }
}

/** What can be held: a request that waits for an endpoint. */
export interface Holdable {
  /** An endpoint has room now. */
  released(now: number): void;
}

export interface Choice {
  readonly revision: RevisionLive;
  readonly endpoint: EndpointLive;
  readonly candidates: readonly Candidate[];
}

const NONE: ReadonlySet<string> = new Set();

export class ServiceLive {
  readonly id: string;
  route: ServiceRoute;
  queue: HoldQueue<Holdable>;
  readonly retries = new RetryBudget();
  readonly prefixes = new PrefixIndex();
  readonly revisions = new Map<string, RevisionLive>();
  readonly endpoints = new Map<string, { readonly endpoint: EndpointLive; readonly revision: RevisionLive }>();
  private weights: ScorerWeights;
  private endpointsSince: number | null = null;
  inFlight = 0;
  arrivals = 0;
  refused = 0;
  lastActiveAt: number | null = null;

  constructor(route: ServiceRoute, weights: ScorerWeights, now: number) {
    this.id = route.id;
    this.route = route;
    this.weights = weights;
    this.queue = new HoldQueue(route.traffic.queue);
    this.apply(route, weights, now);
  }

  apply(route: ServiceRoute, weights: ScorerWeights, now: number): void {
    this.route = route;
    this.weights = weights;
    this.queue.limits = route.traffic.queue;
    const named = new Set<string>();
    for (const revision of route.revisions) this.applyRevision(revision, named);
    const present = new Set(route.revisions.map(({ id }) => id));
    for (const [id, revision] of this.revisions) {
      if (present.has(id)) continue;
      this.setReady(revision, []);
      if (this.revisions.size > MAX_REVISIONS) this.revisions.delete(id);
    }
    for (const [id, { endpoint }] of this.endpoints) {
      if (named.has(id)) continue;
      endpoint.state = 'draining';
      endpoint.pool.drain();
      if (endpoint.inFlight === 0) this.forget(id);
    }
    const ready = [...this.revisions.values()].some(({ endpoints }) => endpoints.length > 0);
    this.endpointsSince = ready ? (this.endpointsSince ?? now) : null;
  }

  /** Leaves the table; its counters stay for when it comes back. What was held is returned. */
  retire(now: number): readonly Dropped<Holdable>[] {
    this.apply({ ...this.route, revisions: [], holds: false }, this.weights, now);
    const dropped = this.queue.close();
    this.queue = new HoldQueue(this.route.traffic.queue);
    return dropped;
  }

  private applyRevision(route: RevisionRoute, named: Set<string>): void {
    const revision = this.revisions.get(route.id) ?? new RevisionLive(route.id);
    this.revisions.set(route.id, revision);
    const ready: EndpointLive[] = [];
    for (const spec of route.endpoints) {
      named.add(spec.id);
      const known = this.endpoints.get(spec.id)?.endpoint;
      const endpoint = known?.url === spec.url ? known : new EndpointLive(spec);
      if (known !== undefined && known !== endpoint) known.pool.drain();
      endpoint.state = spec.state;
      this.endpoints.set(spec.id, { endpoint, revision });
      if (spec.state === 'ready') ready.push(endpoint);
    }
    this.setReady(revision, ready);
  }

  private setReady(revision: RevisionLive, ready: readonly EndpointLive[]): void {
    const ids = ready.map(({ id }) => id);
    const before = revision.endpoints.map(({ id }) => id);
    revision.endpoints = ready;
    if (ids.join('\n') === before.join('\n')) return;
    revision.breaker.setEndpoints(ids);
    revision.sessions = new SessionRing(ids);
  }

  private forget(id: string): void {
    this.endpoints.delete(id);
    this.prefixes.remove(id);
  }

  /** After its last request: an endpoint that left the table is nobody's any more. */
  released(endpoint: EndpointLive): void {
    if (endpoint.inFlight > 0 || endpoint.state === 'ready') return;
    const inTable = this.route.revisions.some(({ endpoints }) => endpoints.some(({ id }) => id === endpoint.id));
    if (!inTable) this.forget(endpoint.id);
  }

  /** After a look at its gauges. */
  sampled(endpoint: EndpointLive): void {
    const { cacheTokens } = endpoint;
    // The answer may come after the endpoint left the table.
    if (this.endpoints.get(endpoint.id)?.endpoint !== endpoint) return;
    if (cacheTokens !== null) this.prefixes.setCapacity(endpoint.id, Math.floor(cacheTokens / PREFIX_BLOCK_TOKENS));
  }

  get hasReady(): boolean {
    return this.endpointsSince !== null;
  }

  /** The best endpoint of the revision, else (unless `strict`) of another; null = none that is not in `tried`. */
  choose(
    revision: RevisionLive,
    request: RequestFacts,
    tried: ReadonlySet<string>,
    strict: boolean,
    seed: number,
    now: number,
  ): Choice | null {
    const own = this.chooseIn(revision, request, tried, seed, now);
    if (own !== null || strict) return own;
    for (const other of this.revisions.values()) {
      // A revision without a share gets what is sent to it by name only.
      if (other === revision || !this.route.revisions.some(({ id, percent }) => id === other.id && percent > 0))
        continue;
      const choice = this.chooseIn(other, request, tried, seed, now);
      if (choice !== null) return choice;
    }
    return null;
  }

  private chooseIn(
    revision: RevisionLive,
    request: RequestFacts,
    tried: ReadonlySet<string>,
    seed: number,
    now: number,
  ): Choice | null {
    const policy = { weights: this.weights, staleMs: SATURATION.staleMs };
    const state = { prefixes: this.prefixes, sessions: revision.sessions };
    const candidates = pickEndpoints(policy, state, revision.views(now, tried), request, seed);
    const best = candidates[0];
    if (best === undefined) return null;
    return { revision, endpoint: revision.endpoints[best.index] as EndpointLive, candidates };
  }

  /** Whether any endpoint can take one more without a long queue of its own. */
  hasRoom(now: number): boolean {
    for (const revision of this.revisions.values()) {
      for (const endpoint of revision.endpoints) {
        if (!revision.breaker.allows(endpoint.id, now)) continue;
        const view = endpoint.view(true, now);
        const fresh = view.sampleAgeMs !== null && view.sampleAgeMs <= SATURATION.staleMs && view.waiting !== null;
        if ((fresh ? roomOf(view, SATURATION) : UNKNOWN_ROOM - endpoint.inFlight) > 0) return true;
      }
    }
    return false;
  }

  pool(now: number): Pool {
    const views = [...this.revisions.values()].flatMap((revision) => revision.views(now, NONE));
    const known = views.filter(({ sampleAgeMs }) => sampleAgeMs !== null);
    const saturated = known.length > 0 && poolSaturation(known, SATURATION) >= 1;
    return { endpointsSince: this.endpointsSince, saturated, holds: this.route.holds };
  }

  stats(now: number): ServiceStats {
    const endpoints: Record<string, { inFlight: number; ejected: boolean }> = {};
    for (const [id, { endpoint, revision }] of this.endpoints) {
      endpoints[id] = { inFlight: endpoint.inFlight, ejected: revision.breaker.isEjected(id, now) };
    }
    return {
      waiting: this.queue.size,
      inFlight: this.inFlight,
      arrivals: this.arrivals,
      refused: this.refused,
      lastActiveAt: this.lastActiveAt,
      revisions: Object.fromEntries([...this.revisions].map(([id, revision]) => [id, revision.stats()])),
      endpoints,
    };
  }
}
