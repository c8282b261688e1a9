/**
 * HTTP/1.1 answers, byte by byte as they come (RFC 9112). The body is handed on in the pieces it arrived in; where a read held whole
 * chunks of a chunked body, also as the framed bytes, which can be sent to a client unchanged.
 */

export interface ResponseHead {
  readonly status: number;
  readonly statusText: string;
  /** Name, value, name, value; hop-by-hop fields are left out. */
  readonly headers: string[];
  /** null = chunked, or until the connection ends. */
  readonly contentLength: number | null;
  readonly eventStream: boolean;
}

export interface ResponseSink {
  onHead(head: ResponseHead): void;
  /** `framed` holds the same bytes with chunk headers, when the read was exactly whole chunks. */
  onBody(pieces: readonly Buffer[], framed: Buffer | null): void;
  onEnd(): void;
}

/** What a server sent is no HTTP/1.1 answer, or one beyond the limits. */
export class ResponseError extends Error {
  override readonly name = 'ResponseError';
}

const MAX_HEAD_BYTES = 65_536;
/** Of a chunk's size with its extensions, and of all trailers. */
const MAX_LINE_BYTES = 4096;
const MAX_CHUNK_BYTES = 2 ** 31;
const CR = 13;
const LF = 10;
const HEAD_END = Buffer.from('\r\n\r\n');

const HOP_BY_HOP: ReadonlySet<string> = new Set([
  'connection',
  'keep-alive',
  'proxy-authenticate',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
]);

type State = 'head' | 'fixed' | 'untilClose' | 'size' | 'data' | 'dataEnd' | 'trailers' | 'done';

function hexDigit(byte: number): number {
  if (byte >= 48 && byte <= 57) return byte - 48;
  const lower = byte | 32;
  return lower >= 97 && lower <= 102 ? lower - 87 : -1;
}

const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
// biome-ignore lint/suspicious/noControlCharactersInRegex: those are what must not be in a field value
const BAD_VALUE = /[\x00-\x08\x0a-\x1f\x7f]/;

interface Fields {
  readonly headers: string[];
  contentLength: number | null;
  chunked: boolean;
  close: boolean;
  eventStream: boolean;
}

function readField(fields: Fields, line: string): void {
  const colon = line.indexOf(':');
  const name = line.slice(0, colon);
  const value = line.slice(colon + 1).trim();
  if (colon <= 0 || !TOKEN.test(name) || BAD_VALUE.test(value)) throw new ResponseError('a header field is malformed');
  const lower = name.toLowerCase();
  if (lower === 'content-length') {
    const length = /^\d{1,15}$/.test(value) ? Number(value) : -1;
    if (length < 0 || (fields.contentLength !== null && fields.contentLength !== length))
      throw new ResponseError('Content-Length is malformed');
    fields.contentLength = length;
    return;
  }
  if (lower === 'transfer-encoding') {
    if (value.toLowerCase() !== 'chunked')
      throw new ResponseError(`Transfer-Encoding ${value.slice(0, 40)} is not known`);
    fields.chunked = true;
  } else if (lower === 'connection') {
    fields.close = fields.close || /\bclose\b/i.test(value);
  } else if (lower === 'content-type') {
    fields.eventStream = value.toLowerCase().startsWith('text/event-stream');
  }
  if (!HOP_BY_HOP.has(lower)) fields.headers.push(name, value);
}

export class ResponseParser {
  private readonly sink: ResponseSink;
  private readonly headRequest: boolean;
  private state: State = 'head';
  private rest: Buffer | null = null;
  /** Bytes that are still to come of a fixed body or of a chunk. */
  private remaining = 0;
  private trailerBytes = 0;
  /** The connection can carry another request once this answer is done. */
  reusable = false;

  constructor(sink: ResponseSink, headRequest = false) {
    this.sink = sink;
    this.headRequest = headRequest;
  }

  get done(): boolean {
    return this.state === 'done';
  }

  /** Throws ResponseError; nothing more may be fed after it. */
  feed(bytes: Buffer): void {
    let input = bytes;
    if (this.rest !== null) {
      input = Buffer.concat([this.rest, bytes]);
      this.rest = null;
    }
    let at = 0;
    while (this.state === 'head') {
      const end = input.indexOf(HEAD_END, at);
      if (end < 0 || end - at > MAX_HEAD_BYTES) {
        if (input.length - at > MAX_HEAD_BYTES) throw new ResponseError('the head is too long');
        this.rest = at === 0 ? input : input.subarray(at);
        return;
      }
      this.readHead(input.toString('latin1', at, end));
      at = end + 4;
    }
    if (at === input.length && this.state !== 'done') return;
    this.feedBody(at === 0 ? input : input.subarray(at));
  }

  /** The connection ended. Throws when the answer was not complete. */
  finish(): void {
    if (this.state === 'done') return;
    if (this.state !== 'untilClose') throw new ResponseError('the connection ended within the answer');
    this.state = 'done';
    this.sink.onEnd();
  }

