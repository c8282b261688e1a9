/**
 * Room on the machine, as Kubernetes' scheduler counts it: what a replica asks for is taken from the moment it is decided to start,
 * long before it shows in any measurement, and given back when its process is gone. Pure arithmetic.
 */
import type { ReplicaTemplate } from '../spec/fleet_spec.ts';
import type { Footprint, MachineObserved } from './fleet_state.ts';

export interface Room {
  readonly cpuMilli: number;
  readonly memoryBytes: number;
}

const UNLIMITED: Room = { cpuMilli: Infinity, memoryBytes: Infinity };

/** What of `machine` is left beside `alive`: the footprint of each replica that has a process or is about to have one. */
export function freeOf(machine: Room, alive: readonly Footprint[]): Room {
  return alive.reduce<Room>(shrink, machine);
}

export function shrink(room: Room, { cpuMilli, memoryBytes }: Footprint): Room {
  return { cpuMilli: room.cpuMilli - (cpuMilli ?? 0), memoryBytes: room.memoryBytes - (memoryBytes ?? 0) };
}

export function grow(room: Room, { cpuMilli, memoryBytes }: Footprint): Room {
  return { cpuMilli: room.cpuMilli + (cpuMilli ?? 0), memoryBytes: room.memoryBytes + (memoryBytes ?? 0) };
}

export function roomOf(machine: MachineObserved | null): Room {
  return machine === null ? UNLIMITED : { cpuMilli: machine.freeCpuMilli, memoryBytes: machine.freeMemoryBytes };
}

/** What a replica of `template` takes: what it says, else what is known about the revision. */
export function footprintOf(template: ReplicaTemplate, revision: string, machine: MachineObserved | null): Footprint {
  const known = machine !== null && Object.hasOwn(machine.footprints, revision) ? machine.footprints[revision] : null;
  return {
    cpuMilli: template.cpuMilli ?? known?.cpuMilli ?? null,
    memoryBytes: template.memoryBytes ?? known?.memoryBytes ?? null,
  };
}

/** What is short for one more replica: null = it fits. A start that asks for nothing fits on a full machine. */
export function shortOf(room: Room, { cpuMilli, memoryBytes }: Footprint): 'memory' | 'cpu' | null {
  if (memoryBytes !== null && memoryBytes > 0 && memoryBytes > room.memoryBytes) return 'memory';
  if (cpuMilli !== null && cpuMilli > 0 && cpuMilli > room.cpuMilli) return 'cpu';
  return null;
}

/** `needs 4.0 GiB and 1.5 GiB is free` */
export function describeShortage(what: 'memory' | 'cpu', room: Room, footprint: Footprint): string {
  const show = (room: Footprint) =>
    what === 'memory'
      ? `${(Math.max(0, room.memoryBytes ?? 0) / 2 ** 30).toFixed(1)} GiB`
      : `${Math.max(0, room.cpuMilli ?? 0)}m CPU`;
  return `needs ${show(footprint)} and ${show(room)} is free`;
}
