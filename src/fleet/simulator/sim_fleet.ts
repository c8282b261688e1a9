/** The replicas of a simulation: their phases, how long starts take, and what they cost. */
import type { ReplicaObserved } from '../control/fleet_state.ts';
import type { FastRng } from './fast_rng.ts';
import { type BatchTable, batchTable, type Faults, type ReplicaModel } from './replica_model.ts';
import { SimReplica } from './sim_replica.ts';

/** Latest of its kind that medians are taken of. */
const STARTS_KEPT = 16;

export interface Usage {
  /** From the start of a process to its end; and of that, asleep. */
  readonly replicaMs: number;
  readonly asleepMs: number;
  readonly starts: number;
}

export function usageSince(before: Usage | null, after: Usage): Usage {
  return {
    replicaMs: after.replicaMs - (before?.replicaMs ?? 0),
    asleepMs: after.asleepMs - (before?.asleepMs ?? 0),
    starts: after.starts - (before?.starts ?? 0),
  };
}

export class SimFleet {
  private readonly model: ReplicaModel;
  private readonly faults: Faults;
  private readonly rng: FastRng;
  private readonly table: BatchTable;
  private readonly all: SimReplica[] = [];
  /** Not gone. */
  private live: SimReplica[] = [];
  private readonly generations: number[] = [];
  private readonly since: number[] = [];
  private readonly starts: number[] = [];
  private readonly wakes: number[] = [];
  private endedMs = 0;
  private asleepMs = 0;

  constructor(model: ReplicaModel, faults: Faults, rng: FastRng) {
    this.model = model;
    this.faults = faults;
    this.rng = rng;
    this.table = batchTable(model);
  }

  at(index: number): SimReplica {
    return this.all[index] as SimReplica;
  }

  /** Events of a start or wake that was overtaken carry an old one. */
  generation(index: number): number {
    return this.generations[index] as number;
  }

  get readyCount(): number {
    return this.count((replica) => replica.phase === 'ready');
  }

  /** Ready or about to be. */
  get servingCount(): number {
    return this.count(
      ({ phase, toSleep }) => !toSleep && (phase === 'ready' || phase === 'starting' || phase === 'waking'),
    );
  }

  get ready(): readonly SimReplica[] {
    return this.live.filter(({ phase }) => phase === 'ready');
  }

  get startMs(): number | null {
    return median(this.starts);
  }

  get wakeMs(): number | null {
    return median(this.wakes);
  }

  /** null = all are full. */
  leastLoaded(): SimReplica | null {
    let best: SimReplica | null = null;
    let least = this.model.slots;
    for (const replica of this.live) {
      if (replica.phase !== 'ready') continue;
      const load = replica.inFlight;
      if (load < least) [best, least] = [replica, load];
    }
    return best;
  }

  busiest(): SimReplica | null {
    return this.ready.reduce<SimReplica | null>(
      (most, replica) => (most === null || replica.inFlight > most.inFlight ? replica : most),
      null,
    );
  }

  /** `readyAt` null = it is stuck. */
  start(
    now: number,
    asleep: boolean,
  ): { readonly index: number; readonly readyAt: number | null; readonly timeoutAt: number } {
    const index = this.all.length;
    const replica = new SimReplica(index, this.table, now, asleep);
    this.all.push(replica);
    this.live.push(replica);
    this.generations.push(0);
    this.since.push(now);
    const stuck = this.rng.next() < this.faults.stuckStarts;
    const { medianMs, sigma } = this.model.start;
    const readyAt = stuck ? null : now + this.rng.logNormal(medianMs, sigma);
    return { index, readyAt, timeoutAt: now + this.faults.startTimeoutMs };
  }

  /** null = there is nothing to wait for: it was not asleep yet. */
  wake(id: string, now: number): { readonly index: number; readonly readyAt: number } | null {
    const replica = this.byId(id);
    replica.toSleep = false;
    if (replica.phase === 'draining') replica.phase = 'ready';
    if (replica.phase !== 'asleep') return null;
    this.leaveSleep(replica, now);
    replica.phase = 'waking';
    return { index: replica.index, readyAt: now + this.model.wakeMs };
  }

