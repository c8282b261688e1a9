import { randomBytes } from 'node:crypto';

const MAX_ID_CHARS = 128;

export function randomId(): string {
  return randomBytes(8).toString('hex');
}

/** An id that a client chose, if it is fit for headers and logs, else null. */
export function clientId(value: unknown): string | null {
  return typeof value === 'string' && value.length <= MAX_ID_CHARS && /^[\x21-\x7e]+$/.test(value) ? value : null;
}
