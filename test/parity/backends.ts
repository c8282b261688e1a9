/** The backends and ISA levels that parity and golden tests loop over. */
import type { Backend } from '../../src/backends/backend.ts';
import { createCpuBackend } from '../../src/backends/cpu/cpu_backend.ts';
import { createReferenceBackend } from '../../src/backends/reference/reference_backend.ts';

export const reference = createReferenceBackend();
export const cpu = createCpuBackend();

export interface Target {
  readonly name: string;
  readonly backend: Backend;
  readonly isa: string;
}

export const cpuTargets: readonly Target[] = cpu.isaLevels.map((isa) => ({ name: `cpu ${isa}`, backend: cpu, isa }));

export const allTargets: readonly Target[] = [
  { name: 'reference', backend: reference, isa: 'reference' },
  ...cpuTargets,
];
