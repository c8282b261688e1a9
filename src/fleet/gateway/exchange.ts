/**
 * One request of a client from its arrival at a service to its end: held or sent, tried again elsewhere while no byte of an answer
 * went out, hedged, passed on as it comes, broken off when the client leaves.
 */
import { TokenmillError } from '../../base/errors.ts';
import type { Outcome } from '../pick/breaker.ts';
import type { Dropped, Held } from '../pick/hold_queue.ts';
import type { PrefixHashes } from '../pick/prefix_index.ts';
import { decideHedge, decideRetry, hedgeAt } from '../pick/retry_budget.ts';
import { chooseRevision, type HeaderOf } from '../pick/split.ts';
import { Attempt, type AttemptOwner } from './attempt.ts';
import type { ExternalTarget } from './endpoint.ts';
import { codedError, type Dialect } from './http_errors.ts';
import { type BodyFacts, promptTokensOf } from './request_facts.ts';
import { withField } from './scan_body.ts';
import type { Choice, Holdable, RevisionLive, ServiceLive } from './service.ts';
import type { AnswerSink } from './sink.ts';

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

const BACKOFF_MS = 50;
const MAX_BACKOFF_MS = 1000;

function outcomeOf(status: number): Outcome {
  if (status === 502 || status === 503 || status === 504) return 'gatewayFailure';
  return status >= 500 ? 'serverError' : status < 400 ? 'ok' : 'neutral';
}

export class Exchange implements AttemptOwner, Holdable {
  readonly request: ClientRequest;
  service: ServiceLive;
  readonly startedAt: number;
  private readonly host: ExchangeHost;
  private readonly sink: AnswerSink;
  private readonly options: ExchangeOptions;
  private readonly tried = new Set<string>();
  private readonly live: Attempt[] = [];
  private readonly promptTokens: number;
  private prefix: PrefixHashes | null | undefined = undefined;
  private body: Buffer | null;
  private winner: Attempt | null = null;
  private held: Held<Holdable> | null = null;
  private timer: NodeJS.Timeout | null = null;
  private attempts = 0;
  private fallbacksLeft: readonly string[];
  private inFlight = false;
  private over = false;
  private revision: RevisionLive | null = null;
  private strict = false;
  private waitsFor = 0;
  private keptAliveAt: number;
  private lastError: Error | null = null;

  constructor(
    host: ExchangeHost,
    service: ServiceLive,
    request: ClientRequest,
    sink: AnswerSink,
    options: ExchangeOptions = {},
  ) {
    this.host = host;
    this.service = service;
    this.request = request;
    this.sink = sink;
    this.options = options;
    this.body = request.body;
    this.promptTokens = promptTokensOf(request.facts);
    this.fallbacksLeft = options.shadowOf === undefined ? service.route.traffic.fallbacks : [];
    this.startedAt = host.now();
    this.keptAliveAt = this.startedAt;
    sink.onGone = () => this.clientLeft();
    sink.onDrain = () => this.winner?.resume();
  }

  start(): void {
    const { service, host } = this;
    const now = this.startedAt;
    host.opened(this);
    if (this.options.shadowOf === undefined) {
      service.arrivals++;
      service.lastActiveAt = now;
      service.retries.request(now);
    }
    this.place(now);
  }

  /** Decides where it goes, or that it is held. */
  private place(now: number): void {
    const { service } = this;
    if (this.options.shadowOf !== undefined) {
      this.revision = this.options.shadowOf;
      this.strict = true;
      this.go(now);
      return;
    }
    const split = chooseRevision(service.route, this.request.header, this.host.draw());
    if (split.kind === 'stopped') {
      this.unserved(codedError('no_ready_replica', `The model ${this.modelName} is stopped.`), null);
      return;
    }
    if (split.kind === 'unknown') {
      const known = service.route.revisions.map(({ id }) => id).slice(0, 16);
      this.fail(
        codedError(
          'model_not_found',
          `No revision is named ${split.name.slice(0, 100)}.`,
          `There are ${known.join(', ')}.`,
        ),
      );
      return;
    }
    this.revision = service.revisions.get(split.revision.id) ?? null;
    this.strict = split.by === 'header' || split.by === 'pin';
    if (this.strict && service.hasReady && split.revision.endpoints.length === 0) {
      this.unserved(
        codedError('no_ready_replica', `The revision ${split.revision.id} has no ready replica.`),
        'rejected-no-endpoints',
      );
      return;
    }
    if (service.queue.size > 0 || !service.hasRoom(now)) this.hold(now);
    else this.go(now);
  }

