import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type ResponseHead, ResponseParser } from './response_parser.ts';

interface Parsed {
  readonly heads: ResponseHead[];
  readonly body: string;
  /** What the framed reads hold, as a client without our help reads it. */
  readonly framed: string;
  readonly ended: boolean;
  readonly reusable: boolean;
}

function unframed(bytes: Buffer): string {
  let text = '';
  for (let at = 0; at < bytes.length; ) {
    const line = bytes.indexOf('\r\n', at);
    const size = Number.parseInt(bytes.toString('latin1', at, line), 16);
    text += bytes.toString('latin1', line + 2, line + 2 + size);
    expect(bytes.toString('latin1', line + 2 + size, line + 4 + size)).toBe('\r\n');
    at = line + 4 + size;
  }
  return text;
}

function parse(reads: readonly Buffer[], options: { head?: boolean; close?: boolean } = {}): Parsed {
  const heads: ResponseHead[] = [];
  let body = '';
  let framedText = '';
  let ended = false;
  const parser = new ResponseParser(
    {
      onHead: (head) => heads.push(head),
      onBody: (pieces, framed) => {
        const text = Buffer.concat([...pieces]).toString('latin1');
        body += text;
        if (framed !== null) expect(unframed(framed)).toBe(text);
        framedText += framed === null ? '' : text;
      },
      onEnd: () => {
        expect(ended).toBe(false);
        ended = true;
      },
    },
    options.head ?? false,
  );
  for (const read of reads) parser.feed(read);
  if (options.close) parser.finish();
  return { heads, body, framed: framedText, ended, reusable: parser.reusable };
}

function cut(bytes: Buffer, at: readonly number[]): Buffer[] {
  const places = [...new Set(at.map((place) => place % bytes.length))].sort((a, b) => a - b);
  return [0, ...places]
    .map((start, i) => bytes.subarray(start, places[i] ?? bytes.length))
    .filter(({ length }) => length > 0);
}

const HEAD = 'HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: keep-alive\r\nX-A: 1\r\n';

describe('ResponseParser', () => {
  it('gives the same body however a chunked answer is cut', () => {
    const chunks = fc.array(fc.string({ minLength: 1, maxLength: 40 }), { maxLength: 8 });
    fc.assert(
      fc.property(chunks, fc.array(fc.nat(), { maxLength: 12 }), fc.boolean(), (texts, places, trailers) => {
        const parts = texts.map((text) => Buffer.from(text, 'utf8'));
        const framed = parts.map((part) =>
          Buffer.concat([Buffer.from(`${part.length.toString(16)}\r\n`), part, Buffer.from('\r\n')]),
        );
        const end = Buffer.from(`0\r\n${trailers ? 'X-T: 1\r\n' : ''}\r\n`);
        const bytes = Buffer.concat([Buffer.from(`${HEAD}Transfer-Encoding: chunked\r\n\r\n`), ...framed, end]);
        const result = parse(cut(bytes, places));
        expect(result.body).toBe(Buffer.concat(parts).toString('latin1'));
        expect(result).toMatchObject({ ended: true, reusable: true });
        expect(result.heads).toEqual([
          {
            status: 200,
            statusText: 'OK',
            headers: ['Content-Type', 'text/event-stream', 'X-A', '1'],
            contentLength: null,
            eventStream: true,
          },
        ]);
      }),
      { seed: 11, numRuns: 500 },
    );
  });

  it('hands whole chunks on as they came', () => {
    const head = Buffer.from(`${HEAD}Transfer-Encoding: chunked\r\n\r\n`);
    const result = parse([head, Buffer.from('3\r\nabc\r\n2\r\nde\r\n'), Buffer.from('1\r\nf\r\n0\r\n\r\n')]);
    expect(result).toMatchObject({ body: 'abcdef', framed: 'abcdef', ended: true });
    expect(parse([head, Buffer.from('3\r\nab'), Buffer.from('c\r\n0\r\n\r\n')])).toMatchObject({
      body: 'abc',
      framed: '',
      ended: true,
    });
  });

  it('knows the other ends of a body', () => {
    const of = (fields: string, body: string, options = {}) =>
      parse([Buffer.from(`HTTP/1.1 200 OK\r\n${fields}\r\n${body}`)], options);
    expect(of('Content-Length: 3\r\n', 'abc')).toMatchObject({ body: 'abc', ended: true, reusable: true });
    expect(of('Content-Length: 3\r\nConnection: close\r\n', 'abc')).toMatchObject({ ended: true, reusable: false });
    expect(of('', 'abc', { close: true })).toMatchObject({ body: 'abc', ended: true, reusable: false });
    expect(of('Content-Length: 3\r\n', '', { head: true })).toMatchObject({ body: '', ended: true });
    expect(parse([Buffer.from('HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No\r\n\r\n')])).toMatchObject({
      ended: true,
      body: '',
    });
    expect(of('Content-Length: 3\r\n', 'ab')).toMatchObject({ ended: false });
  });

  it.each([
    ['HTTP/2 200 OK\r\n\r\n', /status line/],
    ['HTTP/1.1 101 Switching\r\n\r\n', /upgrade/],
    ['HTTP/1.1 200 OK\r\nA B: 1\r\n\r\n', /header field/],
    ['HTTP/1.1 200 OK\r\nA: \x01\r\n\r\n', /header field/],
    ['HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n', /Content-Length/],
    ['HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n', /Content-Length/],
    ['HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n', /both/],
    ['HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n', /not known/],
    ['HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab', /more bytes/],
    ['HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n', /size of a chunk/],
    ['HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\n', /size of a chunk/],
    ['HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffff\r\n', /too large/],
    ['HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n', /malformed|longer/],
    ['HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nHTTP/1.1 200', /after the end/],
    [`HTTP/1.1 200 OK\r\nA: ${'x'.repeat(70_000)}\r\n\r\n`, /head is too long/],
  ])('refuses %j', (text, message) => {
    expect(() => parse([Buffer.from(text, 'latin1')])).toThrow(message);
  });

  it('tells an answer that ends too early', () => {
    expect(() => parse([Buffer.from('HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab')], { close: true })).toThrow(
      /ended within/,
    );
    expect(() => parse([Buffer.from('HTTP/1.1 200')], { close: true })).toThrow(/ended within/);
  });
});
