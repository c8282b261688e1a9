/** The one owner of the replicas: their records, their probes and what is done to their processes. */
import type { Logger } from 'pino';
import type { FleetEvent, ReplicaObserved } from '../control/fleet_state.ts';
import type { ProbeSpec } from '../spec/fleet_spec.ts';
import { afterLook, isDue, looking, newProbe, type ProbeState } from './probe_state.ts';
import { isAlive, type ProcessIdentity } from './process_identity.ts';
import { advance, type Effect, ended, newReplica, type ReplicaRecord, stopReplica } from './replica_lifecycle.ts';
import type { Started } from './replica_process.ts';
import type { StateStore } from './state_store.ts';

/** What is done to the machine; tests have one of their own. */
export interface ReplicaHost {
  freePort(): Promise<number>;
  start(record: ReplicaRecord): Started | null;
  isAlive(process: ProcessIdentity): boolean;
  signal(process: ProcessIdentity, signal: 'SIGTERM' | 'SIGKILL'): void;
  /** Whether an answer of 2xx or 3xx came in time. */
  probe(url: string, timeoutMs: number): Promise<boolean>;
  /** CPUs for a replica that asks for so many; null = all. */
  chooseCpus(taken: readonly (readonly number[] | null)[], cpuMilli: number | null): readonly number[] | null;
  /** Its log is no longer of use. */
  retire(id: string): void;
}

const PROBES = ['startup', 'readiness', 'liveness'] as const;
type ProbeName = (typeof PROBES)[number];

interface Runtime {
  readonly probes: Record<ProbeName, ProbeState>;
  /** Of the process; an answer to a probe of an earlier one says nothing. */
  readonly generation: number;
  exit: string;
}

/** Starts whose durations are remembered, of each service. */
const START_HISTORY = 15;

export interface ReplicasOptions {
  readonly store: StateStore;
  readonly host: ReplicaHost;
  readonly log: Logger;
  /** Five letters and digits of a new name. */
  readonly suffix: () => string;
  /** Something happened that a tick should not wait for. */
  readonly wake: () => void;
  readonly now: () => number;
}

export class Replicas {
  private readonly records = new Map<string, ReplicaRecord>();
  private readonly runtimes = new Map<string, Runtime>();
  private readonly startsMs = new Map<string, number[]>();
  private generations = 0;
  private readonly options: ReplicasOptions;

  /** Takes over what the store knows of. */
  constructor(options: ReplicasOptions) {
    this.options = options;
    for (const record of options.store.replicas()) this.adopt(record);
  }

  all(): readonly ReplicaRecord[] {
    return [...this.records.values()];
  }

  get(id: string): ReplicaRecord | null {
    return this.records.get(id) ?? null;
  }

  ofService(service: string): readonly ReplicaRecord[] {
    return this.all().filter((record) => record.service === service);
  }

  /** Median of the service's own starts, ms; null = none was seen. */
  startMs(service: string): number | null {
    const seen = [...(this.startsMs.get(service) ?? [])].sort((a, b) => a - b);
    return seen[seen.length >> 1] ?? null;
  }

  /** When a tick is worth its while, ms; for what no event announces. */
  nextAt(): number {
    let next = Number.POSITIVE_INFINITY;
    for (const record of this.records.values()) {
      const probes = this.runtimes.get(record.id)?.probes;
      if (probes !== undefined) next = Math.min(next, ...this.watched(record).map((name) => probes[name].nextAt));
      if (record.process === null) next = Math.min(next, record.restartAt ?? 0);
    }
    return next;
  }

  /** The record is there at once; its process starts with the next tick. */
  create(of: Pick<ReplicaRecord, 'service' | 'revision' | 'template'>, now: number): ReplicaRecord {
    let id = `${of.revision}-${this.options.suffix()}`;
    while (this.records.has(id)) id = `${of.revision}-${this.options.suffix()}`;
    const record = newReplica({ ...of, id }, now);
    this.put(record);
    return record;
  }

  stop(id: string, reason: string, now: number): void {
    const record = this.records.get(id);
    if (record !== undefined) this.put(stopReplica(record, reason, now));
  }

  /** @param leftTable whether the gateway has a table in which it gets nothing new */
  async tick(now: number, leftTable: (id: string) => boolean): Promise<FleetEvent[]> {
    const events: FleetEvent[] = [];
    for (const record of this.all()) {
      const runtime = this.runtimes.get(record.id);
      const verdict = (name: ProbeName): boolean | null => runtime?.probes[name].passing ?? null;
      const step = advance(
        record,
        {
          alive: record.process !== null && this.options.host.isAlive(record.process),
          exit: runtime?.exit ?? '',
          startup: verdict('startup'),
          readiness: verdict('readiness'),
          liveness: verdict('liveness'),
          leftTable: leftTable(record.id),
        },
        now,
      );
      if (step.record !== record) this.put(step.record);
      if (record.readyAt === null && step.record.readyAt !== null) this.noteStart(step.record, now);
      for (const [type, text] of step.events) events.push({ at: now, service: record.service, type, text });
      for (const effect of step.effects) await this.carryOut(effect, step.record, now);
    }
    this.lookAround(now);
    return events;
  }

