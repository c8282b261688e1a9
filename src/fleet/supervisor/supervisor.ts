/** One fleet on this machine: the state folder, the loop, the gateway and the API, put together; and how it ends. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import { AssertionError, assert } from '../../base/assert.ts';
import { systemClock } from '../../base/clock.ts';
import { TokenmillError } from '../../base/errors.ts';
import type { ServiceCommand } from '../control/fleet_state.ts';
import { applyCommand } from '../rollout/commands.ts';
import type { FleetSpec } from '../spec/fleet_spec.ts';
import { readFleet } from '../spec/read_fleet.ts';
import { type Api, startApi } from './api.ts';
import { readApiAddress } from './api_address.ts';
import { Fleet } from './fleet.ts';
import { GatewayProcess, gatewayScript } from './gateway_process.ts';
import { ask } from './http_client.ts';
import { machineHost, pruneLogs, tendLogs } from './machine_host.ts';
import { MeasuredFootprints, thisMachine } from './machine_observed.ts';
import { type FleetFile, filesOf, mergeManifests, splitFile, withoutObject } from './manifests.ts';
import { Observer } from './observer.ts';
import { findMembers, identify, isAlive, requireProc, signalProcess } from './process_identity.ts';
import type { Entry } from './replica_process.ts';
import { Replicas, recoverMembers } from './replicas.ts';
import { type Manifest, SqliteStore, type StateStore, type StoredEvent } from './state_store.ts';
import { FleetViews } from './views.ts';

export interface SupervisorOptions {
  readonly stateDir: string;
  /** What starts replicas: Node and the command line. */
  readonly entry: Entry;
  readonly log: Logger;
  readonly version: string;
  /** Longest wait between two looks at the fleet, ms. */
  readonly tickMs?: number;
  /** Ask the supervisor that runs to hand over. */
  readonly takeOver?: boolean;
}

export type Ending = 'down' | 'handover' | 'kill';

export interface ApplyResult {
  /** What the fleet was meant to be; null = nothing was applied before. */
  readonly before: FleetSpec | null;
  readonly after: FleetSpec;
}

export interface FleetStatus {
  readonly version: string;
  readonly pid: number;
  readonly startedAt: number;
  readonly stateDir: string;
  /** Null while none answers that has the table. */
  readonly gateway: string | null;
  /** Why there is no gateway; null = there is, or it is about to be. */
  readonly problem: string | null;
  readonly services: number;
}

const TICK_MS = 250;
const LEAST_PAUSE_MS = 20;
const LOGS_PERIOD_MS = 5000;
/** What requests in flight get at the end of the fleet. */
const DRAIN_MS = 30_000;
const HANDOVER_PATIENCE_MS = 30_000;
const EMPTY: FleetFile[] = [];

export class Supervisor {
  readonly views: FleetViews;
  /** Resolves when the loop has ended. */
  readonly done: Promise<Ending>;
  private readonly options: SupervisorOptions;
  private readonly store: StateStore;
  private readonly replicas: Replicas;
  private readonly fleet: Fleet;
  private readonly gateway: GatewayProcess;
  private readonly startedAt = systemClock.now();
  private api: Api | null = null;
  private ending: Ending | null = null;
  private wakeUp: (() => void) | null = null;
  private tendedLogsAt = Number.NEGATIVE_INFINITY;
  private finish: (ending: Ending) => void = () => {};
  private fail: (error: unknown) => void = () => {};

  private constructor(options: SupervisorOptions, store: StateStore) {
    const { stateDir, entry, log } = options;
    const now = () => systemClock.now();
    const measured = new MeasuredFootprints();
    const machine = thisMachine();
    const wake = () => this.wake();
    this.options = options;
    this.store = store;
    this.replicas = new Replicas({ store, host: machineHost(stateDir, entry), log, suffix, wake, now });
    this.gateway = new GatewayProcess({ store, stateDir, script: gatewayScript(), log, wake });
    const scrape = async (url: string, timeoutMs: number, maxBytes: number): Promise<string | null> => {
      const answer = await ask({ method: 'GET', url, timeoutMs, maxBytes });
      return answer?.status === 200 ? answer.text : null;
    };
    const observer = new Observer({ scrape, use: machine.use, measured });
    this.fleet = new Fleet({
      store,
      replicas: this.replicas,
      observer,
      gateway: this.gateway,
      machine,
      measured,
      log,
      now,
    });
    this.views = new FleetViews(this.fleet, this.replicas);
    this.done = new Promise((resolve, reject) => {
      this.finish = resolve;
      this.fail = reject;
    });
  }

