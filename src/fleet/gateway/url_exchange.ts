/** A request to a URL that a graph names: one try, no holding; otherwise as an {@link Exchange}. */
import { Attempt, type AttemptOwner } from './attempt.ts';
import type { ClientRequest, ExchangeEnd } from './client_request.ts';
import type { ExternalTarget } from './endpoint.ts';
import { codedError } from './http_errors.ts';
import type { AnswerSink } from './sink.ts';

/** Silence that ends it. */
const IDLE_MS = 300_000;

export class UrlExchange implements AttemptOwner {
  private readonly request: ClientRequest;
  private readonly sink: AnswerSink;
  private readonly onEnd: (end: ExchangeEnd) => void;
  private readonly attempt: Attempt;
  private readonly timer: NodeJS.Timeout;
  private over = false;

  constructor(
    host: { now(): number },
    target: ExternalTarget,
    request: ClientRequest,
    sink: AnswerSink,
    onEnd: (end: ExchangeEnd) => void,
  ) {
    this.request = request;
    this.sink = sink;
    this.onEnd = onEnd;
    this.attempt = new Attempt(this, { target, endpoint: null, revision: null }, () => host.now());
    this.timer = setTimeout(() => {
      this.attempt.abort();
      this.fail(`it was silent for ${IDLE_MS} ms`);
    }, IDLE_MS);
    sink.onGone = () => this.clientLeft();
    sink.onDrain = () => this.attempt.resume();
  }

  start(): void {
    const { id, body, facts, header } = this.request;
    const trace = header('traceparent');
    const fields = [
      'content-type: application/json',
      `accept: ${facts.stream ? 'text/event-stream' : 'application/json'}`,
      `x-request-id: ${id}`,
      // Of the client's own fields a URL outside gets none but the trace.
      ...(trace === undefined ? [] : [`traceparent: ${trace}`]),
    ];
    // The URL of a step is whole: nothing of the request's own path is added.
    this.attempt.send({ method: 'POST', path: '', fields: `${fields.join('\r\n')}\r\n`, body });
  }

  attemptAnswers(attempt: Attempt): boolean {
    if (this.over || attempt.head === null) return false;
    if (attempt.collected === null) this.sink.begin(attempt.head, ['x-request-id', this.request.id]);
    return true;
  }

  attemptBody(attempt: Attempt, pieces: readonly Buffer[], framed: Buffer | null): void {
    this.timer.refresh();
    if (!this.over && !this.sink.write(pieces, framed)) attempt.pause();
  }

  attemptEnds(attempt: Attempt): void {
    const { head, collected } = attempt;
    if (this.over || head === null) return;
    if (collected !== null) this.sink.whole(head, ['x-request-id', this.request.id], collected);
    else this.sink.end();
    const usage = attempt.usage();
    this.close({
      status: head.status,
      promptTokens: usage?.promptTokens ?? 0,
      outputTokens: usage?.outputTokens ?? 0,
      revision: null,
    });
  }

  attemptFails(_attempt: Attempt, error: Error): void {
    this.fail(error.message);
  }

  private fail(why: string): void {
    if (this.over) return;
    const error = codedError('replica_failed', `A step of the graph gave no whole answer: ${why}.`);
    this.sink.fail(error, null, []);
    this.close({ status: error.status, promptTokens: 0, outputTokens: 0, revision: null });
  }

  clientLeft(): void {
    this.attempt.abort();
    this.close({ status: 499, promptTokens: 0, outputTokens: 0, revision: null });
  }

  private close(end: ExchangeEnd): void {
    if (this.over) return;
    this.over = true;
    clearTimeout(this.timer);
    this.onEnd(end);
  }
}
