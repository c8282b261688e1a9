/**
 * What outlives the supervisor, in one SQLite file: the manifests that were applied, the memory of each service, the replicas,
 * the gateway, the journal of events. It is written before anything is done, so that after a `kill -9` there is no process that
 * nobody knows of. One supervisor at a time holds a state folder.
 */
import { TokenmillError } from '../../base/errors.ts';
import type { FleetEvent, ServiceState } from '../control/fleet_state.ts';
import { openDatabase } from '../sqlite.ts';
import { isAlive, type ProcessIdentity } from './process_identity.ts';
import type { ReplicaRecord } from './replica_lifecycle.ts';

/** One document of a fleet file. */
export interface Manifest {
  /** Kind, namespace and name; a later one with the same key takes its place. */
  readonly key: string;
  readonly file: string;
  readonly text: string;
}

export interface GatewayRecord {
  readonly process: ProcessIdentity;
  /** Of its control API. */
  readonly socket: string;
  readonly host: string;
  readonly port: number;
  /** As the fleet's file says; 0 = any. */
  readonly askedPort: number;
}

export interface StoredEvent extends FleetEvent {
  readonly seq: number;
}

export interface StateStore {
  /** All of `write` or nothing of it. */
  transaction(write: () => void): void;
  manifests(): Manifest[];
  /** In place of all there were. */
  replaceManifests(manifests: readonly Manifest[]): void;
  services(): ServiceState[];
  /** @param json a {@link ServiceState} */
  putService(id: string, json: string): void;
  deleteService(id: string): void;
  replicas(): ReplicaRecord[];
  putReplica(record: ReplicaRecord): void;
  deleteReplica(id: string): void;
  gateway(): GatewayRecord | null;
  putGateway(record: GatewayRecord | null): void;
  /** Of the last routing table that was sent. */
  tableVersion(): number;
  putTableVersion(version: number): void;
  appendEvents(events: readonly FleetEvent[]): void;
  /** Oldest first; those after `afterSeq`, the last `limit` of them, of one service or of all. */
  events(filter: {
    readonly afterSeq?: number;
    readonly service?: string | null;
    readonly limit: number;
  }): StoredEvent[];
  /** Throws `fleet_running` when a living process holds it. */
  lock(owner: ProcessIdentity): void;
  unlock(owner: ProcessIdentity): void;
  close(): void;
}

const MAX_EVENTS = 10_000;
/** Rows over the bound before they are cut: one delete for many events. */
const EVENTS_SLACK = 500;
const SCHEMA_VERSION = 1;

const SCHEMA = `
  CREATE TABLE IF NOT EXISTS manifests (position INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, file TEXT NOT NULL, text TEXT NOT NULL);
  CREATE TABLE IF NOT EXISTS services (id TEXT PRIMARY KEY, json TEXT NOT NULL);
  CREATE TABLE IF NOT EXISTS replicas (id TEXT PRIMARY KEY, json TEXT NOT NULL);
  CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, service TEXT NOT NULL, type TEXT NOT NULL, text TEXT NOT NULL
  );
  CREATE INDEX IF NOT EXISTS events_of_service ON events (service, seq);
  CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, json TEXT NOT NULL);
`;

/** The part of the driver that is used, with rows as what they are: unknown. */
interface Sql {
  exec(text: string): void;
  prepare(text: string): {
    run(...values: readonly (string | number | null)[]): unknown;
    get(...values: readonly (string | number | null)[]): unknown;
    all(...values: readonly (string | number | null)[]): unknown[];
  };
  close(): void;
}

export class SqliteStore implements StateStore {
  private readonly sql: Sql;
  private inTransaction = false;

  /** @param path file, or `:memory:` */
  constructor(path: string) {
    this.sql = open(path);
    const version = this.fact<number>('schema');
    if (version !== null && version !== SCHEMA_VERSION) {
      this.sql.close();
      throw new TokenmillError(
        'fleet_state_invalid',
        `${path} has the form ${version}; this version reads ${SCHEMA_VERSION}.`,
        {
          remedy: 'Run the version of Tokenmill that wrote it, or choose another --state-dir.',
        },
      );
    }
    this.putFact('schema', SCHEMA_VERSION);
  }

  transaction(write: () => void): void {
    if (this.inTransaction) {
      write();
      return;
    }
    this.sql.exec('BEGIN IMMEDIATE');
    this.inTransaction = true;
    try {
      write();
      this.sql.exec('COMMIT');
    } catch (error) {
      this.sql.exec('ROLLBACK');
      throw error;
    } finally {
      this.inTransaction = false;
    }
  }

  manifests(): Manifest[] {
    return this.sql.prepare('SELECT key, file, text FROM manifests ORDER BY position').all() as Manifest[];
  }

