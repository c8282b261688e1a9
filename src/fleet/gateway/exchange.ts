/**
 * One request of a client from its arrival at a service to its end: held or sent, tried again elsewhere while no byte of an answer
 * went out, hedged, passed on as it comes, broken off when the client leaves.
 */
import type { TokenmillError } from '../../base/errors.ts';
import type { Outcome } from '../pick/breaker.ts';
import type { Dropped, Held } from '../pick/hold_queue.ts';
import type { PrefixHashes } from '../pick/prefix_index.ts';
import { decideHedge, decideRetry, hedgeAt, type Attempt as Progress } from '../pick/retry_budget.ts';
import { chooseRevision } from '../pick/split.ts';
import { Attempt, type AttemptOwner } from './attempt.ts';
import {
  answerHeaders,
  type ClientRequest,
  type ExchangeEnd,
  type ExchangeHost,
  type ExchangeOptions,
  type External,
  externalFields,
  outcomeOf,
  refusal,
  renamedBody,
  unanswered,
} from './client_request.ts';
import { codedError } from './http_errors.ts';
import { promptTokensOf } from './request_facts.ts';
import type { Choice, Holdable, RevisionLive, ServiceLive } from './service.ts';
import type { AnswerSink } from './sink.ts';

const BACKOFF_MS = 50;
const MAX_BACKOFF_MS = 1000;

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
  private failedAt: number | null = null;
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
    if (this.othersLeft(now) === 0 && this.fallBack()) return;
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
    this.unserved(refusal(this.modelName, offered.status, offered.retryAfterMs), offered.reason);
  }

  /** Taken out of the queue without an endpoint. */
  dropped({ status, reason }: Dropped<Holdable>): void {
    this.held = null;
    if (!this.over) this.unserved(refusal(this.modelName, status, 1000), reason);
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
      this.prefix = prompt === null || service.endpoints.size < 2 ? null : this.host.prefixOf(service, prompt);
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

  private progress(now: number): Progress {
    const answered = this.winner !== null && this.winner.collected === null;
    return { attempts: this.attempts, maxAttempts: this.host.maxAttempts, answered, othersLeft: this.othersLeft(now) };
  }

  private armHedge(now: number): void {
    const { hedgeAfterMs } = this.service.route.traffic;
    if (hedgeAfterMs === 0 || this.timer !== null || this.options.shadowOf !== undefined) return;
    const at = hedgeAt(this.progress(now), hedgeAfterMs, now);
    if (at !== null) this.timer = setTimeout(() => this.hedge(now, at), at - now);
  }

  private hedge(startedAt: number, at: number): void {
    this.timer = null;
    if (this.over || this.live.length === 0) return;
    const { hedgeAfterMs } = this.service.route.traffic;
    // Timers may ring a part of a millisecond early.
    const now = Math.max(at, this.host.now());
    if (!decideHedge(this.progress(now), hedgeAfterMs, startedAt, this.service.retries, now)) return;
    const choice = this.nextChoice(now);
    if (choice === null) return;
    this.host.counted(this.service, 'hedges');
    this.launch(choice);
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
    return decideRetry(this.progress(now), status, this.service.retries, now).retry;
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
    const usage = attempt.count(this.promptTokens);
    this.close({ status: head.status, ...usage, revision: attempt.revision?.id ?? null });
  }

  attemptFails(attempt: Attempt, error: Error): void {
    if (this.over) return;
    const now = this.host.now();
    this.lastError = error;
    const answered = attempt === this.winner && attempt.collected === null;
    this.settle(attempt, 'gatewayFailure', true);
    if (this.live.length > 0) return;
    if (answered) {
      const usage = attempt.count(this.promptTokens);
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
    this.failedAt ??= now;
    const deadline = this.failedAt + (this.service.hasReady ? ttlMs : Math.max(ttlMs, coldTtlMs));
    this.waitsFor = Math.min(MAX_BACKOFF_MS, this.waitsFor === 0 ? BACKOFF_MS : this.waitsFor * 2);
    if (this.options.shadowOf !== undefined || now + this.waitsFor > deadline) {
      this.fail(unanswered(this.modelName, this.lastError));
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

  private fallBackTo(service: ServiceLive, name: string, now: number): void {
    this.host.counted(this.service, 'fallbacks');
    this.leaveService();
    this.service = service;
    this.attempts = 0;
    this.tried.clear();
    this.prefix = undefined;
    this.body = renamedBody(this.request, name);
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
    attempt.send({ method, path, fields: externalFields(facts), body: renamedBody(this.request, model) });
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
      // Before the first byte a replica may compute for long; whether it still lives is its liveness probe's to say.
      if (attempt.firstAt === null || now - attempt.lastAt <= idleMs) continue;
      if (attempt.paused) {
        this.sink.cut();
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
    return answerHeaders(attempt, this.request.id, this.options.extraHeaders ?? []);
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
    const usage = winner === null ? { promptTokens: 0, outputTokens: 0 } : winner.count(this.promptTokens);
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
