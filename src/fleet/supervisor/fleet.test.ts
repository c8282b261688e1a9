/** The loop in virtual time: a machine, a gateway and replicas of memory alone. */
import { pino } from 'pino';
import { beforeEach, expect, test } from 'vitest';
import type { GatewayStats, RoutingTable } from '../gateway/routing_table.ts';
import { readFleet } from '../spec/read_fleet.ts';
import { Fleet } from './fleet.ts';
import { MeasuredFootprints } from './machine_observed.ts';
import { Observer } from './observer.ts';
import type { ProcessIdentity } from './process_identity.ts';
import { Replicas } from './replicas.ts';
import { SqliteStore } from './state_store.ts';

const GIB = 2 ** 30;
const log = pino({ enabled: false });

/** Time, processes and a gateway that a test can look into and break. */
class World {
  now = 1_000_000;
  store = new SqliteStore(':memory:');
  readonly alive = new Map<number, string>();
  readonly signals: string[] = [];
  readonly tables: RoutingTable[] = [];
  readonly stats: { waiting: number; inFlight: Record<string, number> } = { waiting: 0, inFlight: {} };
  readonly unhealthy = new Set<number>();
  gatewayAnswers = true;
  memoryBytes = 64 * GIB;
  private pids = 100;
  replicas!: Replicas;
  fleet!: Fleet;

  /** A new supervisor over what the store holds. */
  begin(): void {
    let names = 0;
    const run = `${this.pids}`;
    this.replicas = new Replicas({
      store: this.store,
      host: {
        freePort: async () => 40_000 + this.pids,
        start: (record) => {
          const pid = ++this.pids;
          this.alive.set(pid, record.id);
          return { process: { pid, startTime: 't' }, ended: new Promise<string>(() => {}) };
        },
        isAlive: ({ pid }: ProcessIdentity) => this.alive.has(pid),
        signal: ({ pid }, signal) => {
          this.signals.push(`${signal} ${this.alive.get(pid)}`);
          this.alive.delete(pid);
        },
        probe: async (url) => !this.unhealthy.has(Number(new URL(url).port) - 39_999),
        chooseCpus: () => null,
        retire: () => {},
      },
      log,
      suffix: () => `${run}${names++}`,
      wake: () => {},
      now: () => this.now,
    });
    const measured = new MeasuredFootprints();
    const use = () => ({ cpuMs: 0, residentBytes: GIB, ownBytes: GIB });
    this.fleet = new Fleet({
      store: this.store,
      replicas: this.replicas,
      observer: new Observer({ scrape: async () => '', use, measured }),
      gateway: {
        tend: async () => [],
        stats: async () => (this.gatewayAnswers ? this.gatewayStats() : null),
        publish: async (table) => {
          if (this.gatewayAnswers) this.tables.push(table);
          return this.gatewayAnswers;
        },
      },
      machine: { cpuMilli: () => 64_000, availableBytes: () => this.memoryBytes - this.alive.size * GIB, use },
      measured,
      log,
      now: () => this.now,
    });
  }

  private gatewayStats(): GatewayStats {
    const table = this.tables.at(-1);
    const services = (table?.services ?? []).map(({ id, revisions }) => {
      const endpoints = revisions.flatMap((revision) =>
        revision.endpoints.map((endpoint) => [
          endpoint.id,
          { inFlight: this.stats.inFlight[endpoint.id] ?? 0, ejected: false },
        ]),
      );
      const counts = {
        waiting: this.stats.waiting,
        inFlight: 0,
        arrivals: 0,
        refused: 0,
        lastActiveAt: null,
        revisions: {},
      };
      return [id, { ...counts, endpoints: Object.fromEntries(endpoints) }];
    });
    return { epoch: 'e', tableVersion: table?.version ?? -1, at: this.now, services: Object.fromEntries(services) };
  }

  async run(ms: number): Promise<void> {
    for (const until = this.now + ms; this.now < until; this.now += 100) {
      await this.fleet.tick();
      // Answers of probes come between ticks.
      await new Promise((resolve) => setImmediate(resolve));
    }
  }

  apply(text: string): void {
    this.fleet.setSpec(readFleet([{ file: '/fleet.yaml', text }]));
  }

  phases(): string[] {
    return this.replicas
      .all()
      .map(({ phase }) => phase)
      .sort();
  }

  events(type: string): string[] {
    return this.store
      .events({ limit: 1000 })
      .filter((event) => event.type === type)
      .map(({ text }) => text);
  }

  /** Endpoints of the last table, `id state`. */
  endpoints(): string[] {
    const services = this.tables.at(-1)?.services ?? [];
    return services.flatMap(({ revisions }) =>
      revisions.flatMap(({ endpoints }) => endpoints.map(({ id, state }) => `${id} ${state}`)),
    );
  }
}

let world: World;
beforeEach(() => {
  world = new World();
  world.begin();
});

const fleetOf = (fields: string) => `models:\n  - {name: m, ${fields}}\n`;

test('replicas start, get ready and into the table; a table is sent once', async () => {
  world.apply(fleetOf('replicas: 2'));
  await world.run(1000);
  expect(world.phases()).toEqual(['ready', 'ready']);
  expect(world.endpoints()).toHaveLength(2);
  const sent = world.tables.length;
  await world.run(2000);
  expect(world.tables).toHaveLength(sent);
  expect(world.tables.map(({ version }) => version)).toEqual([...new Set(world.tables.map(({ version }) => version))]);
});

