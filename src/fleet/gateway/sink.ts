/** Where an answer goes: to the client of an HTTP request, or into memory for the next step of a graph. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { TokenmillError } from '../../base/errors.ts';
import { type Dialect, errorJson, httpError } from './http_errors.ts';
import type { ResponseHead } from './response_parser.ts';

export interface AnswerSink {
  /** `extra`: name, value ... of the gateway's own. */
  begin(head: ResponseHead, extra: readonly string[]): void;
  /** False = wait for `onDrain`. */
  write(pieces: readonly Buffer[], framed: Buffer | null): boolean;
  end(): void;
  /** A whole answer at once. */
  whole(head: ResponseHead, extra: readonly string[], pieces: readonly Buffer[]): void;
  /** Instead of an answer, or in the middle of one. */
  fail(error: TokenmillError, reason: string | null, extra: readonly string[]): void;
  /** Sends a comment of an event stream, beginning it where needed. False = this answer will be no event stream. */
  keepAlive(): boolean;
  /** Ends it without another word: the client does not read. */
  cut(): void;
  onDrain: () => void;
  /** The client left before the end. */
  onGone: () => void;
}

const CRLF = Buffer.from('\r\n');
const LAST_CHUNK = '0\r\n\r\n';
const EVENT_STREAM = [
  'content-type',
  'text/event-stream; charset=utf-8',
  'cache-control',
  'no-cache',
  'x-accel-buffering',
  'no',
];
const noop = (): void => {};

function frame(pieces: readonly Buffer[]): Buffer {
  const parts: Buffer[] = [];
  for (const piece of pieces) parts.push(Buffer.from(`${piece.length.toString(16)}\r\n`), piece, CRLF);
  return Buffer.concat(parts);
}

export interface HttpSinkOptions {
  readonly dialect: Dialect;
  readonly stream: boolean;
  /** The connection ends after this answer. */
  readonly close: boolean;
}

export class HttpSink implements AnswerSink {
  private readonly res: ServerResponse;
  private readonly options: HttpSinkOptions;
  private readonly chunked: boolean;
  private state: 'none' | 'held' | 'begun' | 'ended' = 'none';
  private eventStream = false;
  /** The body goes out in chunks that are framed here. */
  private framing = false;
  /** The head of an event stream went out before the answer's; what comes is no stream, and becomes one event. */
  private swallowed: Buffer[] | null = null;
  onDrain: () => void = noop;
  onGone: () => void = noop;

  constructor(req: IncomingMessage, res: ServerResponse, options: HttpSinkOptions) {
    this.res = res;
    this.options = options;
    this.chunked = req.httpVersionMajor === 1 && req.httpVersionMinor >= 1;
    res.sendDate = false;
    res.on('drain', () => this.onDrain());
    res.on('close', () => {
      if (this.state === 'ended') return;
      this.state = 'ended';
      this.onGone();
    });
  }

  private sendHead(status: number, statusText: string, headers: string[], framed: boolean): void {
    if (this.options.close) headers.push('connection', 'close');
    this.framing = framed && this.chunked;
    if (this.framing) headers.push('transfer-encoding', 'chunked');
    this.res.writeHead(status, statusText === '' ? undefined : statusText, headers);
    // Chunks are framed here: those of a replica mostly go on as they came.
    if (this.framing) this.res.chunkedEncoding = false;
  }

  begin(head: ResponseHead, extra: readonly string[]): void {
    if (this.state === 'held') {
      if (!(head.eventStream && head.status === 200)) this.swallowed = [];
      this.state = 'begun';
      return;
    }
    if (this.state !== 'none') return;
    this.state = 'begun';
    this.eventStream = head.eventStream;
    const headers = [...head.headers, ...extra];
    if (head.contentLength !== null) headers.push('content-length', String(head.contentLength));
    this.sendHead(head.status, head.statusText, headers, head.contentLength === null);
  }

  write(pieces: readonly Buffer[], framed: Buffer | null): boolean {
    if (this.state !== 'begun') return true;
    if (this.swallowed !== null) {
      this.swallowed.push(...pieces);
      return true;
    }
    if (this.framing) return this.res.write(framed ?? frame(pieces));
    let room = true;
    for (const piece of pieces) room = this.res.write(piece);
    return room;
  }

  end(): void {
    if (this.state !== 'begun') return;
    if (this.swallowed !== null) {
      this.endHeld(oneLine(Buffer.concat(this.swallowed)));
      return;
    }
    this.state = 'ended';
    this.res.end(this.framing ? LAST_CHUNK : undefined);
  }

