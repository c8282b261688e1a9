/**
 * A service in virtual time: arrivals, gateway, replicas after a model, and the very code that decides in `tokenmill up`, at its
 * real periods. Deterministic: the same arguments give the same result.
 */
import { assert } from '../../base/assert.ts';
import { TokenmillError } from '../../base/errors.ts';
import type { FleetEvent } from '../control/fleet_state.ts';
import type { FleetSpec, ServiceSpec } from '../spec/fleet_spec.ts';
import type { Arrivals } from './arrivals.ts';
import { type Control, type ControlSeen, scaleControl } from './control.ts';
import { EventHeap } from './event_heap.ts';
import { FastRng } from './fast_rng.ts';
import { type Faults, NO_FAULTS, type ReplicaModel } from './replica_model.ts';
import { judge, type SimulationResult, Timeline, type TimelineRow } from './result.ts';
import { Scraper } from './scraper.ts';
import { SimFleet, type Usage, usageSince } from './sim_fleet.ts';
import { SimGateway } from './sim_gateway.ts';

export interface SimulationOptions {
  /** Of the fleet; null = its only one. */
  readonly service: string | null;
  readonly model: ReplicaModel;
  readonly faults: Faults;
  readonly seed: number;
  /** What the clock shows at the start, ms since 1970: patterns of the day and cron triggers go by it. */
  readonly startAt: number;
  /** The simulation ends then, or when the last request has ended if that is later; null = then. */
  readonly endMs: number | null;
  /** Rounds of the control loop, of scraping the replicas, and rows of the timeline, ms. */
  readonly controlMs: number;
  readonly scrapeMs: number;
  readonly timelineMs: number;
  /** What the result is measured by; null = not asked for. */
  readonly objectives: { readonly ttftMs: number | null; readonly tpotMs: number | null };
  readonly costs: { readonly perReplicaHour: number /** Of that, for one asleep. */; readonly asleepShare: number };
  /** The objective must be met again within this time, ms. */
  readonly recoverMs: number;
  /** Requests before that count for load and not for the result: rules that learn have learned by then, ms. */
  readonly measureFromMs: number;
  /** In place of the service's scaling rule. */
  readonly control: ((service: ServiceSpec) => Control) | null;
}

const DEFAULTS: Omit<SimulationOptions, 'model'> = {
  service: null,
  faults: NO_FAULTS,
  seed: 1,
  startAt: 0,
  endMs: null,
  controlMs: 1000,
  scrapeMs: 15_000,
  timelineMs: 60_000,
  objectives: { ttftMs: null, tpotMs: null },
  costs: { perReplicaHour: 1, asleepShare: 0.2 },
  recoverMs: 900_000,
  measureFromMs: 0,
  control: null,
};

const EVENT = { replica: 0, started: 1, control: 2, crash: 3, timeout: 4 } as const;

const MAX_EVENTS_KEPT = 20_000;
/** After the end, until the last request is done. */
const MAX_TAIL_MS = 86_400_000;

/** `invalid_request` when the service or the model is none. */
export function simulate(
  fleet: FleetSpec,
  arrivals: Arrivals,
  given: Partial<SimulationOptions> & Pick<SimulationOptions, 'model'>,
): SimulationResult {
  const options = { ...DEFAULTS, ...given };
  const simulation = new Simulation(serviceOf(fleet, options.service), arrivals, options);
  simulation.run();
  return simulation.result();
}

function serviceOf({ services }: FleetSpec, id: string | null): ServiceSpec {
  const found = id === null ? (services.length === 1 ? services[0] : undefined) : services.find((one) => one.id === id);
  if (found !== undefined) return found;
  const names = services.map((service) => service.id).join(', ') || 'none';
  const what = id === null ? 'Which service to simulate is not said' : `No service has the id ${JSON.stringify(id)}`;
  throw new TokenmillError('invalid_request', `${what}; there are: ${names}.`);
}

class Simulation {
  private readonly service: ServiceSpec;
  private readonly arrivals: Arrivals;
  private readonly options: SimulationOptions;
  private readonly heap = new EventHeap();
  private readonly gateway: SimGateway;
  private readonly replicas: SimFleet;
  private readonly scraper: Scraper;
  private readonly control: Control;
  private readonly timeline: Timeline;
  private readonly events: FleetEvent[] = [];
  private readonly boundsBroken: string[] = [];
  private now = 0;
  private wanted = 0;
  private controlPending = false;
  /** When measuring began. */
  private baseline: Usage | null = null;

  constructor(service: ServiceSpec, arrivals: Arrivals, options: SimulationOptions) {
    this.service = service;
    this.arrivals = arrivals;
    this.options = options;
    this.gateway = new SimGateway(arrivals, service.traffic.queue);
    this.replicas = new SimFleet(options.model, options.faults, new FastRng(options.seed));
    this.scraper = new Scraper(service, this.gateway, this.replicas, options);
    this.control = (options.control ?? scaleControl)(service);
    this.timeline = new Timeline(options.timelineMs, options.measureFromMs);
  }

  run(): void {
    const { atMs, count } = this.arrivals;
    const endMs = Math.max(this.options.endMs ?? 0, count > 0 ? (atMs[count - 1] as number) : 0);
    for (const at of this.options.faults.crashesAtMs) this.heap.push(at, EVENT.crash, 0, 0);
    this.heap.push(0, EVENT.control, 0, 0);
    let next = 0;
    for (;;) {
      const arrival = next < count ? (atMs[next] as number) : Number.POSITIVE_INFINITY;
      const until = Math.min(arrival, this.heap.nextTime);
      if (until > endMs && (this.gateway.open === 0 || until > endMs + MAX_TAIL_MS)) break;
      this.now = until;
      if (arrival <= this.heap.nextTime) this.arrive(next++);
      else this.handle();
    }
    this.now = Math.max(this.now, endMs);
    this.row();
  }