  /**
   * Takes the state folder, finds again what runs, listens, and begins. Throws `fleet_running` when another one holds the folder
   * and `takeOver` was not asked for.
   */
  static async start(options: SupervisorOptions, files: readonly FleetFile[] = EMPTY): Promise<Supervisor> {
    requireProc();
    const { stateDir, log } = options;
    mkdirSync(stateDir, { recursive: true, mode: 0o700 });
    const store = new SqliteStore(join(stateDir, 'fleet.db'));
    const me = identify(process.pid);
    assert(me !== null, 'this process is not in /proc');
    let kept: FleetSpec | null;
    try {
      // Read before anybody hands over: what this version cannot read, the one that runs goes on with.
      const manifests = files.length > 0 ? [] : store.manifests();
      kept = manifests.length > 0 ? readFleet(filesOf(manifests)) : null;
      if (options.takeOver === true) await askToHandOver(stateDir, log);
      store.lock(me);
    } catch (error) {
      store.close();
      throw error;
    }
    recoverMembers(store, replicaMembers(stateDir), (orphan) => signalProcess(orphan, 'SIGTERM'));
    const supervisor = new Supervisor(options, store);
    try {
      pruneLogs(stateDir, new Set([...supervisor.replicas.all().map(({ id }) => id), 'gateway', 'supervisor']));
      if (files.length > 0) supervisor.adoptFiles(files, true);
      else if (kept !== null) supervisor.fleet.setSpec(kept);
      supervisor.api = await startApi(supervisor, stateDir, log);
    } catch (error) {
      store.unlock(me);
      store.close();
      throw error;
    }
    log.info(
      { version: options.version, stateDir, replicas: supervisor.replicas.all().length },
      'the supervisor begins',
    );
    void supervisor.run();
    return supervisor;
  }

  status(): FleetStatus {
    const { version, stateDir } = this.options;
    return {
      version,
      pid: process.pid,
      startedAt: this.startedAt,
      stateDir,
      gateway: this.fleet.isPublished() ? this.gateway.url() : null,
      problem: this.gateway.problem(),
      services: this.fleet.currentSpec()?.services.length ?? 0,
    };
  }

  events(filter: Parameters<StateStore['events']>[0]): StoredEvent[] {
    return this.store.events(filter);
  }

  timeline(since: number): object {
    return {
      ...this.fleet.timeline.since(since),
      events: this.store.events({ limit: 500 }).filter(({ at }) => at > since),
    };
  }

  /** The member whose log is asked for: a replica by its name, `gateway` or `supervisor`. */
  logMember(given: string): string {
    if (!/^[A-Za-z0-9][A-Za-z0-9._-]*$/.test(given)) {
      throw new TokenmillError(
        'fleet_object_unknown',
        `${JSON.stringify(given.slice(0, 80))} is no name of a replica.`,
      );
    }
    return given;
  }

  apply(
    files: readonly FleetFile[],
    { prune, dryRun }: { readonly prune: boolean; readonly dryRun: boolean },
  ): Promise<ApplyResult> {
    return this.changed(() => {
      if (!dryRun) return this.adoptFiles(files, prune);
      const { spec } = this.merged(files, prune);
      return { before: this.fleet.currentSpec(), after: spec };
    });
  }

  remove(services: readonly string[], files: readonly FleetFile[]): Promise<ApplyResult> {
    return this.changed(() => {
      const keys = new Set(files.flatMap(splitFile).map(({ key }) => key));
      let manifests: Manifest[] = this.store.manifests().filter(({ key }) => !keys.has(key));
      for (const id of services.map((name) => this.views.resolve(name))) {
        const rest = withoutObject(manifests, this.views.view(id).spec.at);
        if (rest === null)
          throw new TokenmillError('fleet_object_unknown', `${id} was not found in the files that were applied.`);
        manifests = rest;
      }
      const current = this.fleet.currentSpec();
      const empty = current === null ? null : { ...current, services: [], routes: [], graphs: [], notices: [] };
      return this.adopt(manifests, manifests.length === 0 && empty !== null ? empty : readFleet(filesOf(manifests)));
    });
  }

  rollout(name: string, command: ServiceCommand): Promise<{ readonly service: string; readonly text: string }> {
    return this.changed((now) => {
      const id = this.views.resolve(name);
      const { spec, state } = this.views.view(id);
      if (state === null)
        throw new TokenmillError('fleet_object_unknown', `${id} has not begun yet; ask again in a moment.`);
      const answer = applyCommand(spec, state, command, now);
      this.fleet.putState(answer.state);
      this.store.appendEvents(answer.events);
      return { service: id, text: answer.events.at(-1)?.text ?? 'nothing to do' };
    });
  }

  /** Another process takes the gateway's socket over. */
  renewGateway(): Promise<void> {
    return this.gateway.renew();
  }

