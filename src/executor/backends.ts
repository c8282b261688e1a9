import type { Backend } from '../backends/backend.ts';
import { createCpuBackend } from '../backends/cpu/cpu_backend.ts';
import { createReferenceBackend } from '../backends/reference/reference_backend.ts';
import { TokenmillError } from '../base/errors.ts';

/** Throws `native_missing` when `cpu` has no binary for this machine. */
export function createBackend(name: Backend['name']): Backend {
  return name === 'cpu' ? createCpuBackend() : createReferenceBackend();
}

/** Levels of the cpu backend here, best first; empty when it has no binary for this machine. */
export function cpuIsaLevels(): readonly string[] {
  try {
    return createBackend('cpu').isaLevels;
  } catch (error) {
    if (error instanceof TokenmillError && error.code === 'native_missing') return [];
    throw error;
  }
}
