/** This machine, as the replicas' edge. */
import { existsSync, mkdirSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { httpProbe } from './http_client.ts';
import { isAlive, signalProcess } from './process_identity.ts';
import { allowedCpus, chooseCpus, type Entry, freePort, startReplica } from './replica_process.ts';
import type { ReplicaHost } from './replicas.ts';
import { type LogBounds, removeLog, rotateLog } from './rotated_log.ts';

const LOG_BOUNDS: LogBounds = { maxBytes: 16 << 20, maxParts: 2 };
/** Logs of replicas that are gone, kept for whoever asks why. */
const KEPT_LOGS = 40;

function logFolder(stateDir: string): string {
  return join(stateDir, 'logs');
}

export function logPath(stateDir: string, member: string): string {
  return join(logFolder(stateDir), `${member}.log`);
}

export function ensureLogFolder(stateDir: string): void {
  mkdirSync(logFolder(stateDir), { recursive: true, mode: 0o700 });
}

export function machineHost(stateDir: string, entry: Entry): ReplicaHost {
  ensureLogFolder(stateDir);
  const allowed = allowedCpus();
  const retired: string[] = [];
  return {
    freePort,
    start: (record) => startReplica(entry, record, stateDir, logPath(stateDir, record.id)),
    isAlive,
    signal: (process, signal) => {
      signalProcess(process, signal, signal === 'SIGKILL');
    },
    probe: httpProbe,
    chooseCpus: (taken, cpuMilli) => chooseCpus(allowed, taken, cpuMilli),
    retire: (id) => {
      retired.push(id);
      if (retired.length > KEPT_LOGS) removeLog(logPath(stateDir, retired.shift() as string), LOG_BOUNDS);
    },
  };
}

/** Cuts what grew too large, and at a start what an earlier supervisor left of replicas that are gone. */
export function tendLogs(stateDir: string): void {
  for (const name of readdirSync(logFolder(stateDir))) {
    if (name.endsWith('.log')) rotateLog(join(logFolder(stateDir), name), LOG_BOUNDS);
  }
}

/** Logs of members that are not `known`, oldest first, beyond the number that is kept. */
export function pruneLogs(stateDir: string, known: ReadonlySet<string>): void {
  const folder = logFolder(stateDir);
  if (!existsSync(folder)) return;
  const gone = readdirSync(folder)
    .filter((name) => name.endsWith('.log') && !known.has(name.slice(0, -'.log'.length)))
    .map((name) => ({ name, at: statSync(join(folder, name)).mtimeMs }))
    .sort((a, b) => a.at - b.at);
  for (const { name } of gone.slice(0, Math.max(0, gone.length - KEPT_LOGS))) removeLog(join(folder, name), LOG_BOUNDS);
}
