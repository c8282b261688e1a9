/**
 * The control loop: observe, decide, act, publish, once a tick. The one owner of what the fleet is meant to be and of each
 * service's memory; all that decides is pure and elsewhere, all that acts is behind `replicas` and `gateway`.
 */
import type { Logger } from 'pino';
import { assert } from '../../base/assert.ts';
import { decideScale } from '../autoscaler/scaler.ts';
import { decideService } from '../control/decide.ts';
import type { Action, Condition, FleetEvent, ServiceDecision, ServiceState } from '../control/fleet_state.ts';
import type { Room } from '../control/placement.ts';
import type { GatewayStats, RoutingTable, ServiceRoute, ServiceStats } from '../gateway/routing_table.ts';
import type { FleetSpec, GatewaySpec, ServiceSpec } from '../spec/fleet_spec.ts';
import { type MachineSource, type MeasuredFootprints, machineRoom, observeMachine } from './machine_observed.ts';
import type { Observer } from './observer.ts';
import type { ReplicaRecord } from './replica_lifecycle.ts';
import { withNames } from './replica_process.ts';
import type { Replicas } from './replicas.ts';
import type { StateStore } from './state_store.ts';
import { Timeline } from './timeline.ts';

/** The gateway, as a process of its own. */
export interface GatewayLink {
  /** Starts it where none runs, replaces it where its address changed. */
  tend(spec: GatewaySpec, now: number): Promise<FleetEvent[]>;
  /** Null = no answer. */
  stats(): Promise<GatewayStats | null>;
  /** False = not taken; it is sent again. */
  publish(table: RoutingTable): Promise<boolean>;
}

export interface FleetOptions {
  readonly store: StateStore;
  readonly replicas: Replicas;
  readonly observer: Observer;
  readonly gateway: GatewayLink;
  readonly machine: MachineSource;
  readonly measured: MeasuredFootprints;
  readonly log: Logger;
  readonly now: () => number;
}

const SCRAPE_PERIOD_MS = 1000;
const ROOM_PERIOD_MS = 1000;

export interface ServiceView {
  readonly spec: ServiceSpec;
  readonly state: ServiceState | null;
  readonly route: ServiceRoute | null;
  readonly conditions: readonly Condition[];
}

export class Fleet {
  readonly timeline = new Timeline();
  private readonly options: FleetOptions;
  private spec: FleetSpec | null = null;
  /** Its services, with their names in the templates. */
  private named: readonly ServiceSpec[] = [];
  private readonly states = new Map<string, ServiceState>();
  /** As the store has them. */
  private readonly saved = new Map<string, string>();
  private readonly decisions = new Map<string, ServiceDecision>();
  private readonly commands: ((now: number) => void)[] = [];
  private readonly complaints = new Map<string, string>();
  private table: RoutingTable | null = null;
  private tableText = '';
  private acknowledged = 0;
  private readyInTable: ReadonlySet<string> = new Set();
  private room: { readonly at: number; readonly room: Room } | null = null;
  private scrapedAt = Number.NEGATIVE_INFINITY;
  private isScraping = false;

  constructor(options: FleetOptions) {
    this.options = options;
    for (const state of options.store.services()) this.states.set(state.id, state);
  }

  currentSpec(): FleetSpec | null {
    return this.spec;
  }

  setSpec(spec: FleetSpec): void {
    this.spec = spec;
    this.named = spec.services.map((service) => ({
      ...service,
      template: withNames(service.template, service.models),
      canaries: service.canaries.map((canary) => ({ ...canary, template: withNames(canary.template, service.models) })),
    }));
  }

  service(id: string): ServiceView | null {
    const spec = this.spec?.services.find((service) => service.id === id);
    if (spec === undefined) return null;
    const decision = this.decisions.get(id);
    return {
      spec,
      state: this.states.get(id) ?? null,
      route: decision?.route ?? null,
      conditions: decision?.conditions ?? [],
    };
  }

  /** The gateway has the table that holds now. */
  isPublished(): boolean {
    return this.table !== null && this.acknowledged === this.table.version;
  }

  inFlightOf(record: ReplicaRecord): number {
    return statsOf(this.options.observer.gatewayStats(), record.service)?.endpoints[record.id]?.inFlight ?? 0;
  }

