import type { Backend } from '../../src/backends/backend.ts';
import { cpuIsaLevels, createBackend } from '../../src/executor/backends.ts';

/** Backends that run here: `reference` always, `cpu` where its binary was built. */
export function availableBackends(): Backend[] {
  const cpu = cpuIsaLevels().length > 0 ? [createBackend('cpu')] : [];
  return [createBackend('reference'), ...cpu];
}