  replaceManifests(manifests: readonly Manifest[]): void {
    this.transaction(() => {
      this.sql.exec('DELETE FROM manifests');
      const insert = this.sql.prepare('INSERT INTO manifests (position, key, file, text) VALUES (?, ?, ?, ?)');
      for (const [position, { key, file, text }] of manifests.entries()) insert.run(position, key, file, text);
    });
  }

  services(): ServiceState[] {
    return this.json('services');
  }

  putService(id: string, json: string): void {
    this.sql.prepare('INSERT OR REPLACE INTO services (id, json) VALUES (?, ?)').run(id, json);
  }

  deleteService(id: string): void {
    this.sql.prepare('DELETE FROM services WHERE id = ?').run(id);
  }

  replicas(): ReplicaRecord[] {
    return this.json('replicas');
  }

  putReplica(record: ReplicaRecord): void {
    this.sql.prepare('INSERT OR REPLACE INTO replicas (id, json) VALUES (?, ?)').run(record.id, JSON.stringify(record));
  }

  deleteReplica(id: string): void {
    this.sql.prepare('DELETE FROM replicas WHERE id = ?').run(id);
  }

  gateway(): GatewayRecord | null {
    return this.fact('gateway');
  }

  putGateway(record: GatewayRecord | null): void {
    this.putFact('gateway', record);
  }

  tableVersion(): number {
    return this.fact<number>('tableVersion') ?? 0;
  }

  putTableVersion(version: number): void {
    this.putFact('tableVersion', version);
  }

  appendEvents(events: readonly FleetEvent[]): void {
    if (events.length === 0) return;
    this.transaction(() => {
      const insert = this.sql.prepare('INSERT INTO events (at, service, type, text) VALUES (?, ?, ?, ?)');
      for (const { at, service, type, text } of events) insert.run(at, service, type, text);
      const { first, last } = this.sql.prepare('SELECT min(seq) AS first, max(seq) AS last FROM events').get() as {
        first: number;
        last: number;
      };
      if (last - first < MAX_EVENTS + EVENTS_SLACK) return;
      this.sql.prepare('DELETE FROM events WHERE seq <= ?').run(last - MAX_EVENTS);
    });
  }

  events({ afterSeq = 0, service = null, limit }: Parameters<StateStore['events']>[0]): StoredEvent[] {
    const rows = this.sql
      .prepare(
        'SELECT seq, at, service, type, text FROM events WHERE seq > ? AND (? IS NULL OR service = ?) ORDER BY seq DESC LIMIT ?',
      )
      .all(afterSeq, service, service, limit) as StoredEvent[];
    return rows.reverse();
  }

  lock(owner: ProcessIdentity): void {
    this.transaction(() => {
      const holder = this.fact<ProcessIdentity>('supervisor');
      if (holder !== null && !isSame(holder, owner) && isAlive(holder)) {
        throw new TokenmillError(
          'fleet_running',
          `A fleet runs with this state folder already (process ${holder.pid}).`,
          {
            remedy: 'Give it the file with tokenmill apply, end it with tokenmill down, or choose another --state-dir.',
          },
        );
      }
      this.putFact('supervisor', owner);
    });
  }

  unlock(owner: ProcessIdentity): void {
    this.transaction(() => {
      const holder = this.fact<ProcessIdentity>('supervisor');
      if (holder !== null && isSame(holder, owner)) this.putFact('supervisor', null);
    });
  }

  close(): void {
    this.sql.close();
  }

  private json<T>(table: 'services' | 'replicas'): T[] {
    const rows = this.sql.prepare(`SELECT json FROM ${table} ORDER BY id`).all() as { json: string }[];
    return rows.map(({ json }) => JSON.parse(json) as T);
  }

  private fact<T>(name: string): T | null {
    const row = this.sql.prepare('SELECT json FROM facts WHERE name = ?').get(name) as { json: string } | undefined;
    return row === undefined ? null : (JSON.parse(row.json) as T | null);
  }

  private putFact(name: string, value: unknown): void {
    this.sql.prepare('INSERT OR REPLACE INTO facts (name, json) VALUES (?, ?)').run(name, JSON.stringify(value));
  }
}

function isSame(a: ProcessIdentity, b: ProcessIdentity): boolean {
  return a.pid === b.pid && a.startTime === b.startTime;
}

function open(path: string): Sql {
  try {
    const sql = openDatabase(path, { timeout: 5000 }) as unknown as Sql;
    // A write is on its way to the disk when it returns: enough against our own death, and milliseconds cheaper than a sync.
    sql.exec('PRAGMA journal_mode = WAL');
    sql.exec('PRAGMA synchronous = NORMAL');
    sql.exec(SCHEMA);
    return sql;
  } catch (error) {
    if (error instanceof TokenmillError) throw error;
    throw new TokenmillError('fleet_state_invalid', `${path} cannot be opened: ${(error as Error).message}.`, {
      remedy:
        'It must be a folder that you may write to and a file that Tokenmill wrote; or choose another --state-dir.',
      cause: error,
    });
  }
}
