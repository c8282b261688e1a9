/**
 * Which process a number stands for. The kernel gives numbers again; the start time of the process (ticks since boot) and the
 * id of the boot make the name unique, so that a process that is not ours is never taken for one, and never killed.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { TokenmillError } from '../../base/errors.ts';

export interface ProcessIdentity {
  readonly pid: number;
  /** `BOOT:TICKS`, compared as text only. */
  readonly startTime: string;
}

let bootId: string | null = null;

function currentBoot(): string {
  bootId ??= readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  return bootId;
}

interface Stat {
  readonly state: string;
  /** Pid of the leader of its session. */
  readonly session: number;
  readonly startTicks: string;
}

/** What matters of a `/proc/PID/stat` line; null when it is none. */
export function parseStat(text: string): Stat | null {
  // The name in parentheses may hold spaces and parentheses.
  const fields = text
    .slice(text.lastIndexOf(')') + 1)
    .trim()
    .split(' ');
  const [state, session, startTicks] = [fields[0], Number(fields[3]), fields[19]];
  if (state === undefined || startTicks === undefined || !/^\d+$/.test(startTicks)) return null;
  return { state, session, startTicks };
}

function readStat(pid: number): Stat | null {
  try {
    const stat = parseStat(readFileSync(`/proc/${pid}/stat`, 'utf8'));
    return stat === null || stat.state === 'Z' || stat.state === 'X' ? null : stat;
  } catch {
    return null;
  }
}

/** Null when there is no such process, or only what waits to be reaped. */
export function identify(pid: number): ProcessIdentity | null {
  const stat = readStat(pid);
  return stat === null ? null : { pid, startTime: `${currentBoot()}:${stat.startTicks}` };
}

export function isAlive(process: ProcessIdentity): boolean {
  return identify(process.pid)?.startTime === process.startTime;
}

/** Signals it if it is still the same process; `group`: with all that it started. False when it is gone. */
export function signalProcess(target: ProcessIdentity, signal: 'SIGTERM' | 'SIGKILL', group = false): boolean {
  if (!isAlive(target)) return false;
  try {
    process.kill(group ? -target.pid : target.pid, signal);
    return true;
  } catch {
    return false;
  }
}

/** Marks of a process in its environment: the fleet's state folder, and which of its members it is. */
export const FLEET_VARIABLE = 'TOKENMILL_FLEET';
export const MEMBER_VARIABLE = 'TOKENMILL_FLEET_MEMBER';

/** Every living process that a supervisor of this state folder has started, recorded or not, by its member's name. */
export function findMembers(fleet: string): Map<string, ProcessIdentity> {
  const found = new Map<string, ProcessIdentity>();
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    let environment: string;
    try {
      environment = readFileSync(`/proc/${name}/environ`, 'utf8');
    } catch {
      // Another user's, or gone.
      continue;
    }
    const variables = environment.split('\0');
    const member = variables.find((text) => text.startsWith(`${MEMBER_VARIABLE}=`))?.slice(MEMBER_VARIABLE.length + 1);
    if (member === undefined || !variables.includes(`${FLEET_VARIABLE}=${fleet}`)) continue;
    const pid = Number(name);
    // A child of a member has its marks as well; the member itself leads its session.
    const identity = readStat(pid)?.session === pid ? identify(pid) : null;
    if (identity !== null) found.set(member, identity);
  }
  return found;
}

/** Throws `unsupported_feature` where processes cannot be told apart. */
export function requireProc(): void {
  if (identify(process.pid) !== null) return;
  throw new TokenmillError(
    'unsupported_feature',
    'A fleet needs /proc to know its processes again, and there is none.',
    {
      remedy: 'Run it on Linux, or start single servers with tokenmill serve.',
    },
  );
}