test('one that goes is out of the table before it is told to end, and not before its pre-stop', async () => {
  world.apply(fleetOf('replicas: 2, preStop: 2s'));
  await world.run(1000);
  world.apply(fleetOf('replicas: 1, preStop: 2s'));
  await world.run(1500);
  expect(world.phases()).toEqual(['draining', 'ready']);
  expect(world.endpoints().filter((text) => text.endsWith(' ready'))).toHaveLength(1);
  expect(world.signals).toEqual([]);
  await world.run(1000);
  expect(world.signals).toHaveLength(1);
  const [gone] = world.signals;
  expect(world.endpoints().some((text) => text === `${gone?.slice('SIGTERM '.length)} ready`)).toBe(false);
  expect(world.phases()).toEqual(['ready']);
});

test('the busy ones survive a scale-down', async () => {
  world.apply(fleetOf('replicas: 3'));
  await world.run(1000);
  const [idle, ...busy] = world.replicas.all().map(({ id }) => id);
  for (const id of busy) world.stats.inFlight[id] = 5;
  await world.run(300);
  world.apply(fleetOf('replicas: 2'));
  await world.run(1000);
  expect(world.signals).toEqual([`SIGTERM ${idle}`]);
});

test('a gateway that is away gets the table when it is back; nobody is ended for it', async () => {
  world.apply(fleetOf('replicas: 2'));
  await world.run(1000);
  world.gatewayAnswers = false;
  world.apply(fleetOf('replicas: 1'));
  await world.run(1500);
  expect(world.signals).toEqual([]);
  world.gatewayAnswers = true;
  await world.run(500);
  expect(world.endpoints().filter((text) => text.endsWith(' ready'))).toHaveLength(1);
  expect(world.signals).toHaveLength(1);
});

test('a gateway that began anew without a table gets it again', async () => {
  world.apply(fleetOf('replicas: 1'));
  await world.run(1000);
  const sent = world.tables.at(-1);
  world.tables.length = 0;
  await world.run(300);
  expect(world.tables).toEqual([sent]);
});

test('a replica whose process is gone comes back as the same one; the table is without it meanwhile', async () => {
  world.apply(fleetOf('replicas: 2'));
  await world.run(1000);
  const [pid, id] = [...world.alive][0] as [number, string];
  world.alive.delete(pid);
  await world.run(100);
  expect(world.endpoints().filter((text) => text.endsWith(' ready'))).toHaveLength(1);
  await world.run(1000);
  expect(world.replicas.get(id)).toMatchObject({ phase: 'ready', restarts: 1 });
  expect(world.endpoints()).toHaveLength(2);
});

test('the next supervisor takes what runs, in the phase it was in, and restarts what is gone', async () => {
  world.apply(fleetOf('replicas: 3'));
  await world.run(1000);
  const before = new Map(world.alive);
  const [lost] = [...before.keys()];
  world.alive.delete(lost as number);
  world.begin();
  expect(world.phases()).toEqual(['ready', 'ready', 'ready']);
  world.apply(fleetOf('replicas: 3'));
  await world.run(1000);
  expect(world.phases()).toEqual(['ready', 'ready', 'ready']);
  expect([...world.alive.values()].sort()).toEqual([...before.values()].sort());
  expect([...before.keys()].filter((pid) => world.alive.has(pid))).toHaveLength(2);
});

test('no more replicas than the machine has memory for; the reason is told once', async () => {
  world.memoryBytes = 10 * GIB;
  world.apply(fleetOf('replicas: 4, memory: 4Gi'));
  await world.run(3000);
  expect(world.phases()).toEqual(['ready', 'ready']);
  expect(world.events('InsufficientMemory')).toHaveLength(1);
  world.memoryBytes = 40 * GIB;
  await world.run(3000);
  expect(world.phases()).toEqual(['ready', 'ready', 'ready', 'ready']);
});

test('a service that is taken out ends, then it is forgotten', async () => {
  world.apply('models: [{name: m}, {name: n}]');
  await world.run(1000);
  world.apply('models: [{name: n}]');
  await world.run(2000);
  expect(world.replicas.all().map(({ service }) => service)).toEqual(['default/n']);
  expect(world.store.services().map(({ id }) => id)).toEqual(['default/n']);
  expect(world.events('Deleted')).toHaveLength(1);
});

test('standby, which replicas cannot do yet, is refused by name, once', async () => {
  world.apply(fleetOf('replicas: {min: 1, max: 2, standby: 1}'));
  await world.run(3000);
  expect(world.phases()).toEqual(['ready']);
  expect(world.events('SleepUnsupported')).toHaveLength(1);
});

test('what is set by hand holds until it is taken back', async () => {
  world.apply(fleetOf('replicas: {min: 1, max: 4}'));
  await world.run(1000);
  const state = world.fleet.service('default/m')?.state;
  if (state == null) throw new Error('no state');
  world.fleet.putState({ ...state, replicasPinned: 3 });
  await world.run(1000);
  expect(world.phases()).toEqual(['ready', 'ready', 'ready']);
  const pinned = world.fleet.service('default/m')?.state;
  if (pinned == null) throw new Error('no state');
  world.fleet.putState({ ...pinned, replicasPinned: null });
  await world.run(1000);
  expect(world.phases()).toEqual(['ready']);
});

test('a request that is held at zero starts a replica within one look', async () => {
  world.apply(fleetOf('replicas: {min: 0, max: 2}'));
  await world.run(1000);
  expect(world.phases()).toEqual([]);
  world.stats.waiting = 1;
  await world.run(200);
  expect(world.phases()).toHaveLength(1);
});
