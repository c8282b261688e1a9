import type { Backend } from '../backends/backend.ts';
import { createReferenceBackend } from '../backends/reference/reference_backend.ts';
import { TokenmillError } from '../base/errors.ts';

/** Throws `native_missing` when `cpu` has no binary for this machine. */
export function createBackend(name: Backend['name']): Backend {
  if (name === 'reference') return createReferenceBackend();
  throw new TokenmillError('native_missing', 'There is no native binary of the cpu backend for this machine.');
}