  private readHead(text: string): void {
    const lines = text.split('\r\n');
    const first = /^HTTP\/1\.([01]) ([1-5]\d\d)(?: (.*))?$/.exec(lines[0] as string);
    if (first === null) throw new ResponseError('the status line is malformed');
    const status = Number(first[2]);
    if (status < 200) {
      if (status === 101) throw new ResponseError('an upgrade was not asked for');
      return;
    }
    const fields: Fields = {
      headers: [],
      contentLength: null,
      chunked: false,
      close: first[1] === '0',
      eventStream: false,
    };
    for (let i = 1; i < lines.length; i++) readField(fields, lines[i] as string);
    if (fields.chunked && fields.contentLength !== null)
      throw new ResponseError('both Content-Length and Transfer-Encoding are given');
    const empty = this.headRequest || status === 204 || status === 304;
    this.reusable = !fields.close && (empty || fields.chunked || fields.contentLength !== null);
    const { headers, contentLength, eventStream } = fields;
    const statusText = (first[3] ?? '').replace(/[^\t\x20-\x7e]/g, '');
    this.state = fields.chunked ? 'size' : contentLength === null ? 'untilClose' : 'fixed';
    this.remaining = contentLength ?? 0;
    this.sink.onHead({
      status,
      statusText,
      headers,
      contentLength: fields.chunked ? null : contentLength,
      eventStream,
    });
    if (empty || (this.state === 'fixed' && contentLength === 0)) this.end();
  }

  private end(): void {
    this.state = 'done';
    this.sink.onEnd();
  }

  private feedBody(input: Buffer): void {
    switch (this.state) {
      case 'fixed': {
        if (input.length > this.remaining) throw new ResponseError('more bytes came than Content-Length says');
        this.remaining -= input.length;
        this.sink.onBody([input], null);
        if (this.remaining === 0) this.end();
        return;
      }
      case 'untilClose':
        this.sink.onBody([input], null);
        return;
      case 'done':
        if (input.length > 0) throw new ResponseError('bytes came after the end of the answer');
        return;
      default:
        this.feedChunks(input);
    }
  }

  private feedChunks(input: Buffer): void {
    const pieces: Buffer[] = [];
    // Up to here the input is whole chunks; -1 = it began within one.
    let framedEnd = this.state === 'size' ? 0 : -1;
    let at = 0;
    while (at < input.length && this.state !== 'done') {
      const before = at;
      if (this.state === 'data') {
        const end = Math.min(input.length, at + this.remaining);
        pieces.push(input.subarray(at, end));
        this.remaining -= end - at;
        if (this.remaining === 0) this.state = 'dataEnd';
        at = end;
        continue;
      }
      at = this.state === 'size' ? this.readSize(input, at) : this.readLineEnd(input, at);
      if (at === before) {
        this.rest = input.subarray(at);
        break;
      }
      if (framedEnd >= 0 && this.state === 'size') framedEnd = at;
    }
    if (this.state === 'done' && at < input.length) throw new ResponseError('bytes came after the end of the answer');
    if (pieces.length > 0) this.sink.onBody(pieces, this.framedPart(input, framedEnd));
    if (this.state === 'done') this.sink.onEnd();
  }

  private framedPart(input: Buffer, framedEnd: number): Buffer | null {
    if (framedEnd <= 0) return null;
    const whole = this.state === 'size' || this.state === 'trailers' || this.state === 'done';
    return whole ? input.subarray(0, framedEnd) : null;
  }

  /** Position behind the line, or `start` when it is not complete. */
  private readSize(input: Buffer, start: number): number {
    let size = 0;
    let at = start;
    for (; at < input.length; at++) {
      const digit = hexDigit(input[at] as number);
      if (digit < 0) break;
      size = size * 16 + digit;
      if (size > MAX_CHUNK_BYTES) throw new ResponseError('a chunk is too large');
    }
    if (at === input.length) return this.incomplete(input, start);
    if (at === start || input[at] !== CR) throw new ResponseError('the size of a chunk is malformed');
    if (at + 1 === input.length) return this.incomplete(input, start);
    if (input[at + 1] !== LF) throw new ResponseError('the size of a chunk is malformed');
    this.remaining = size;
    this.state = size === 0 ? 'trailers' : 'data';
    return at + 2;
  }

  private incomplete(input: Buffer, start: number): number {
    if (input.length - start > MAX_LINE_BYTES) throw new ResponseError('a line within the body is too long');
    return start;
  }

  /** The line end behind a chunk, or a line of the trailers. */
  private readLineEnd(input: Buffer, start: number): number {
    const lf = input.indexOf(LF, start);
    if (lf < 0) return this.incomplete(input, start);
    if (lf === start || input[lf - 1] !== CR) throw new ResponseError('a line within the body is malformed');
    const empty = lf === start + 1;
    if (this.state === 'dataEnd') {
      if (!empty) throw new ResponseError('a chunk is longer than its size');
      this.state = 'size';
    } else if (empty) {
      this.state = 'done';
    } else {
      this.trailerBytes += lf - start;
      if (this.trailerBytes > MAX_LINE_BYTES) throw new ResponseError('the trailers are too long');
    }
    return lf + 1;
  }
}