  observed(service: string, inFlightOf: (id: string) => number): ReplicaObserved[] {
    return this.ofService(service).map((record) => ({
      id: record.id,
      service,
      revision: record.revision,
      phase: record.phase,
      url: urlOf(record),
      pid: record.process?.pid ?? null,
      createdAt: record.createdAt,
      readyAt: record.readyAt,
      restarts: record.restarts,
      restartAt: record.restartAt,
      inFlight: inFlightOf(record.id),
    }));
  }

  private adopt(record: ReplicaRecord): void {
    this.records.set(record.id, record);
    if (record.process === null) return;
    this.watch(record, this.options.now());
    const runtime = this.runtimes.get(record.id) as Runtime;
    // What it had passed before is passed: a new supervisor is no reason to take it out of the table.
    if (record.phase === 'ready' || record.phase === 'unready') {
      runtime.probes.startup = { ...runtime.probes.startup, passing: true };
      runtime.probes.readiness = { ...runtime.probes.readiness, passing: record.phase === 'ready' };
    }
  }

  private put(record: ReplicaRecord): void {
    this.records.set(record.id, record);
    this.options.store.putReplica(record);
  }

  private watch(record: ReplicaRecord, now: number): Runtime {
    const { startup, readiness, liveness } = record.template;
    const probes = {
      startup: newProbe(startup, now),
      readiness: newProbe(readiness, now),
      liveness: newProbe(liveness, now),
    };
    this.generations++;
    const runtime: Runtime = { probes, generation: this.generations, exit: '' };
    this.runtimes.set(record.id, runtime);
    return runtime;
  }

  private async carryOut(effect: Effect, record: ReplicaRecord, now: number): Promise<void> {
    const { host, store, log } = this.options;
    if (effect === 'spawn') return this.spawn(record, now);
    if (effect === 'forget') {
      this.records.delete(record.id);
      this.runtimes.delete(record.id);
      store.deleteReplica(record.id);
      host.retire(record.id);
      return;
    }
    if (record.process === null) return;
    log.info({ process: record.process.pid }, `${effect === 'term' ? 'SIGTERM' : 'SIGKILL'} to ${record.id}`);
    host.signal(record.process, effect === 'term' ? 'SIGTERM' : 'SIGKILL');
  }

  private async spawn(record: ReplicaRecord, now: number): Promise<void> {
    const { host } = this.options;
    const cpus = host.chooseCpus(
      this.all()
        .filter(({ id, process }) => id !== record.id && process !== null)
        .map(({ cpus }) => cpus),
      record.template.cpuMilli,
    );
    const prepared = { ...record, port: await host.freePort(), cpus, startedAt: now };
    // Recorded before it is done: what is started and not yet recorded is found again by its mark.
    this.put(prepared);
    const started = host.start(prepared);
    if (started === null) {
      this.put(ended(prepared, 'its process could not be started', now).record);
      return;
    }
    this.put({ ...prepared, process: started.process });
    const runtime = this.watch(prepared, now);
    void started.ended.then((exit) => {
      runtime.exit = exit;
      this.options.wake();
    });
  }

  private noteStart(record: ReplicaRecord, now: number): void {
    const seen = this.startsMs.get(record.service) ?? [];
    seen.push(now - (record.startedAt ?? now));
    this.startsMs.set(record.service, seen.slice(-START_HISTORY));
  }

  /** Probes that matter now: the startup probe alone until it has passed, none while it ends. */
  private watched(record: ReplicaRecord): readonly ProbeName[] {
    const runtime = this.runtimes.get(record.id);
    if (runtime === undefined || record.process === null || record.ending !== null) return [];
    return runtime.probes.startup.passing === true ? ['readiness', 'liveness'] : ['startup'];
  }

  private lookAround(now: number): void {
    for (const record of this.records.values()) {
      const runtime = this.runtimes.get(record.id);
      if (runtime === undefined) continue;
      for (const name of this.watched(record)) {
        if (isDue(runtime.probes[name], now)) this.look(record, runtime, name, now);
      }
    }
  }

  private look(record: ReplicaRecord, runtime: Runtime, name: ProbeName, now: number): void {
    const spec: ProbeSpec = record.template[name];
    runtime.probes[name] = looking(runtime.probes[name], spec, now);
    void this.options.host.probe(`${urlOf(record)}${spec.path}`, spec.timeoutMs).then((ok) => {
      if (this.runtimes.get(record.id)?.generation !== runtime.generation) return;
      const before = runtime.probes[name];
      const eager = name === 'startup' || (name === 'readiness' && this.records.get(record.id)?.readyAt === null);
      runtime.probes[name] = afterLook(before, spec, ok, this.options.now(), eager);
      if (runtime.probes[name].passing !== before.passing) this.options.wake();
    });
  }
}

export function urlOf(record: ReplicaRecord): string {
  return `http://127.0.0.1:${record.port}`;
}

/** Of the replicas recorded without a process, those that were started all the same; what is not recorded at all is ended. */
export function recoverMembers(
  store: StateStore,
  members: ReadonlyMap<string, ProcessIdentity>,
  end: (process: ProcessIdentity) => void,
): void {
  const known = new Map(store.replicas().map((record) => [record.id, record]));
  for (const [id, process] of members) {
    const record = known.get(id);
    if (record === undefined) end(process);
    else if (record.process === null || !isAlive(record.process)) store.putReplica({ ...record, process });
  }
}
