/** Starts the process of a replica, in a session of its own, so that it outlives the supervisor. */
import { spawn } from 'node:child_process';
import { closeSync, existsSync, readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { delimiter, join } from 'node:path';
import type { Flag } from '../../config/flag_types.ts';
import { EMBEDDED_MODEL, FLAGS } from '../../config/flags.ts';
import { envName } from '../../config/parse.ts';
import { parseCpuList } from '../../config/topology.ts';
import type { ReplicaTemplate } from '../spec/fleet_spec.ts';
import { FLEET_VARIABLE, identify, MEMBER_VARIABLE, type ProcessIdentity } from './process_identity.ts';
import type { ReplicaRecord } from './replica_lifecycle.ts';
import { openLog } from './rotated_log.ts';

/** How the command line is started: Node and the file of the command line. */
export interface Entry {
  readonly file: string;
  readonly args: readonly string[];
}

/** What flags would read from our environment: a replica is what its template says. */
const OWN_VARIABLES = new Set([...Object.values<Flag>(FLAGS).map(envName), 'VLLM_API_KEY']);

const SERVED_NAME_FLAG = '--served-model-name';

/** Asked every second by us: a log of it would hide the rest. */
const QUIET_PATHS = '/health,/livez,/ready,/readyz,/metrics';
const ACCESS_LOG_FLAGS = ['--disable-access-log-for-endpoints', '--disable-access-log'] as const;

/** At the end of a replica, between its own deadline and SIGKILL, ms. */
const DRAIN_RESERVE_MS = 5000;

function hasFlag(args: readonly string[], flag: string): boolean {
  return args.some((arg) => {
    const name = arg.split('=', 1)[0] as string;
    return name.replaceAll('_', '-') === flag;
  });
}

/** The names that requests call it by are part of what a replica is: others make another revision. */
export function withNames(template: ReplicaTemplate, names: readonly string[]): ReplicaTemplate {
  const { args } = template;
  return hasFlag(args, SERVED_NAME_FLAG) ? template : { ...template, args: [...args, SERVED_NAME_FLAG, ...names] };
}

/** Arguments after the entry. What the template says wins, other than the address. */
export function serveArgs(template: ReplicaTemplate, port: number): string[] {
  const { args } = template;
  const drainS = Math.max(1, Math.floor((template.terminationGraceMs - template.preStopMs - DRAIN_RESERVE_MS) / 1000));
  const model = template.model === '' && !hasFlag(args, '--model') ? EMBEDDED_MODEL : template.model;
  return [
    'serve',
    ...(model === '' ? [] : [model]),
    ...args,
    ...(ACCESS_LOG_FLAGS.some((flag) => hasFlag(args, flag)) ? [] : [ACCESS_LOG_FLAGS[0], QUIET_PATHS]),
    ...(hasFlag(args, '--shutdown-timeout') ? [] : ['--shutdown-timeout', String(drainS)]),
    '--host',
    '127.0.0.1',
    '--port',
    String(port),
  ];
}

export function serveEnv(
  template: ReplicaTemplate,
  env: Readonly<Record<string, string | undefined>>,
): Record<string, string | undefined> {
  const inherited = Object.entries(env).filter(([name]) => !OWN_VARIABLES.has(name));
  return { ...Object.fromEntries(inherited), ...template.env };
}

function findOnPath(name: string): string | null {
  for (const folder of (process.env['PATH'] ?? '').split(delimiter)) {
    if (folder !== '' && existsSync(join(folder, name))) return join(folder, name);
  }
  return null;
}

/** Pinned by `taskset`; without it the replica gets `--threads` and may use any CPU. */
function pinned(command: readonly string[], cpus: readonly number[]): string[] {
  const taskset = findOnPath('taskset');
  if (taskset !== null) return [taskset, '--cpu-list', cpus.join(','), ...command];
  return hasFlag(command, '--threads') ? [...command] : [...command, '--threads', String(cpus.length)];
}

export interface Started {
  readonly process: ProcessIdentity;
  /** When it ends, if we are still there: `exit code 1`, `SIGKILL`. */
  readonly ended: Promise<string>;
}

/** Spawns a detached process with its output in a log. Null when it could not be started or was gone at once. */
export function spawnDetached(
  command: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
  logPath: string,
): Started | null {
  const log = openLog(logPath);
  try {
    const [file, ...args] = command as [string, ...string[]];
    const child = spawn(file, args, { detached: true, stdio: ['ignore', log, log], env });
    const ended = new Promise<string>((resolve) => {
      child.once('error', (error) => resolve(error.message));
      child.once('exit', (code, signal) => resolve(signal ?? `exit code ${code}`));
    });
    child.unref();
    const process = child.pid === undefined ? null : identify(child.pid);
    return process === null ? null : { process, ended };
  } finally {
    closeSync(log);
  }
}

/** @param fleet state folder, by which its processes are known again */
export function startReplica(entry: Entry, record: ReplicaRecord, fleet: string, logPath: string): Started | null {
  const { template, port, cpus } = record;
  const command = [entry.file, ...entry.args, ...serveArgs(template, port)];
  const env = { ...serveEnv(template, process.env), [FLEET_VARIABLE]: fleet, [MEMBER_VARIABLE]: record.id };
  return spawnDetached(cpus === null ? command : pinned(command, cpus), env, logPath);
}

/** A port of 127.0.0.1 that is free now. Who takes it in between makes the replica end and start again on another. */
export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const socket = createServer();
    socket.once('error', reject);
    socket.listen({ host: '127.0.0.1', port: 0, exclusive: true }, () => {
      const address = socket.address();
      socket.close(() => resolve(typeof address === 'object' && address !== null ? address.port : 0));
    });
  });
}

/** CPUs this process may use, by number. */
export function allowedCpus(): number[] {
  try {
    const status = readFileSync('/proc/self/status', 'utf8');
    return parseCpuList(/^Cpus_allowed_list:\s*(\S+)$/m.exec(status)?.[1] ?? '');
  } catch {
    return [];
  }
}

/** The `count` CPUs that the fewest replicas have; null when it may as well use all. */
export function chooseCpus(
  allowed: readonly number[],
  taken: readonly (readonly number[] | null)[],
  cpuMilli: number | null,
): number[] | null {
  if (cpuMilli === null) return null;
  const count = Math.ceil(cpuMilli / 1000);
  if (count <= 0 || count >= allowed.length) return null;
  const uses = new Map(allowed.map((cpu) => [cpu, 0]));
  for (const cpu of taken.flatMap((cpus) => cpus ?? [])) uses.set(cpu, (uses.get(cpu) ?? 0) + 1);
  const byUse = [...allowed].sort((a, b) => (uses.get(a) as number) - (uses.get(b) as number) || a - b);
  return byUse.slice(0, count).sort((a, b) => a - b);
}