  sleep(id: string, now: number): void {
    const replica = this.byId(id);
    replica.toSleep = true;
    replica.phase = 'draining';
    this.settle(replica, now);
  }

  stop(id: string, now: number): void {
    const replica = this.byId(id);
    if (replica.phase !== 'ready') {
      this.remove(replica, now);
      return;
    }
    replica.toSleep = false;
    replica.phase = 'draining';
    this.settle(replica, now);
  }

  /** A drained one ends or sleeps. */
  settle(replica: SimReplica, now: number): void {
    if (replica.phase !== 'draining' || replica.inFlight > 0) return;
    if (!replica.toSleep) this.remove(replica, now);
    else this.fallAsleep(replica, now);
  }

  /** False = the event is of a start that no longer counts. */
  becomeReady(index: number, generation: number, now: number): boolean {
    const replica = this.at(index);
    if (generation !== this.generation(index)) return false;
    const took = now - (this.since[index] as number);
    if (replica.phase === 'waking') keep(this.wakes, took);
    else if (replica.phase === 'starting') keep(this.starts, took);
    else return false;
    this.generations[index] = generation + 1;
    if (replica.toSleep) {
      this.fallAsleep(replica, now);
      return false;
    }
    replica.phase = 'ready';
    replica.readyAt = now;
    return true;
  }

  giveUp(index: number, generation: number, now: number): boolean {
    const replica = this.at(index);
    if (generation !== this.generation(index) || replica.phase !== 'starting') return false;
    this.remove(replica, now);
    return true;
  }

  remove(replica: SimReplica, now: number): void {
    if (replica.phase === 'asleep') this.leaveSleep(replica, now);
    replica.phase = 'gone';
    this.generations[replica.index] = this.generation(replica.index) + 1;
    this.endedMs += now - replica.createdAt;
    this.live = this.live.filter((other) => other !== replica);
  }

  observed(service: string, startAt: number): ReplicaObserved[] {
    return this.live.map((replica) => ({
      id: idOf(replica),
      service,
      revision: 'simulated',
      phase: observedPhase(replica),
      url: '',
      pid: null,
      createdAt: startAt + replica.createdAt,
      readyAt: replica.readyAt === null ? null : startAt + replica.readyAt,
      restarts: 0,
      restartAt: null,
      inFlight: replica.inFlight,
    }));
  }

  usage(now: number): Usage {
    const running = this.live.reduce((sum, replica) => sum + now - replica.createdAt, 0);
    const asleep = this.live.filter(({ phase }) => phase === 'asleep');
    const asleepNow = asleep.reduce((sum, { index }) => sum + now - (this.since[index] as number), 0);
    return { replicaMs: this.endedMs + running, asleepMs: this.asleepMs + asleepNow, starts: this.all.length };
  }

  private count(fits: (replica: SimReplica) => boolean): number {
    let count = 0;
    for (const replica of this.live) if (fits(replica)) count++;
    return count;
  }

  private fallAsleep(replica: SimReplica, now: number): void {
    replica.phase = 'asleep';
    this.since[replica.index] = now;
  }

  private leaveSleep({ index }: SimReplica, now: number): void {
    this.asleepMs += now - (this.since[index] as number);
    this.since[index] = now;
  }

  private byId(id: string): SimReplica {
    return this.at(Number(id.slice(1)));
  }
}

function idOf({ index }: SimReplica): string {
  return `r${index}`;
}

/** What is on its way to sleep can be woken like what sleeps. */
function observedPhase({ phase, toSleep }: SimReplica): ReplicaObserved['phase'] {
  if (toSleep) return 'asleep';
  return phase === 'waking' || phase === 'gone' ? 'starting' : phase;
}

function keep(times: number[], time: number): void {
  times.push(time);
  if (times.length > STARTS_KEPT) times.shift();
}

function median(times: readonly number[]): number | null {
  return times.length === 0 ? null : (times.toSorted((a, b) => a - b)[times.length >> 1] as number);
}
