/**
 * The life of one replica, as the kubelet has it: start, probes, restart with back-off, and the order in which it ends. Pure:
 * what was seen goes in, the next record and what is to be done come out.
 */
import type { ReplicaPhase } from '../control/fleet_state.ts';
import { restartAt } from '../control/restart.ts';
import type { ReplicaTemplate } from '../spec/fleet_spec.ts';
import type { ProcessIdentity } from './process_identity.ts';

export interface ReplicaRecord {
  readonly id: string;
  readonly service: string;
  readonly revision: string;
  /** As its process was or will be started. */
  readonly template: ReplicaTemplate;
  readonly phase: ReplicaPhase;
  /** Null while none runs. */
  readonly process: ProcessIdentity | null;
  /** 0 = none chosen yet. */
  readonly port: number;
  /** CPUs it may use; null = all. */
  readonly cpus: readonly number[] | null;
  readonly createdAt: number;
  /** Of the process that runs now, ms. */
  readonly startedAt: number | null;
  readonly readyAt: number | null;
  readonly restarts: number;
  /** Restarts in a row: what the back-off grows with. */
  readonly failures: number;
  readonly restartAt: number | null;
  readonly ending: Ending | null;
}

export interface Ending {
  readonly at: number;
  readonly reason: string;
  readonly termAt: number | null;
  readonly killedAt: number | null;
  /** It comes back afterwards. */
  readonly restart: boolean;
}

export interface Seen {
  readonly alive: boolean;
  /** How the process ended, `exit code 1`; '' = not known. */
  readonly exit: string;
  /** Verdicts; null = none yet. */
  readonly startup: boolean | null;
  readonly readiness: boolean | null;
  readonly liveness: boolean | null;
  /** The gateway has a table in which it is no endpoint for new requests. */
  readonly leftTable: boolean;
}

/** `spawn`: a process on a new port. `forget`: it is gone and no longer wanted. */
export type Effect = 'spawn' | 'term' | 'kill' | 'forget';

export interface Advance {
  readonly record: ReplicaRecord;
  readonly effects: readonly Effect[];
  /** Type and text of what is worth telling. */
  readonly events: readonly (readonly [type: string, text: string])[];
}

/** What the kubelet leaves between SIGTERM and SIGKILL at least, however long the pre-stop took. */
const LEAST_GRACE_MS = 2000;
/** A gateway that does not answer cannot keep a replica alive for ever. */
const TABLE_PATIENCE_MS = 2000;

export function newReplica(
  of: Pick<ReplicaRecord, 'id' | 'service' | 'revision' | 'template'>,
  now: number,
): ReplicaRecord {
  return {
    ...of,
    phase: 'starting',
    process: null,
    port: 0,
    cpus: null,
    createdAt: now,
    startedAt: null,
    readyAt: null,
    restarts: 0,
    failures: 0,
    restartAt: null,
    ending: null,
  };
}

/** Leaves the table; the rest follows in {@link advance}. One that ends already stays as it is. */
export function stopReplica(record: ReplicaRecord, reason: string, now: number): ReplicaRecord {
  if (record.phase === 'draining') return record;
  const termAt = record.ending?.termAt ?? null;
  const killedAt = record.ending?.killedAt ?? null;
  return {
    ...record,
    phase: 'draining',
    restartAt: null,
    ending: { at: now, reason, termAt, killedAt, restart: false },
  };
}

export function advance(record: ReplicaRecord, seen: Seen, now: number): Advance {
  if (record.ending !== null) return advanceEnding(record, record.ending, seen, now);
  if (record.process === null) {
    if (record.restartAt !== null && now < record.restartAt) return { record, effects: [], events: [] };
    const again = record.restartAt === null ? 0 : 1;
    return {
      record: { ...record, phase: 'starting', restarts: record.restarts + again, restartAt: null },
      effects: ['spawn'],
      events: [],
    };
  }
  if (!seen.alive) return ended(record, seen.exit === '' ? 'its process is gone' : seen.exit, now);
  if (seen.startup === false) return restart(record, 'its startup probe failed', now);
  if (seen.liveness === false) return restart(record, 'its liveness probe failed', now);
  return advanceReadiness(record, seen, now);
}

function advanceReadiness(record: ReplicaRecord, seen: Seen, now: number): Advance {
  const isReady = seen.startup === true && seen.readiness === true;
  if (record.phase === 'starting' && isReady) {
    const text = `${record.id} is ready after ${Math.round(now - (record.startedAt ?? record.createdAt))} ms`;
    return {
      record: { ...record, phase: 'ready', readyAt: now },
      effects: [],
      events: [['ReplicaReady', text]],
    };
  }
  if (record.phase === 'ready' && seen.readiness === false) {
    return {
      record: { ...record, phase: 'unready' },
      effects: [],
      events: [['ReplicaUnready', `${record.id} fails its readiness probe`]],
    };
  }
  if (record.phase === 'unready' && isReady) {
    return {
      record: { ...record, phase: 'ready', readyAt: now },
      effects: [],
      events: [['ReplicaReady', `${record.id} passes its readiness probe again`]],
    };
  }
  return { record, effects: [], events: [] };
}

function backOff(
  record: ReplicaRecord,
  now: number,
): Pick<ReplicaRecord, 'phase' | 'readyAt' | 'failures' | 'restartAt'> {
  const { at, failures } = restartAt({ startedAt: record.startedAt ?? now, endedAt: now, failures: record.failures });
  return { phase: 'backoff', readyAt: null, failures, restartAt: at };
}

/** Its process is gone, or could not be started. */
export function ended(record: ReplicaRecord, why: string, now: number): Advance {
  const wait = backOff(record, now);
  const waitMs = (wait.restartAt as number) - now;
  const text = `${record.id}: ${why}; restart ${waitMs === 0 ? 'at once' : `in ${waitMs / 1000} s`}`;
  return {
    record: { ...record, ...wait, process: null, startedAt: null, ending: null },
    effects: [],
    events: [['ReplicaFailed', text]],
  };
}

/** As a probe asks for: the process gets its grace, and the replica its back-off. */
function restart(record: ReplicaRecord, reason: string, now: number): Advance {
  return {
    record: {
      ...record,
      ...backOff(record, now),
      ending: { at: now, reason, termAt: now, killedAt: null, restart: true },
    },
    effects: ['term'],
    events: [['ReplicaUnhealthy', `${record.id}: ${reason}; it is restarted`]],
  };
}

function advanceEnding(record: ReplicaRecord, ending: Ending, seen: Seen, now: number): Advance {
  const { template } = record;
  if (record.process === null || !seen.alive) {
    if (!ending.restart) return { record, effects: ['forget'], events: [] };
    return { record: { ...record, process: null, startedAt: null, ending: null }, effects: [], events: [] };
  }
  if (ending.termAt === null) {
    const preStopOver = now >= ending.at + template.preStopMs;
    if (!preStopOver || !(seen.leftTable || now >= ending.at + template.preStopMs + TABLE_PATIENCE_MS)) {
      return { record, effects: [], events: [] };
    }
    return { record: { ...record, ending: { ...ending, termAt: now } }, effects: ['term'], events: [] };
  }
  const killAt = Math.max(ending.at + template.terminationGraceMs, ending.termAt + LEAST_GRACE_MS);
  if (now < killAt || ending.killedAt !== null) return { record, effects: [], events: [] };
  const text = `${record.id} did not end within its grace of ${template.terminationGraceMs / 1000} s`;
  return {
    record: { ...record, ending: { ...ending, killedAt: now } },
    effects: ['kill'],
    events: [['ReplicaKilled', text]],
  };
}
