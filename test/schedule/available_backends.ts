import type { Backend } from '../../src/backends/backend.ts';
import { createBackend } from '../../src/executor/backends.ts';

/** Backends that run here: `reference` always, `cpu` where its binary was built. */
export function availableBackends(): Backend[] {
  return [createBackend('reference')];
}