  private get modelName(): string {
    return this.service.route.models[0] ?? this.service.id;
  }

  private hold(now: number): void {
    const { service, request } = this;
    if (!service.hasReady && this.fallBack()) return;
    const asked = {
      priority: request.priority,
      key: request.key,
      tokens: this.promptTokens,
      bytes: request.body?.length ?? 0,
      value: this as Holdable,
    };
    const offered = service.queue.offer(asked, service.pool(now), now);
    if (offered.kind === 'held') {
      this.held = offered.held;
      for (const evicted of offered.evicted) (evicted.held.value as Exchange).dropped(evicted);
      return;
    }
    this.unserved(this.refusal(offered.status, offered.retryAfterMs), offered.reason);
  }

  private refusal(status: 429 | 503, retryAfterMs: number): TokenmillError {
    const why = status === 429 ? 'All replicas are busy' : 'No replica is ready';
    return new TokenmillError(
      status === 429 ? 'queue_full' : 'no_ready_replica',
      `${why} and the request for ${this.modelName} could not be held (any longer).`,
      { remedy: 'Try again after the time in Retry-After.', retryAfterS: retryAfterMs / 1000 },
    );
  }

  /** Taken out of the queue without an endpoint. */
  dropped({ status, reason }: Dropped<Holdable>): void {
    this.held = null;
    if (!this.over) this.unserved(this.refusal(status, 1000), reason);
  }

  released(now: number): void {
    this.held = null;
    if (!this.over) this.go(now);
  }

  private go(now: number): void {
    const choice = this.nextChoice(now);
    if (choice !== null) this.launch(choice);
    else if (this.options.shadowOf === undefined) this.backOff(now);
    else this.fail(codedError('no_ready_replica', 'The shadow has no ready replica.'));
  }

  private nextChoice(now: number): Choice | null {
    const { service, request, revision } = this;
    if (revision === null) return null;
    if (this.prefix === undefined) {
      const { prompt } = request.facts;
      this.prefix = prompt === null ? null : this.host.prefixOf(service, prompt);
    }
    const facts = {
      prefix: this.prefix,
      sessionKey: request.sessionKey,
      lora:
        request.facts.model !== null && !service.route.models.includes(request.facts.model)
          ? request.facts.model
          : null,
      promptTokens: this.promptTokens,
    };
    const seed = Math.floor(this.host.draw() * 2 ** 32);
    return service.choose(revision, facts, this.tried, this.strict, seed, now);
  }

  private launch({ revision, endpoint }: Choice): void {
    const { service, host } = this;
    const attempt = new Attempt(this, { target: endpoint, endpoint, revision }, () => host.now());
    this.attempts++;
    this.tried.add(endpoint.id);
    this.live.push(attempt);
    this.countInFlight();
    endpoint.inFlight++;
    endpoint.inFlightTokens += this.promptTokens;
    revision.requests++;
    revision.breaker.begin(endpoint.id, attempt.startedAt);
    if (this.prefix != null) service.prefixes.record(endpoint.id, this.prefix);
    this.send(attempt);
    this.armHedge(attempt.startedAt);
  }

  private send(attempt: Attempt): void {
    const { method, path, fields } = this.request;
    attempt.send({ method, path, fields, body: this.body });
  }

  private countInFlight(): void {
    if (this.inFlight || this.options.shadowOf !== undefined) return;
    this.inFlight = true;
    this.service.inFlight++;
  }

  private othersLeft(now: number): number {
    let left = 0;
    for (const revision of this.strict && this.revision !== null ? [this.revision] : this.service.revisions.values()) {
      for (const { id } of revision.endpoints) if (!this.tried.has(id) && revision.breaker.allows(id, now)) left++;
    }
    return left;
  }