  signalsOf(service: ServiceSpec): Readonly<Record<string, number | null>> {
    return this.options.observer.signals(service, this.options.now());
  }

  /** Runs at the begin of the next tick: nothing changes while a tick decides. */
  command<T>(run: (now: number) => T): Promise<T> {
    return new Promise((resolve, reject) => {
      this.commands.push((now) => {
        try {
          resolve(run(now));
        } catch (error) {
          reject(error);
        }
      });
    });
  }

  /** The memory of one service, on disk first. */
  putState(state: ServiceState): void {
    const text = JSON.stringify(state);
    if (this.saved.get(state.id) !== text) this.options.store.putService(state.id, text);
    this.saved.set(state.id, text);
    this.states.set(state.id, state);
  }

  async tick(): Promise<void> {
    const { replicas, gateway, observer } = this.options;
    const now = this.options.now();
    for (const run of this.commands.splice(0)) run(now);
    const spec = this.spec;
    const events = await replicas.tick(now, (id) => !this.readyInTable.has(id));
    if (spec === null) return this.tell(events);
    events.push(...(await gateway.tend(spec.gateway, now)));
    const stats = await gateway.stats();
    if (stats !== null) observer.noteStats(stats, spec.services, now);
    this.scrape(now);
    for (const service of this.named) events.push(...this.decide(service, stats, now));
    events.push(...this.retire(spec, now));
    await this.publish(spec, stats);
    if (stats !== null && this.timeline.isLoadDue(now)) this.noteLoad(spec, stats, now);
    this.tell(events);
    // What was decided is begun now: the records are on disk, and the table has been sent.
    this.tell(await replicas.tick(now, (id) => !this.readyInTable.has(id)));
  }

  private tell(events: readonly FleetEvent[]): void {
    this.options.store.appendEvents(events);
    for (const { service, type, text } of events) this.options.log.info({ service, event: type }, text);
  }

  private scrape(now: number): void {
    if (this.isScraping || now - this.scrapedAt < SCRAPE_PERIOD_MS) return;
    this.isScraping = true;
    this.scrapedAt = now;
    void this.options.observer.scrape(this.options.replicas.all(), now).then(
      () => {
        this.isScraping = false;
      },
      (error: unknown) => {
        this.isScraping = false;
        this.options.log.error({ err: error }, 'scraping failed');
      },
    );
  }

  private decide(service: ServiceSpec, stats: GatewayStats | null, now: number): FleetEvent[] {
    const { replicas, observer, store } = this.options;
    const { id } = service;
    const of = statsOf(stats, id);
    const records = replicas.ofService(id);
    const before = this.states.get(id) ?? null;
    const observed = {
      replicas: replicas.observed(id, (replica) => of?.endpoints[replica]?.inFlight ?? 0),
      revisions: of?.revisions ?? {},
      machine: observeMachine(this.machineRoom(now), replicas.all(), this.options.measured),
    };
    const alive = records.filter(({ phase }) => phase !== 'draining' && phase !== 'asleep').length;
    const counts = {
      replicas: before?.replicasWanted ?? alive,
      readyReplicas: records.filter(({ phase }) => phase === 'ready').length,
      startMs: replicas.startMs(id),
      wakeMs: null,
    };
    const scale = decideScale(
      service.scaling,
      observer.scaleObserved(service, counts, now),
      before?.scaling ?? null,
      now,
    );
    const decision = decideService(service, before, observed, scale.replicas, now);
    const state: ServiceState = { ...decision.state, scaling: scale.memory };
    const events: FleetEvent[] = [...decision.events];
    this.noteScale(id, before, state, scale.reason, events, now);
    store.transaction(() => {
      this.putState(state);
      for (const action of decision.actions) events.push(...this.act(action, service, state, now));
    });
    this.decisions.set(id, decision);
    return events;
  }

  private noteScale(
    id: string,
    before: ServiceState | null,
    state: ServiceState,
    reason: string,
    events: FleetEvent[],
    now: number,
  ): void {
    const replicas = state.replicasPinned ?? state.replicasWanted ?? 0;
    const why = state.replicasPinned === null ? reason : `${replicas}, set by hand`;
    const isNew = this.timeline.noteDecision({ at: now, service: id, replicas, reason: why });
    const last = before === null ? null : (before.replicasPinned ?? before.replicasWanted);
    if (!isNew || last === null || last === replicas) return;
    events.push({ at: now, service: id, type: 'Scaling', text: `${last} -> ${replicas} replicas: ${why}` });
  }