  result(): SimulationResult {
    const { gateway, options, service, boundsBroken, now } = this;
    const usage = usageSince(this.baseline, this.replicas.usage(now));
    const events = this.events.filter(({ at }) => at >= options.startAt + options.measureFromMs);
    const { rows } = this.timeline;
    return judge({ gateway, options, service, events, boundsBroken, usage, rows, endedAt: now });
  }

  private arrive(request: number): void {
    const isAtZero = this.replicas.servingCount === 0;
    this.gateway.arrive(request, this.now, this.replicas.readyCount === 0);
    this.dispatch();
    // The gateway tells the control loop at once that there is something to wake for.
    if (isAtZero && !this.controlPending) {
      this.controlPending = true;
      this.heap.push(this.now, EVENT.control, 1, 0);
    }
  }

  private handle(): void {
    const { heap } = this;
    heap.pop();
    const { kind, a, b } = heap;
    if (kind === EVENT.control) this.round(a === 0);
    else if (kind === EVENT.crash) this.crash();
    else if (kind === EVENT.started) this.started(a, b);
    else if (kind === EVENT.timeout) this.timedOut(a, b);
    else this.step(a, b);
  }

  private step(index: number, version: number): void {
    const replica = this.replicas.at(index);
    if (replica.version !== version) return;
    replica.run(this.arrivals.promptTokens, this.arrivals.outputTokens, this.now, this.gateway);
    this.replicas.settle(replica, this.now);
    this.schedule(index);
    this.dispatch();
  }

  private schedule(index: number): void {
    const replica = this.replicas.at(index);
    const time = replica.nextTime;
    replica.version++;
    if (Number.isFinite(time)) this.heap.push(Math.max(time, this.now), EVENT.replica, index, replica.version);
  }

  private dispatch(): void {
    while (this.gateway.waiting > 0) {
      const replica = this.replicas.leastLoaded();
      if (replica === null) return;
      replica.admit(this.gateway.take(), this.arrivals.promptTokens, this.now);
      this.schedule(replica.index);
    }
  }

  private started(index: number, generation: number): void {
    if (!this.replicas.becomeReady(index, generation, this.now)) return;
    this.dispatch();
  }

  private timedOut(index: number, generation: number): void {
    if (this.replicas.giveUp(index, generation, this.now))
      this.note('StartTimedOut', `replica ${index} never became ready`);
  }

  private crash(): void {
    const replica = this.replicas.busiest();
    if (replica === null) return;
    const { unstarted, broken } = replica.crash();
    this.replicas.remove(replica, this.now);
    replica.version++;
    this.gateway.broken(broken, this.now);
    this.gateway.putBack(unstarted);
    this.note('ReplicaCrashed', `${broken.length} requests broken, ${unstarted.length} tried again`);
    this.dispatch();
  }

  private note(type: string, text: string): void {
    this.keep({ at: this.options.startAt + this.now, service: this.service.id, type, text });
  }

  private keep(event: FleetEvent): void {
    if (this.events.length < MAX_EVENTS_KEPT) this.events.push(event);
  }

  private round(isRegular: boolean): void {
    const { now } = this;
    if (now >= this.options.measureFromMs) this.baseline ??= this.replicas.usage(now);
    if (!isRegular) this.controlPending = false;
    this.gateway.expire(now, this.replicas.readyCount === 0);
    this.scraper.observe(now);
    const at = this.options.startAt + now;
    const seen: ControlSeen = {
      replicas: this.replicas.observed(this.service.id, this.options.startAt),
      scale: (replicas) => this.scraper.scaleObserved(replicas, now),
      waiting: this.gateway.waiting,
    };
    const { wanted, actions, events } = this.control(seen, at);
    this.wanted = wanted;
    this.checkBounds(wanted);
    for (const event of events) this.keep(event);
    for (const action of actions) this.act(action);
    this.dispatch();
    if (!isRegular) return;
    if (this.timeline.isDue(now)) this.row();
    this.heap.push(now + this.options.controlMs, EVENT.control, 0, 0);
  }

  private checkBounds(wanted: number): void {
    const { minReplicas, maxReplicas } = this.service.scaling;
    if ((wanted < minReplicas || wanted > maxReplicas) && this.boundsBroken.length < 10) {
      this.boundsBroken.push(`${wanted} at ${this.now} ms`);
    }
  }

  private act(action: ReturnType<Control>['actions'][number]): void {
    const { now, replicas, heap } = this;
    if (action.kind === 'start') {
      for (let count = 0; count < action.count; count++) {
        const { index, readyAt, timeoutAt } = replicas.start(now, action.asleep);
        if (readyAt !== null) heap.push(readyAt, EVENT.started, index, replicas.generation(index));
        heap.push(timeoutAt, EVENT.timeout, index, replicas.generation(index));
      }
    } else if (action.kind === 'wake') {
      const waking = replicas.wake(action.replica, now);
      if (waking !== null) heap.push(waking.readyAt, EVENT.started, waking.index, replicas.generation(waking.index));
    } else if (action.kind === 'sleep') replicas.sleep(action.replica, now);
    else replicas.stop(action.replica, now);
  }

  private row(): void {
    const { gateway, replicas } = this;
    const row: Omit<TimelineRow, 'ttftP95Ms' | 'arrivals'> = {
      atMs: this.now,
      wanted: this.wanted,
      ready: replicas.readyCount,
      starting: replicas.servingCount - replicas.readyCount,
      waiting: gateway.waiting,
      inFlight: gateway.inFlight,
    };
    this.timeline.add(row, gateway);
    assert(gateway.inFlight >= 0, 'requests in flight below zero');
  }
}
