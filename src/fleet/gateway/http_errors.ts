/** What a client gets for an error, in the words of the API it speaks; shapes as the replicas write them. */
import { ERRORS, type ErrorCode, TokenmillError } from '../../base/errors.ts';

export type Dialect = 'openai' | 'tgi' | 'v2';

export interface HttpError {
  readonly status: number;
  readonly json: string;
  readonly headers: readonly string[];
}

const RETRY_AFTER_S = 1;

/** TGI's `error_type` (its own list). */
function tgiType(status: number): string {
  if (status === 429) return 'overloaded';
  if (status >= 400 && status < 424) return 'validation';
  return status === 503 ? 'healthcheck' : 'generation';
}

/** The object that stands for an error in a body or in an event of a stream. */
export function errorJson(error: TokenmillError, dialect: Dialect): string {
  const { status, message } = error;
  if (dialect === 'tgi') return JSON.stringify({ error: message, error_type: tgiType(status) });
  if (dialect === 'v2') return JSON.stringify({ error: message });
  const type = ERRORS[error.code].type;
  return JSON.stringify({ error: { message, type, param: error.param, code: status } });
}

/** `reason`: for the header `x-llm-d-request-dropped-reason`; null = none. */
export function httpError(error: TokenmillError, dialect: Dialect, reason: string | null = null): HttpError {
  const headers: string[] = [];
  const { status } = error;
  if (status === 429 || status === 503)
    headers.push('retry-after', String(Math.max(1, Math.ceil(error.retryAfterS ?? RETRY_AFTER_S))));
  if (status === 401) headers.push('www-authenticate', 'Bearer');
  if (reason !== null) headers.push('x-llm-d-request-dropped-reason', reason);
  return { status, json: errorJson(error, dialect), headers };
}

export function codedError(code: ErrorCode, message: string, remedy?: string): TokenmillError {
  return new TokenmillError(code, message, remedy === undefined ? {} : { remedy });
}

/** Bugs say nothing of themselves to clients: a message could hold a prompt. */
export function asTokenmillError(error: unknown): TokenmillError {
  return error instanceof TokenmillError
    ? error
    : new TokenmillError('internal', 'Internal error of the gateway. Its log has the cause.', { cause: error });
}