  private armHedge(now: number): void {
    const { hedgeAfterMs } = this.service.route.traffic;
    if (hedgeAfterMs === 0 || this.timer !== null || this.options.shadowOf !== undefined) return;
    const { maxAttempts } = this.host;
    const attempt = { attempts: this.attempts, maxAttempts, answered: false, othersLeft: this.othersLeft(now) };
    const at = hedgeAt(attempt, hedgeAfterMs, now);
    if (at === null) return;
    this.timer = setTimeout(
      () => {
        this.timer = null;
        const later = this.host.now();
        const othersLeft = this.othersLeft(later);
        const again = { attempts: this.attempts, maxAttempts, answered: this.winner !== null, othersLeft };
        if (this.over || this.live.length === 0) return;
        if (!decideHedge(again, hedgeAfterMs, now, this.service.retries, later)) return;
        const choice = this.nextChoice(later);
        if (choice === null) return;
        this.host.counted(this.service, 'hedges');
        this.launch(choice);
      },
      Math.max(0, at - now),
    );
  }

  // What attempts report.

  attemptAnswers(attempt: Attempt): boolean {
    if (this.over || (this.winner !== null && this.winner !== attempt)) return false;
    const head = attempt.head;
    if (head === null) return false;
    if (head.status >= 400 && this.retryStatus(attempt, head.status)) return false;
    this.winner = attempt;
    for (const other of [...this.live]) if (other !== attempt) this.settle(other, 'neutral', true);
    if (attempt.collected === null) this.sink.begin(head, this.extraHeaders(attempt));
    return true;
  }

  /** True when another server is asked instead. */
  private retryStatus(attempt: Attempt, status: number): boolean {
    const now = this.host.now();
    if (this.live.length > 1) {
      // A hedge is still under way: its answer is waited for, unless this one says that the request itself is wrong.
      if (status < 500 && status !== 429) return false;
      this.settle(attempt, outcomeOf(status), attempt.collected === null);
      return true;
    }
    const retry = this.mayRetry(status, now);
    if (!retry && ((status < 500 && status !== 429) || !this.hasFallback())) return false;
    this.settle(attempt, outcomeOf(status), attempt.collected === null);
    if (retry) this.again(now);
    else if (!this.fallBack()) this.backOff(now);
    return true;
  }

  private mayRetry(status: number | null, now: number): boolean {
    if (this.options.shadowOf !== undefined) return false;
    const attempt = {
      attempts: this.attempts,
      maxAttempts: this.host.maxAttempts,
      answered: this.winner !== null && this.winner.collected === null,
      othersLeft: this.othersLeft(now),
    };
    return decideRetry(attempt, status, this.service.retries, now).retry;
  }

  private again(now: number): void {
    const choice = this.winner === null ? this.nextChoice(now) : null;
    if (choice !== null) {
      this.host.counted(this.service, 'retries');
      this.launch(choice);
    } else if (!this.fallBack()) this.backOff(now);
  }

  attemptBody(attempt: Attempt, pieces: readonly Buffer[], framed: Buffer | null): void {
    if (this.over || attempt !== this.winner) return;
    if (!this.sink.write(pieces, framed)) attempt.pause();
  }

  attemptEnds(attempt: Attempt): void {
    const { head, collected } = attempt;
    if (this.over || head === null) return;
    if (collected !== null) this.sink.whole(head, this.extraHeaders(attempt), collected);
    else this.sink.end();
    this.settle(attempt, outcomeOf(head.status), false);
    const usage = this.measured(attempt);
    this.close({ status: head.status, ...usage, revision: attempt.revision?.id ?? null });
  }

  private measured(attempt: Attempt): { promptTokens: number; outputTokens: number } {
    const usage = attempt.usage();
    const promptTokens = usage === null ? 0 : usage.promptTokens || this.promptTokens;
    const outputTokens = usage?.outputTokens ?? 0;
    const { revision, firstAt, lastAt, startedAt } = attempt;
    if (revision !== null) {
      revision.promptTokens += promptTokens;
      revision.outputTokens += outputTokens;
      if (attempt.isStream && firstAt !== null) {
        revision.ttft.observe(firstAt - startedAt);
        if (outputTokens > 1) revision.tpot.observe((lastAt - firstAt) / (outputTokens - 1));
      }
    }
    return { promptTokens, outputTokens };
  }

