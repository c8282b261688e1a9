/** One try of a request at one server: the call, its times and what came back. */
import type { EndpointLive, Target } from './endpoint.ts';
import { EventBoundary } from './event_boundary.ts';
import { requestHead } from './request_head.ts';
import type { ResponseHead } from './response_parser.ts';
import type { RevisionLive } from './service.ts';
import { endsWithDone, lineEnds, type TokenUsage, usageOf } from './token_usage.ts';
import type { UpstreamCall, UpstreamHandler } from './upstream.ts';

/** Plain answers up to this length are sent when they are whole, so that a broken one can be had again elsewhere. */
const MAX_COLLECTED_BYTES = 2 ** 20;

export interface AttemptOwner {
  /** The first byte of the body, or the end of an answer without one. False = another attempt was first, or a retry took over. */
  attemptAnswers(attempt: Attempt): boolean;
  attemptBody(attempt: Attempt, pieces: readonly Buffer[], framed: Buffer | null): void;
  attemptEnds(attempt: Attempt): void;
  attemptFails(attempt: Attempt, error: Error): void;
}

export interface AttemptRequest {
  readonly method: string;
  readonly path: string;
  /** Header fields, each with CRLF; the target's host and authorization are added. */
  readonly fields: string;
  readonly body: Buffer | null;
}

export class Attempt implements UpstreamHandler {
  readonly target: Target;
  readonly endpoint: EndpointLive | null;
  readonly revision: RevisionLive | null;
  readonly startedAt: number;
  private readonly owner: AttemptOwner;
  private readonly now: () => number;
  private call: UpstreamCall | null = null;
  private chosen = false;
  private events: EventBoundary | null = null;
  private lines = 0;
  private beforeLast: readonly Buffer[] = [];
  private last: readonly Buffer[] = [];
  head: ResponseHead | null = null;
  collected: Buffer[] | null = null;
  firstAt: number | null = null;
  lastAt: number;
  /** The client does not read; its own silence is not the server's. */
  paused = false;
  over = false;

  constructor(
    owner: AttemptOwner,
    place: { readonly target: Target; readonly endpoint: EndpointLive | null; readonly revision: RevisionLive | null },
    now: () => number,
  ) {
    this.owner = owner;
    this.target = place.target;
    this.endpoint = place.endpoint;
    this.revision = place.revision;
    this.now = now;
    this.startedAt = now();
    this.lastAt = this.startedAt;
  }

  send({ method, path, fields, body }: AttemptRequest): void {
    const { target } = this;
    const all = target.authorization === null ? fields : fields + target.authorization;
    const head = requestHead(method, target.pathOf(path), target.host, all, body);
    this.call = target.pool.request({ head, body, headRequest: method === 'HEAD' }, this);
  }

  onHead(head: ResponseHead): void {
    this.head = head;
    this.lastAt = this.now();
    if (head.contentLength !== null && head.contentLength <= MAX_COLLECTED_BYTES && !head.eventStream)
      this.collected = [];
    else if (head.eventStream) this.events = new EventBoundary();
  }

  onBody(pieces: readonly Buffer[], framed: Buffer | null): void {
    if (this.over) return;
    this.lastAt = this.now();
    this.firstAt ??= this.lastAt;
    if (this.collected !== null) {
      this.collected.push(...pieces);
      return;
    }
    if (!this.chosen) {
      this.chosen = this.owner.attemptAnswers(this);
      if (!this.chosen) return;
    }
    if (this.events === null) {
      this.owner.attemptBody(this, pieces, framed);
      return;
    }
    this.lines += lineEnds(pieces);
    const whole = this.events.pass(pieces);
    if (whole.length === 0) return;
    // The last event that has usage is one of the last two reads.
    this.beforeLast = this.last;
    this.last = whole;
    this.owner.attemptBody(this, whole, whole === pieces ? framed : null);
  }

  onEnd(): void {
    if (this.over) return;
    if (!this.chosen) {
      this.chosen = this.owner.attemptAnswers(this);
      if (!this.chosen) return;
    }
    this.over = true;
    const rest = this.events?.rest() ?? null;
    if (rest !== null) this.owner.attemptBody(this, [rest], null);
    this.owner.attemptEnds(this);
  }

  onError(error: Error): void {
    if (this.over) return;
    this.over = true;
    this.owner.attemptFails(this, error);
  }

  /** The server learns of it by the closed connection. */
  abort(): void {
    this.over = true;
    this.call?.abort();
  }

  /** An answer that came whole: its connection is in order and needs no abort. */
  drop(): void {
    this.over = true;
  }

  pause(): void {
    this.paused = true;
    this.call?.pause();
  }

  resume(): void {
    if (!this.paused) return;
    this.paused = false;
    this.lastAt = this.now();
    this.call?.resume();
  }

  private get isStream(): boolean {
    return this.events !== null;
  }

  /** Adds its tokens and times to the revision's counters; `promptEstimate` for an answer that does not say. */
  count(promptEstimate: number): TokenUsage {
    const usage = this.usage();
    const promptTokens = usage === null ? 0 : usage.promptTokens || promptEstimate;
    const outputTokens = usage?.outputTokens ?? 0;
    const { revision, firstAt, lastAt, startedAt } = this;
    if (revision === null) return { promptTokens, outputTokens };
    revision.promptTokens += promptTokens;
    revision.outputTokens += outputTokens;
    if (this.isStream && firstAt !== null) {
      revision.ttft.observe(firstAt - startedAt);
      if (outputTokens > 1) revision.tpot.observe((lastAt - firstAt) / (outputTokens - 1));
    }
    return { promptTokens, outputTokens };
  }

  /** As the answer says; of a stream that says nothing, its events but the closing one. Null = not known. */
  usage(): TokenUsage | null {
    const told = usageOf(this.collected ?? [...this.beforeLast, ...this.last]);
    if (told !== null || !this.isStream) return told;
    return { promptTokens: 0, outputTokens: Math.max(0, (this.lines >> 1) - (endsWithDone(this.last) ? 1 : 0)) };
  }
}
