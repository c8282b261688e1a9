/**
 * Every error a user can cause, once. `status` is the HTTP status the server answers with, `type` the `error.type` of
 * vLLM's error object, `exitCode` what the CLI ends with. The message says the cause, `remedy` the cure.
 */
export interface ErrorSpec {
  readonly status: number;
  readonly type: string;
  readonly exitCode: number;
  readonly doc: string;
}

export const ERRORS = {
  // requests
  invalid_request: {
    status: 400,
    type: 'BadRequestError',
    exitCode: 2,
    doc: 'A field of the request has a value that is not allowed.',
  },
  schema_violation: {
    status: 400,
    type: 'Bad Request',
    exitCode: 2,
    doc: 'The body does not match the schema of the route.',
  },
  context_length_exceeded: {
    status: 400,
    type: 'BadRequestError',
    exitCode: 2,
    doc: 'Prompt plus max_tokens is longer than max_model_len. Prompts are never cut in silence.',
  },
  unsupported_feature: {
    status: 400,
    type: 'BadRequestError',
    exitCode: 2,
    doc: 'A known field or feature that this version does not support; refused by name.',
  },
  template_error: {
    status: 400,
    type: 'BadRequestError',
    exitCode: 2,
    doc: 'The chat template refused the conversation or exceeded its limits.',
  },
  unauthorized: { status: 401, type: 'Unauthorized', exitCode: 2, doc: 'Missing or wrong API key.' },
  model_not_found: { status: 404, type: 'NotFoundError', exitCode: 2, doc: 'No served model has this name.' },
  body_too_large: { status: 413, type: 'BadRequestError', exitCode: 2, doc: 'The body exceeds --max-body-bytes.' },
  queue_full: {
    status: 429,
    type: 'TooManyRequestsError',
    exitCode: 75,
    doc: 'The waiting queue is at its limit; retry after the Retry-After header.',
  },
  overloaded: {
    status: 503,
    type: 'ServiceUnavailableError',
    exitCode: 75,
    doc: 'Draining, loading or over a token limit; retry elsewhere or later.',
  },
  aborted: {
    status: 499,
    type: 'ClientClosedRequest',
    exitCode: 130,
    doc: 'The client left before the answer was complete.',
  },
  engine_dead: {
    status: 500,
    type: 'InternalServerError',
    exitCode: 70,
    doc: 'The engine thread ended; the process exits and must be restarted.',
  },
  internal: { status: 500, type: 'InternalServerError', exitCode: 70, doc: 'A bug in Tokenmill.' },
  // models and files
  model_files_invalid: {
    status: 500,
    type: 'InternalServerError',
    exitCode: 65,
    doc: 'A model file is truncated, inconsistent or malicious.',
  },
  model_files_missing: {
    status: 500,
    type: 'InternalServerError',
    exitCode: 66,
    doc: 'A file the model needs does not exist.',
  },
  architecture_unknown: {
    status: 500,
    type: 'InternalServerError',
    exitCode: 65,
    doc: 'The architecture of config.json is not one that Tokenmill implements.',
  },
  weights_invalid: {
    status: 500,
    type: 'InternalServerError',
    exitCode: 65,
    doc: 'A tensor is missing, has the wrong shape or holds NaN.',
  },
  tokenizer_invalid: {
    status: 500,
    type: 'InternalServerError',
    exitCode: 65,
    doc: 'tokenizer.json cannot be read or does not fit the model.',
  },
  out_of_memory: {
    status: 500,
    type: 'InternalServerError',
    exitCode: 71,
    doc: 'Weights and KV cache do not fit; the message names a flag and value that would.',
  },
  disk_full: {
    status: 500,
    type: 'InternalServerError',
    exitCode: 74,
    doc: 'No space left for a download or for packed weights.',
  },
  download_failed: {
    status: 500,
    type: 'InternalServerError',
    exitCode: 69,
    doc: 'The hub could not be reached, refused, or sent bytes with a wrong checksum.',
  },
  offline: {
    status: 500,
    type: 'InternalServerError',
    exitCode: 69,
    doc: 'Offline mode is on and the file is not in the cache.',
  },
  // machine and configuration
  flag_invalid: {
    status: 500,
    type: 'InternalServerError',
    exitCode: 2,
    doc: 'An unknown flag or a value outside its range.',
  },
  native_missing: {
    status: 500,
    type: 'InternalServerError',
    exitCode: 72,
    doc: 'No native binary for this machine; the message says how to get one.',
  },
  isa_unsupported: {
    status: 500,
    type: 'InternalServerError',
    exitCode: 2,
    doc: 'The forced instruction set is not available on this machine.',
  },
  port_in_use: { status: 500, type: 'InternalServerError', exitCode: 69, doc: 'Another process listens on the port.' },
  verify_failed: {
    status: 500,
    type: 'InternalServerError',
    exitCode: 1,
    doc: 'The model disagrees with its golden file beyond the tolerance.',
  },
  // the fleet
  fleet_running: {
    status: 409,
    type: 'Conflict',
    exitCode: 75,
    doc: 'Another supervisor holds the state folder.',
  },
  fleet_not_running: {
    status: 503,
    type: 'ServiceUnavailableError',
    exitCode: 69,
    doc: 'No supervisor answers for the state folder.',
  },
  fleet_state_invalid: {
    status: 500,
    type: 'InternalServerError',
    exitCode: 65,
    doc: 'The file that keeps the state of a fleet cannot be opened or read.',
  },
  package_missing: {
    status: 500,
    type: 'InternalServerError',
    exitCode: 69,
    doc: 'An optional package that this needs is not installed; the message says which.',
  },
  fleet_object_unknown: {
    status: 404,
    type: 'NotFoundError',
    exitCode: 1,
    doc: 'The fleet has no service, replica or revision of this name.',
  },
  invalid_manifest: {
    status: 400,
    type: 'BadRequestError',
    exitCode: 65,
    doc: 'A fleet file or one of its objects cannot be understood.',
  },
  no_ready_replica: {
    status: 503,
    type: 'ServiceUnavailableError',
    exitCode: 69,
    doc: 'No replica of the model is ready, or none became ready while the request was held.',
  },
  replica_failed: {
    status: 502,
    type: 'BadGatewayError',
    exitCode: 69,
    doc: 'The replicas that the request was sent to refused the connection or broke it off.',
  },
  replica_timeout: {
    status: 504,
    type: 'GatewayTimeoutError',
    exitCode: 69,
    doc: 'A replica was silent for longer than the idle timeout, or the route has a shorter one for the whole request.',
  },
  route_broken: {
    status: 500,
    type: 'InternalServerError',
    exitCode: 65,
    doc: 'A rule of a route or a step of a graph leads to nothing.',
  },
  model_not_allowed: {
    status: 403,
    type: 'PermissionDeniedError',
    exitCode: 2,
    doc: 'The key is not allowed to use this model, or is blocked or expired.',
  },
  rate_limited: {
    status: 429,
    type: 'TooManyRequestsError',
    exitCode: 75,
    doc: 'A limit of the key on requests, tokens or parallel requests is reached.',
  },
  budget_exceeded: {
    status: 400,
    type: 'budget_exceeded',
    exitCode: 75,
    doc: 'The budget of the key is spent.',
  },
} as const satisfies Record<string, ErrorSpec>;