  /** `down` ends all; `handover` ends this process alone; `kill` ends all at once. */
  end(ending: Ending): void {
    if (this.ending === 'kill') return;
    this.ending = this.ending === 'down' && ending === 'handover' ? 'down' : ending;
    this.wake();
  }

  private changed<T>(run: (now: number) => T): Promise<T> {
    const answer = this.fleet.command(run);
    this.wake();
    return answer;
  }

  private merged(files: readonly FleetFile[], prune: boolean): { manifests: Manifest[]; spec: FleetSpec } {
    const manifests = mergeManifests(prune ? [] : this.store.manifests(), files);
    return { manifests, spec: readFleet(filesOf(manifests)) };
  }

  private adoptFiles(files: readonly FleetFile[], prune: boolean): ApplyResult {
    const { manifests, spec } = this.merged(files, prune);
    return this.adopt(manifests, spec);
  }

  private adopt(manifests: readonly Manifest[], spec: FleetSpec): ApplyResult {
    const before = this.fleet.currentSpec();
    this.store.replaceManifests(manifests);
    this.fleet.setSpec(spec);
    return { before, after: spec };
  }

  private wake(): void {
    this.wakeUp?.();
  }

  private async run(): Promise<void> {
    try {
      while (this.ending === null) {
        await this.tickOnce();
        await this.pause();
      }
      if (this.ending === 'down') await this.endAll();
      if ((this.ending as Ending) === 'kill') this.killAll();
      await this.close();
      this.finish(this.ending);
    } catch (error) {
      this.options.log.fatal({ err: error }, 'the supervisor ends; gateway and replicas go on');
      await this.close().catch(() => {});
      this.fail(error);
    }
  }

  private async tickOnce(): Promise<void> {
    const { log, stateDir } = this.options;
    try {
      await this.fleet.tick();
      const now = systemClock.now();
      if (now - this.tendedLogsAt >= LOGS_PERIOD_MS) {
        this.tendedLogsAt = now;
        tendLogs(stateDir);
      }
    } catch (error) {
      // A broken invariant ends the process; a full disk or the like is tried again.
      if (error instanceof AssertionError) throw error;
      log.error({ err: error }, 'a tick failed');
    }
  }

  private async pause(): Promise<void> {
    const { tickMs = TICK_MS } = this.options;
    const wait = Math.max(LEAST_PAUSE_MS, Math.min(tickMs, this.replicas.nextAt() - systemClock.now()));
    const timer = new AbortController();
    await new Promise<void>((resolve) => {
      this.wakeUp = resolve;
      void sleep(wait, undefined, { signal: timer.signal }).then(resolve, () => {});
    });
    this.wakeUp = null;
    timer.abort();
  }

  /** The gateway takes nothing new and finishes what it has, then the replicas end as they would at a scale-down. */
  private async endAll(): Promise<void> {
    const spec = this.fleet.currentSpec();
    await this.gateway.drain(DRAIN_MS);
    this.store.replaceManifests([]);
    if (spec !== null) this.fleet.setSpec({ ...spec, services: [], routes: [], graphs: [] });
    while (this.replicas.all().length > 0 && this.ending === 'down') {
      await this.tickOnce();
      await this.pause();
    }
    await this.tickOnce();
    this.gateway.stop();
  }

  private killAll(): void {
    for (const { process } of this.replicas.all()) if (process !== null) signalProcess(process, 'SIGKILL', true);
    for (const { id } of this.replicas.all()) this.store.deleteReplica(id);
    this.store.replaceManifests([]);
    this.gateway.stop();
  }

  private async close(): Promise<void> {
    const me = identify(process.pid);
    if (me !== null) this.store.unlock(me);
    await this.api?.close();
    this.store.close();
  }
}

function suffix(): string {
  return Array.from({ length: 5 }, () => 'bcdfghjklmnpqrstvwxz2456789'[Math.floor(Math.random() * 27)]).join('');
}

function replicaMembers(stateDir: string): ReturnType<typeof findMembers> {
  return new Map([...findMembers(stateDir)].filter(([member]) => !member.startsWith('gateway')));
}

/** Resolves when the folder is free. One that does not answer is left to the lock to judge. */
async function askToHandOver(stateDir: string, log: Logger): Promise<void> {
  const address = readApiAddress(stateDir);
  if (address === null) return;
  const holder = identify(address.pid);
  if (holder === null) return;
  const headers = { authorization: `Bearer ${address.token}` };
  const answer = await fetch(`${address.url}/v1/handover`, { method: 'POST', headers }).catch(() => null);
  if (answer === null || !answer.ok) return;
  log.info({ pid: address.pid }, 'the supervisor that runs hands over');
  const deadline = systemClock.now() + HANDOVER_PATIENCE_MS;
  while (isAlive(holder) && systemClock.now() < deadline) await sleep(20);
}