  private act(action: Action, service: ServiceSpec, state: ServiceState, now: number): FleetEvent[] {
    const { replicas } = this.options;
    if (action.kind === 'stop') {
      replicas.stop(action.replica, action.reason, now);
      return [];
    }
    if (action.kind !== 'start' || action.asleep) {
      return this.complain(
        service.id,
        'SleepUnsupported',
        'replicas cannot sleep: tokenmill serve has no /sleep; set standby to 0',
        now,
      );
    }
    const revision = state.revisions.find(({ id }) => id === action.revision);
    assert(revision !== undefined, `a start of the unknown revision ${action.revision}`);
    for (let i = 0; i < action.count; i++) {
      replicas.create({ service: service.id, revision: revision.id, template: revision.template }, now);
    }
    return [];
  }

  /** Once, until it is another sentence. */
  private complain(service: string, type: string, text: string, now: number): FleetEvent[] {
    if (this.complaints.get(`${service} ${type}`) === text) return [];
    this.complaints.set(`${service} ${type}`, text);
    return [{ at: now, service, type, text }];
  }

  /** Services that are no longer asked for: their replicas end, then they are forgotten. */
  private retire(spec: FleetSpec, now: number): FleetEvent[] {
    const { replicas, store } = this.options;
    const asked = new Set(spec.services.map(({ id }) => id));
    const events: FleetEvent[] = [];
    for (const record of replicas.all()) {
      if (!asked.has(record.service)) replicas.stop(record.id, 'its service was deleted', now);
    }
    for (const id of this.states.keys()) {
      if (asked.has(id) || replicas.ofService(id).length > 0) continue;
      store.deleteService(id);
      this.states.delete(id);
      this.saved.delete(id);
      this.decisions.delete(id);
      this.timeline.forget(id);
      events.push({ at: now, service: id, type: 'Deleted', text: 'its last replica has ended' });
    }
    const revisions = [...this.states.values()].flatMap((state) => state.revisions.map(({ id }) => id));
    this.options.measured.keepOnly(new Set(revisions));
    return events;
  }

  private async publish(spec: FleetSpec, stats: GatewayStats | null): Promise<void> {
    const { gateway, store } = this.options;
    const services = spec.services.flatMap(({ id }) => {
      const route = this.decisions.get(id)?.route;
      return route === undefined ? [] : [route];
    });
    const body = { services, routes: spec.routes, graphs: spec.graphs, gateway: spec.gateway };
    const text = JSON.stringify(body);
    if (text !== this.tableText || this.table === null) {
      const version = store.tableVersion() + 1;
      store.putTableVersion(version);
      this.table = { version, ...body };
      this.tableText = text;
    }
    const isKnown =
      this.acknowledged === this.table.version && (stats === null || stats.tableVersion >= this.acknowledged);
    if (isKnown || !(await gateway.publish(this.table))) return;
    this.acknowledged = this.table.version;
    this.readyInTable = new Set(readyEndpoints(services));
  }

  private machineRoom(now: number): Room {
    if (this.room === null || now - this.room.at >= ROOM_PERIOD_MS) {
      this.room = { at: now, room: machineRoom(this.options.machine, this.options.replicas.all()) };
    }
    return this.room.room;
  }

  private noteLoad(spec: FleetSpec, stats: GatewayStats, now: number): void {
    const services = spec.services.map(({ id }) => {
      const state = this.states.get(id);
      const ready = this.options.replicas.ofService(id).filter(({ phase }) => phase === 'ready').length;
      return { service: id, ready, wanted: state?.replicasPinned ?? state?.replicasWanted ?? 0 };
    });
    this.timeline.noteLoad(services, stats, now);
  }
}

function statsOf(stats: GatewayStats | null, id: string): ServiceStats | null {
  return stats !== null && Object.hasOwn(stats.services, id) ? (stats.services[id] as ServiceStats) : null;
}

function readyEndpoints(services: readonly ServiceRoute[]): string[] {
  return services.flatMap(({ revisions }) =>
    revisions.flatMap(({ endpoints }) => endpoints.filter(({ state }) => state === 'ready').map(({ id }) => id)),
  );
}