export type ErrorCode = keyof typeof ERRORS;

export interface ErrorDetails {
  /** Field, flag or file the error is about. */
  readonly param?: string | null;
  readonly value?: unknown;
  /** What the user can do about it; one sentence. */
  readonly remedy?: string;
  readonly cause?: unknown;
  /** Seconds after which a retry makes sense (Retry-After). */
  readonly retryAfterS?: number;
}

/** The one error class for what a user can cause. Crosses threads as {@link SerializedError}. */
export class TokenmillError extends Error {
  override readonly name = 'TokenmillError';
  readonly code: ErrorCode;
  readonly param: string | null;
  readonly remedy: string | undefined;
  readonly retryAfterS: number | undefined;

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    super(details.remedy ? `${message} ${details.remedy}` : message, { cause: details.cause });
    this.code = code;
    this.param = details.param ?? null;
    this.remedy = details.remedy;
    this.retryAfterS = details.retryAfterS;
  }

  get status(): number {
    return ERRORS[this.code].status;
  }

  get exitCode(): number {
    return ERRORS[this.code].exitCode;
  }
}

export interface SerializedError {
  readonly code: ErrorCode;
  readonly message: string;
  readonly param: string | null;
}

export function serializeError(error: unknown): SerializedError {
  if (error instanceof TokenmillError) return { code: error.code, message: error.message, param: error.param };
  return { code: 'internal', message: error instanceof Error ? error.message : String(error), param: null };
}

export function deserializeError(error: SerializedError): TokenmillError {
  return new TokenmillError(error.code, error.message, { param: error.param });
}