  whole(head: ResponseHead, extra: readonly string[], pieces: readonly Buffer[]): void {
    if (this.state === 'held') {
      this.endHeld(oneLine(Buffer.concat(pieces)));
      return;
    }
    if (this.state !== 'none') return;
    this.state = 'ended';
    const body = pieces.length === 1 ? (pieces[0] as Buffer) : Buffer.concat(pieces);
    const headers = [...head.headers, ...extra];
    // Of a HEAD request or a 304 the length is that of a body which is not sent.
    if (head.status !== 204) headers.push('content-length', String(head.contentLength ?? body.length));
    this.sendHead(head.status, head.statusText, headers, false);
    this.res.end(body);
  }

  fail(error: TokenmillError, reason: string | null, extra: readonly string[]): void {
    if (this.state === 'ended') return;
    const { dialect } = this.options;
    if (this.state === 'held' || (this.state === 'begun' && this.eventStream)) {
      this.endHeld(errorJson(error, dialect));
      return;
    }
    if (this.state === 'begun') {
      this.state = 'ended';
      this.res.destroy();
      return;
    }
    this.state = 'ended';
    const { status, json, headers } = httpError(error, dialect, reason);
    const all = [
      'content-type',
      'application/json',
      ...headers,
      ...extra,
      'content-length',
      String(Buffer.byteLength(json)),
    ];
    this.sendHead(status, '', all, false);
    this.res.end(json);
  }

  cut(): void {
    this.state = 'ended';
    this.res.destroy();
  }

  /** One last event. The empty line before it ends whatever was begun. */
  private endHeld(json: string): void {
    this.state = 'ended';
    const done = this.options.dialect === 'openai' ? 'data: [DONE]\n\n' : '';
    const event = Buffer.from(`\ndata: ${json}\n\n${done}`);
    if (!this.framing) {
      this.res.end(event);
      return;
    }
    this.res.write(frame([event]));
    this.res.end(LAST_CHUNK);
  }

  keepAlive(): boolean {
    if (!this.options.stream || (this.state !== 'none' && this.state !== 'held')) return false;
    if (this.state === 'none') {
      this.state = 'held';
      this.eventStream = true;
      this.sendHead(200, '', [...EVENT_STREAM], true);
    }
    const comment = Buffer.from(': keep-alive\n\n');
    this.res.write(this.framing ? frame([comment]) : comment);
    return true;
  }
}

/** As data of one event; what is no JSON becomes a JSON string. */
function oneLine(body: Buffer): string {
  const text = body.toString('utf8');
  try {
    return JSON.stringify(JSON.parse(text));
  } catch {
    return JSON.stringify({ error: { message: text.slice(0, 1000), type: 'BadGatewayError', param: null, code: 502 } });
  }
}

export interface Collected {
  readonly status: number;
  readonly head: ResponseHead;
  readonly body: Buffer;
}

/** Keeps an answer of at most `maxBytes` in memory; `done` gets it, or the error. */
export class CollectSink implements AnswerSink {
  private readonly maxBytes: number;
  private readonly done: (result: Collected | TokenmillError) => void;
  private readonly tooLarge: () => TokenmillError;
  private head: ResponseHead | null = null;
  private readonly pieces: Buffer[] = [];
  private bytes = 0;
  private ended = false;
  onDrain: () => void = noop;
  onGone: () => void = noop;

  constructor(maxBytes: number, tooLarge: () => TokenmillError, done: (result: Collected | TokenmillError) => void) {
    this.maxBytes = maxBytes;
    this.tooLarge = tooLarge;
    this.done = done;
  }

  begin(head: ResponseHead): void {
    this.head = head;
  }

  write(pieces: readonly Buffer[]): boolean {
    for (const piece of pieces) {
      this.bytes += piece.length;
      this.pieces.push(piece);
    }
    if (this.bytes > this.maxBytes && !this.ended) {
      this.onGone();
      this.finish(this.tooLarge());
    }
    return true;
  }

  end(): void {
    const { head } = this;
    if (head !== null) this.finish({ status: head.status, head, body: Buffer.concat(this.pieces) });
  }

  whole(head: ResponseHead, _extra: readonly string[], pieces: readonly Buffer[]): void {
    this.begin(head);
    this.write(pieces);
    this.end();
  }

  fail(error: TokenmillError): void {
    this.finish(error);
  }

  cut(): void {}

  keepAlive(): boolean {
    return false;
  }

  private finish(result: Collected | TokenmillError): void {
    if (this.ended) return;
    this.ended = true;
    this.pieces.length = 0;
    this.done(result);
  }
}

/** Answers of shadow copies go nowhere. */
export class DropSink implements AnswerSink {
  onDrain: () => void = noop;
  onGone: () => void = noop;

  begin(): void {}

  write(): boolean {
    return true;
  }

  end(): void {}

  whole(): void {}

  fail(): void {}

  cut(): void {}

  keepAlive(): boolean {
    return false;
  }
}
