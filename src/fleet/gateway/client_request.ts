/** What an exchange is given and what it asks of the gateway. */

import { TokenmillError } from '../../base/errors.ts';
import type { Outcome } from '../pick/breaker.ts';
import type { PrefixHashes } from '../pick/prefix_index.ts';
import type { HeaderOf } from '../pick/split.ts';
import type { Attempt } from './attempt.ts';
import type { ExternalTarget } from './endpoint.ts';
import type { Exchange } from './exchange.ts';
import { codedError, type Dialect } from './http_errors.ts';
import type { BodyFacts } from './request_facts.ts';
import { withField } from './scan_body.ts';
import type { RevisionLive, ServiceLive } from './service.ts';

export interface ClientRequest {
  readonly id: string;
  readonly method: string;
  /** With the query, after rewrites. */
  readonly path: string;
  readonly dialect: Dialect;
  readonly fields: string;
  readonly body: Buffer | null;
  readonly facts: BodyFacts;
  readonly header: HeaderOf;
  /** Whose it is, for fairness. */
  readonly key: string;
  readonly sessionKey: string | null;
  /** Higher goes first. */
  readonly priority: number;
  /** Of the whole request, ms; 0 = none. */
  readonly timeoutMs: number;
}

export interface External {
  readonly name: string;
  readonly url: string;
  readonly key: string | null;
  readonly model: string;
  readonly target: ExternalTarget;
}

export interface ExchangeEnd {
  /** Sent to the client; 499 = it left. */
  readonly status: number;
  readonly promptTokens: number;
  readonly outputTokens: number;
  readonly revision: string | null;
}

/** What an exchange needs of the gateway. */
export interface ExchangeHost {
  now(): number;
  /** Uniform in [0, 1). */
  draw(): number;
  serviceOf(model: string): ServiceLive | null;
  externalOf(name: string): External | null;
  prefixOf(service: ServiceLive, prompt: Buffer): PrefixHashes | null;
  /** Held requests of the service may have room now. */
  pump(service: ServiceLive): void;
  opened(exchange: Exchange): void;
  closed(exchange: Exchange, end: ExchangeEnd): void;
  counted(service: ServiceLive, what: 'retries' | 'hedges' | 'fallbacks' | 'aborts'): void;
  /** Tries of one request, the first included. */
  readonly maxAttempts: number;
  /** Comments to streams that wait for their first byte; 0 = none. */
  readonly keepAliveMs: number;
}

export interface ExchangeOptions {
  /** A copy of another request: one try at this revision, no holding, no counting of arrivals. */
  readonly shadowOf?: RevisionLive;
  /** On every answer: limits of the key. */
  readonly extraHeaders?: readonly string[];
  readonly onEnd?: (end: ExchangeEnd) => void;
}

/** What the status of an answer says of the replica that gave it. */
export function outcomeOf(status: number): Outcome {
  if (status === 502 || status === 503 || status === 504) return 'gatewayFailure';
  return status >= 500 ? 'serverError' : status < 400 ? 'ok' : 'neutral';
}

/** Nobody could take the request while it was held. */
export function refusal(model: string, status: 429 | 503, retryAfterMs: number): TokenmillError {
  const why = status === 429 ? 'All replicas are busy' : 'No replica is ready';
  return new TokenmillError(
    status === 429 ? 'queue_full' : 'no_ready_replica',
    `${why} and the request for ${model} could not be held (any longer).`,
    { remedy: 'Try again after the time in Retry-After.', retryAfterS: retryAfterMs / 1000 },
  );
}

/** No replica gave an answer; `last` = how the last one that was asked failed. */
export function unanswered(model: string, last: Error | null): TokenmillError {
  return last === null
    ? codedError('no_ready_replica', `No replica of ${model} could be asked.`)
    : codedError('replica_failed', `No replica of ${model} gave an answer: ${last.message}.`);
}

/** The gateway's own fields of an answer. */
export function answerHeaders(attempt: Attempt, requestId: string, more: readonly string[]): string[] {
  const extra = ['x-gateway-destination-endpoint-served', attempt.target.host];
  if (!attempt.head?.headers.some((name) => name.toLowerCase() === 'x-request-id'))
    extra.push('x-request-id', requestId);
  if (attempt.revision !== null) extra.push('x-tokenmill-revision', attempt.revision.id);
  return [...extra, ...more];
}

/** The body with another model's name, where it names one. */
export function renamedBody({ body, facts }: ClientRequest, model: string): Buffer | null {
  return body === null || facts.model === null ? body : withField(body, 'model', facts.fields['model'], model);
}

/** A stranger gets the question and nothing about who asked. */
export function externalFields(facts: BodyFacts): string {
  return `content-type: application/json\r\naccept: ${facts.stream ? 'text/event-stream' : 'application/json'}\r\n`;
}
