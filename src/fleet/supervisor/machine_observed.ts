/** What the machine has left for replicas, and what each of them uses. */
import { readFileSync } from 'node:fs';
import { inspectMachine } from '../../config/machine.ts';
import type { Footprint, MachineObserved } from '../control/fleet_state.ts';
import { freeOf, type Room } from '../control/placement.ts';
import type { ProcessIdentity } from './process_identity.ts';
import type { ReplicaRecord } from './replica_lifecycle.ts';
import { allowedCpus } from './replica_process.ts';

export interface ProcessUse {
  /** CPU time since its start, ms. */
  readonly cpuMs: number;
  readonly residentBytes: number;
  /** Resident and its own alone: without weights that processes share. */
  readonly ownBytes: number;
}

/** Clock ticks a second in /proc, the same on every Linux that Node runs on. */
const TICKS_PER_SECOND = 100;

/** Null when it is gone. */
function processUse({ pid }: ProcessIdentity): ProcessUse | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const fields = stat
      .slice(stat.lastIndexOf(')') + 1)
      .trim()
      .split(' ');
    const status = readFileSync(`/proc/${pid}/status`, 'utf8');
    const bytes = (name: string): number =>
      1024 * Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, 'm').exec(status)?.[1] ?? 0);
    return {
      cpuMs: ((Number(fields[11]) + Number(fields[12])) * 1000) / TICKS_PER_SECOND,
      residentBytes: bytes('VmRSS'),
      ownBytes: bytes('RssAnon') + bytes('RssShmem'),
    };
  } catch {
    return null;
  }
}

export interface MachineSource {
  cpuMilli(): number;
  availableBytes(): number;
  use(process: ProcessIdentity): ProcessUse | null;
}

export function thisMachine(): MachineSource {
  const cpuMilli = 1000 * Math.max(1, allowedCpus().length);
  return { cpuMilli: () => cpuMilli, availableBytes: () => inspectMachine([]).availableMemoryBytes, use: processUse };
}

/** Largest memory of its own that a replica of each revision was seen with. */
export class MeasuredFootprints {
  private readonly ownBytes = new Map<string, number>();

  note(revision: string, use: ProcessUse): void {
    this.ownBytes.set(revision, Math.max(this.ownBytes.get(revision) ?? 0, use.ownBytes));
  }

  keepOnly(revisions: ReadonlySet<string>): void {
    for (const id of this.ownBytes.keys()) if (!revisions.has(id)) this.ownBytes.delete(id);
  }

  of(record: ReplicaRecord): Footprint {
    const { cpuMilli, memoryBytes } = record.template;
    return { cpuMilli, memoryBytes: memoryBytes ?? this.ownBytes.get(record.revision) ?? null };
  }

  all(): Readonly<Record<string, Footprint>> {
    return Object.fromEntries([...this.ownBytes].map(([id, memoryBytes]) => [id, { cpuMilli: null, memoryBytes }]));
  }
}

/** What replicas could have in all: what is free and what they have. */
export function machineRoom(source: MachineSource, records: readonly ReplicaRecord[]): Room {
  let ours = 0;
  for (const { process } of records) if (process !== null) ours += source.use(process)?.ownBytes ?? 0;
  return { cpuMilli: source.cpuMilli(), memoryBytes: source.availableBytes() + ours };
}

/** @param records of all services; those without a process are about to have one */
export function observeMachine(
  room: Room,
  records: readonly ReplicaRecord[],
  measured: MeasuredFootprints,
): MachineObserved {
  const free = freeOf(
    room,
    records.map((record) => measured.of(record)),
  );
  return { freeCpuMilli: free.cpuMilli, freeMemoryBytes: free.memoryBytes, footprints: measured.all() };
}
