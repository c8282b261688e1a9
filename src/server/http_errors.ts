/** Errors as vLLM's server writes them: `{"error": {message, type, param, code}}`, code = HTTP status. */
import { ERRORS, TokenmillError } from '../base/errors.ts';

export interface ErrorBody {
  readonly error: {
    readonly message: string;
    readonly type: string;
    readonly param: string | null;
    readonly code: number;
  };
}

export interface HttpError {
  readonly status: number;
  readonly body: ErrorBody | { readonly error: string };
  readonly retryAfterS: number | null;
  /** True when the cause is a bug of ours and belongs in the log with its stack. */
  readonly unexpected: boolean;
}

export function errorBody(status: number, type: string, message: string, param: string | null = null): ErrorBody {
  return { error: { message, type, param, code: status } };
}

/** camelCase names of the library are snake_case on the wire. */
function wireName(param: string): string {
  return param.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

const RETRY_AFTER_S = 1;

function fromTokenmillError(error: TokenmillError): HttpError {
  const spec = ERRORS[error.code];
  if (error.code === 'unauthorized') {
    return { status: 401, body: { error: 'Unauthorized' }, retryAfterS: null, unexpected: false };
  }
  const param = error.param === null ? null : wireName(error.param);
  const retryable = spec.status === 429 || spec.status === 503;
  return {
    status: spec.status,
    body: errorBody(spec.status, spec.type, error.message, param),
    retryAfterS: retryable ? Math.max(1, Math.ceil(error.retryAfterS ?? RETRY_AFTER_S)) : null,
    unexpected: spec.status === 500,
  };
}

function fromFrameworkError(error: Error & { code?: unknown; statusCode?: unknown }): HttpError | null {
  if (typeof error.statusCode !== 'number' || error.statusCode < 400 || error.statusCode >= 500) return null;
  return {
    status: error.statusCode,
    body: errorBody(error.statusCode, 'Bad Request', error.message),
    retryAfterS: null,
    unexpected: false,
  };
}

/** Any thrown value -> what the client gets. Bugs answer 500 without their message, which could hold a prompt. */
export function toHttpError(error: unknown): HttpError {
  if (error instanceof TokenmillError) return fromTokenmillError(error);
  if (error instanceof Error) {
    const known = fromFrameworkError(error);
    if (known) return known;
  }
  return {
    status: 500,
    body: errorBody(500, 'InternalServerError', 'Internal server error. The log of the server has the cause.'),
    retryAfterS: null,
    unexpected: true,
  };
}

function pythonValue(value: unknown): string {
  if (typeof value === 'string') return value;
  if (Array.isArray(value))
    return `[${value.map((item) => (typeof item === 'string' ? `'${item}'` : pythonValue(item))).join(', ')}]`;
  return String(value);
}

/** A refused value in vLLM's words: `message (parameter=p, value=v)`. */
export function badValue(message: string, param: string | null = null, value?: unknown): TokenmillError {
  if (param === null) return new TokenmillError('invalid_request', message);
  const shown = value === undefined ? '' : `, value=${pythonValue(value).slice(0, 200)}`;
  return new TokenmillError('invalid_request', `${message} (parameter=${param}${shown})`, { param });
}

/** A known field or feature that this version does not have. */
export function unsupported(feature: string, param: string, remedy?: string): TokenmillError {
  return new TokenmillError('unsupported_feature', `${feature} is not supported by this version of Tokenmill.`, {
    param,
    remedy: remedy ?? `Leave out \`${param}\`.`,
  });
}
