/** Where a supervisor listens and with what token, in a file that only the owner of the state folder can read. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

export interface ApiAddress {
  readonly url: string;
  readonly token: string;
  readonly pid: number;
}

export function apiFile(stateDir: string): string {
  return join(stateDir, 'api.json');
}

/** Null when no supervisor has left one, or it cannot be read. */
export function readApiAddress(stateDir: string): ApiAddress | null {
  try {
    return JSON.parse(readFileSync(apiFile(stateDir), 'utf8')) as ApiAddress;
  } catch {
    return null;
  }
}