  attemptFails(attempt: Attempt, error: Error): void {
    if (this.over) return;
    const now = this.host.now();
    this.lastError = error;
    const answered = attempt === this.winner && attempt.collected === null;
    this.settle(attempt, 'gatewayFailure', true);
    if (this.live.length > 0) return;
    if (answered) {
      const usage = this.measured(attempt);
      const broken = codedError('replica_failed', `The replica broke the answer off: ${error.message}.`);
      this.sink.fail(broken, null, []);
      this.close({ status: broken.status, ...usage, revision: attempt.revision?.id ?? null });
      return;
    }
    this.winner = null;
    if (this.mayRetry(null, now)) this.again(now);
    else if (!this.fallBack()) this.backOff(now);
  }

  /** No answer was had from anyone: asked again later, until the time for holding is over. */
  private backOff(now: number): void {
    const { ttlMs, coldTtlMs } = this.service.route.traffic.queue;
    const deadline = this.startedAt + (this.service.hasReady ? ttlMs : Math.max(ttlMs, coldTtlMs));
    this.waitsFor = Math.min(MAX_BACKOFF_MS, this.waitsFor === 0 ? BACKOFF_MS : this.waitsFor * 2);
    const broken = this.lastError;
    if (this.options.shadowOf !== undefined || now + this.waitsFor > deadline) {
      this.fail(
        broken === null
          ? codedError('no_ready_replica', `No replica of ${this.modelName} could be asked.`)
          : codedError('replica_failed', `No replica of ${this.modelName} gave an answer: ${broken.message}.`),
      );
      return;
    }
    this.stopTimer();
    this.timer = setTimeout(() => {
      this.timer = null;
      this.tried.clear();
      this.attempts = 0;
      this.place(this.host.now());
    }, this.waitsFor);
  }

  private stopTimer(): void {
    if (this.timer !== null) clearTimeout(this.timer);
    this.timer = null;
  }

  private hasFallback(): boolean {
    return this.fallbacksLeft.some((name) => this.host.serviceOf(name) !== null || this.host.externalOf(name) !== null);
  }

  /** Asks the next fallback that can be asked at once. */
  private fallBack(): boolean {
    const now = this.host.now();
    for (const name of this.fallbacksLeft) {
      this.fallbacksLeft = this.fallbacksLeft.slice(this.fallbacksLeft.indexOf(name) + 1);
      const service = this.host.serviceOf(name);
      const external = service === null ? this.host.externalOf(name) : null;
      if (service?.hasRoom(now)) {
        this.fallBackTo(service, name, now);
        return true;
      }
      if (external !== null) {
        this.askExternal(external);
        return true;
      }
    }
    return false;
  }

  private renamed(model: string): Buffer | null {
    const { body, facts } = this.request;
    return body === null || facts.model === null ? body : withField(body, 'model', facts.fields['model'], model);
  }

  private fallBackTo(service: ServiceLive, name: string, now: number): void {
    this.host.counted(this.service, 'fallbacks');
    this.leaveService();
    this.service = service;
    this.attempts = 0;
    this.tried.clear();
    this.prefix = undefined;
    this.body = this.renamed(name);
    service.arrivals++;
    service.lastActiveAt = now;
    this.place(now);
  }

  private askExternal({ model, target }: External): void {
    this.host.counted(this.service, 'fallbacks');
    const attempt = new Attempt(this, { target, endpoint: null, revision: null }, () => this.host.now());
    this.attempts = this.host.maxAttempts;
    this.live.push(attempt);
    this.countInFlight();
    const { method, path, facts } = this.request;
    // A stranger gets the question and nothing about who asked.
    const fields = `content-type: application/json\r\naccept: ${facts.stream ? 'text/event-stream' : 'application/json'}\r\n`;
    attempt.send({ method, path, fields, body: this.renamed(model) });
  }

  /** Called now and then: silence, keep-alive comments, the time of the whole request. */
  tick(now: number): void {
    if (this.over) return;
    const { timeoutMs } = this.request;
    if (timeoutMs > 0 && now - this.startedAt > timeoutMs) {
      this.timeOut(`The route allows ${timeoutMs} ms for a request.`);
      return;
    }
    const idleMs = this.service.route.traffic.idleTimeoutMs;
    for (const attempt of idleMs > 0 ? [...this.live] : []) {
      if (now - attempt.lastAt <= idleMs) continue;
      if (attempt.paused) {
        this.clientLeft();
        return;
      }
      attempt.abort();
      this.attemptFails(attempt, new Error(`it was silent for ${idleMs} ms`));
      if (this.over) return;
    }
    const { keepAliveMs } = this.host;
    if (keepAliveMs > 0 && this.winner === null && now - this.keptAliveAt >= keepAliveMs) {
      this.keptAliveAt = now;
      this.sink.keepAlive();
    }
  }

  private timeOut(message: string): void {
    for (const attempt of [...this.live]) this.settle(attempt, 'serverError', true);
    this.fail(codedError('replica_timeout', message));
  }

  private extraHeaders(attempt: Attempt): string[] {
    const extra = ['x-gateway-destination-endpoint-served', attempt.target.host];
    if (!attempt.head?.headers.some((name) => name.toLowerCase() === 'x-request-id'))
      extra.push('x-request-id', this.request.id);
    if (attempt.revision !== null) extra.push('x-tokenmill-revision', attempt.revision.id);
    return this.options.extraHeaders === undefined ? extra : [...extra, ...this.options.extraHeaders];
  }

  /** An attempt is over: its endpoint is free of it, and its breaker knows. */
  private settle(attempt: Attempt, outcome: Outcome, abort: boolean): void {
    const at = this.live.indexOf(attempt);
    if (at < 0) return;
    this.live.splice(at, 1);
    if (abort) attempt.abort();
    else attempt.drop();
    const { endpoint, revision } = attempt;
    if (endpoint === null || revision === null) return;
    endpoint.inFlight--;
    endpoint.inFlightTokens -= this.promptTokens;
    revision.breaker.report(endpoint.id, outcome, this.host.now());
    if (outcome === 'serverError' || outcome === 'gatewayFailure') revision.errors++;
    this.service.released(endpoint);
    this.host.pump(this.service);
  }

  clientLeft(): void {
    if (this.over) return;
    if (this.held !== null) this.service.queue.cancel(this.held);
    this.held = null;
    const { winner } = this;
    for (const attempt of [...this.live]) this.settle(attempt, 'neutral', true);
    this.host.counted(this.service, 'aborts');
    const usage = winner === null ? { promptTokens: 0, outputTokens: 0 } : this.measured(winner);
    this.close({ status: 499, ...usage, revision: winner?.revision?.id ?? null });
  }

  /** Nobody can take it: fallbacks, else the error. */
  private unserved(error: TokenmillError, reason: string | null): void {
    if (this.fallBack()) return;
    this.fail(error, reason);
  }

  /** Ends it with an error, whatever state it is in. */
  fail(error: TokenmillError, reason: string | null = null): void {
    if (this.over) return;
    if (this.held !== null) this.service.queue.cancel(this.held);
    this.held = null;
    for (const attempt of [...this.live]) this.settle(attempt, 'neutral', true);
    if (this.attempts === 0 && this.options.shadowOf === undefined) this.service.refused++;
    const extra = ['x-request-id', this.request.id, ...(this.options.extraHeaders ?? [])];
    this.sink.fail(error, reason, extra);
    this.close({ status: error.status, promptTokens: 0, outputTokens: 0, revision: null });
  }

  private leaveService(): void {
    if (!this.inFlight) return;
    this.inFlight = false;
    this.service.inFlight--;
    this.service.lastActiveAt = this.host.now();
  }

  private close(end: ExchangeEnd): void {
    if (this.over) return;
    this.over = true;
    this.stopTimer();
    this.leaveService();
    if (this.options.shadowOf === undefined) this.service.lastActiveAt = this.host.now();
    this.host.closed(this, end);
    this.options.onEnd?.(end);
  }
}
