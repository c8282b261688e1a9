import { request } from 'node:http';
import { gzipSync } from 'node:zlib';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { parseJsonBody } from '../../src/server/body.ts';
import { checkJsonBounds } from '../../src/server/json_bounds.ts';
import { type Bench, bench } from './harness.ts';

let b: Bench;
let url: string;
beforeEach(async () => {
  b = await bench({ maxBodyBytes: 2 ** 20, maxBodyBytesTotal: 3 * 2 ** 20 });
  url = await b.server.listen({ host: '127.0.0.1', port: 0 });
});
afterEach(() => b.close());

const post = (payload: string | Buffer, headers: Record<string, string> = { 'content-type': 'application/json' }) =>
  b.server.app.inject({ method: 'POST', url: '/v1/completions', payload, headers });

/** Sends `bytes` over a socket, in chunks or with a length, as fast as the server takes them. */
function flood(bytes: number, chunked: boolean): Promise<{ status: number; body: string; kept: boolean }> {
  return new Promise((resolve, reject) => {
    const piece = Buffer.alloc(64 * 1024, 0x20);
    let sent = 0;
    const headers = { 'content-type': 'application/json', ...(chunked ? {} : { 'content-length': bytes }) };
    const req = request(`${url}/v1/completions`, { method: 'POST', headers }, (res) => {
      let body = '';
      res.on('data', (chunk) => (body += chunk));
      res.on('end', () => {
        req.destroy();
        resolve({ status: res.statusCode ?? 0, body, kept: res.headers.connection !== 'close' });
      });
    });
    let answered = false;
    req.on('response', () => (answered = true));
    req.on('error', (error) => (answered ? undefined : reject(error)));
    const write = (): void => {
      while (sent < bytes && !answered) {
        sent += piece.length;
        if (!req.write(piece)) return void req.once('drain', write);
      }
      req.end();
    };
    write();
  });
}

it.each([false, true])('a 100 MB body is 413 in the error shape (chunked: %s), and memory stays', async (chunked) => {
  const before = process.memoryUsage().arrayBuffers;
  const { status, body, kept } = await flood(100 * 2 ** 20, chunked);
  expect(status).toBe(413);
  // Closed under a client that still writes, the connection may be reset before the answer is read.
  expect(kept).toBe(true);
  expect(JSON.parse(body).error).toMatchObject({ code: 413, type: 'BadRequestError' });
  expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(20 * 2 ** 20);
  expect((await fetch(`${url}/health`)).status).toBe(200);
});

it('bodies that are together too many are 503 with Retry-After', async () => {
  const body = 'x'.repeat(2 ** 20 - 100);
  const open = Array.from({ length: 5 }, () => {
    const req = request(`${url}/v1/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', 'content-length': 2 ** 20 },
    });
    const status = new Promise<number>((resolve) =>
      req.on('response', (res) => resolve(res.statusCode ?? 0)).on('error', () => resolve(-1)),
    );
    req.write(body);
    return { req, status };
  });
  expect(await Promise.race(open.map(({ status }) => status))).toBe(503);
  for (const { req } of open) req.destroy();
});

it('invalid UTF-8 is refused, not repaired', async () => {
  const response = await post(
    Buffer.concat([Buffer.from('{"prompt":"'), Buffer.from([0xff, 0xfe, 0xc3, 0x28]), Buffer.from('"}')]),
  );
  expect(response.statusCode).toBe(400);
  expect(response.json().error.message).toContain('UTF-8');
});

it.each([
  ['', 'missing', 'body'],
  ['null', 'missing', 'body'],
  ['{"prompt": }', 'json_invalid', /^body\.\d+$/],
  ['{"prompt": "x"', 'json_invalid', /^body\.\d+$/],
  ['[]', 'dict_type', 'body'],
  ['5', 'dict_type', 'body'],
  ['{"temperature": NaN, "prompt": "x"}', 'json_invalid', /^body\.\d+$/],
  ['{"temperature": 1e999, "prompt": "x"}', 'finite_number', 'body.temperature'],
])('%s -> 400 %s', async (payload, type, param) => {
  const response = await post(payload);
  expect(response.statusCode, response.body).toBe(400);
  expect(response.json().error.message).toContain(`'type': '${type}'`);
  expect(response.json().error.param).toEqual(typeof param === 'string' ? param : expect.stringMatching(param));
});

it('another content type is 400 as in vLLM; parameters of the right one are fine', async () => {
  expect((await post('{"prompt":"x"}', { 'content-type': 'text/plain' })).statusCode).toBe(400);
  expect((await post('prompt=x', { 'content-type': 'application/x-www-form-urlencoded' })).statusCode).toBe(400);
  expect(
    (await post('{"prompt":"x","max_tokens":1}', { 'content-type': 'application/json; charset=utf-8' })).statusCode,
  ).toBe(200);
});

/** [what, how much of it is still fine, the text of n of it, the complaint]. */
const BOUNDS: readonly (readonly [string, number, (n: number) => string, string])[] = [
  ['depth', 127, (n) => `{"x":${'['.repeat(n)}${']'.repeat(n)}}`, 'too_deep'],
  ['keys', 2 ** 18 - 1, (n) => `{${Array.from({ length: n }, (_, i) => `"${i}":1`).join(',')}}`, 'too_long'],
  ['empty lists', 2 ** 18 - 3, (n) => `{"x":[${'[],'.repeat(n - 1)}[]]}`, 'too_long'],
  ['token ids', 2 ** 22 + 1, (n) => `{"prompt":[${'5,'.repeat(n - 1)}5]}`, 'too_long'],
];

it.each(BOUNDS)('structure is bounded before it is parsed: %s', (_what, most, write, type) => {
  const check = (n: number) => () => checkJsonBounds(Buffer.from(write(n)));
  expect(check(most)).not.toThrow();
  expect(check(most + 1)).toThrow(`'type': '${type}'`);
});

it('strings hold as much structure as they like', () => {
  const text = JSON.stringify({ prompt: `"[{,:\\`.repeat(2 ** 20), 'a"b\\': '\\' });
  expect(() => checkJsonBounds(Buffer.from(text))).not.toThrow();
});

it('what is bounded is refused in a few words', async () => {
  for (const body of [
    `{"prompt":"x","frobnicate":${'['.repeat(50_000)}${']'.repeat(50_000)}}`,
    `{"prompt":"x","stop":[${'"a",'.repeat(200_000)}"a"]}`,
    `{"prompt":"x","messages":[${'5,'.repeat(400_000)}5]}`,
    `{"prompt":"x","a":[${'5,'.repeat(150_000)}5],"b":[${'5,'.repeat(150_000)}5]}`,
  ]) {
    const response = await post(body);
    expect(response.statusCode).toBe(400);
    expect(response.body.length).toBeLessThan(2000);
  }
});

it('a text too long to tokenize while others wait is refused, truncated or not', async () => {
  const large = await bench();
  const ask = (at: string, payload: object) => large.server.app.inject({ method: 'POST', url: at, payload });
  const text = 'x'.repeat(2 ** 20 + 1);
  expect((await ask('/tokenize', { prompt: text })).json().error.message).toContain('at most 1048576');
  const truncated = await ask('/v1/completions', { prompt: text, truncate_prompt_tokens: 5 });
  expect(truncated.json().error.message).toContain('at most 1048576');
  const plain = await ask('/v1/completions', { prompt: text });
  expect(plain.json().error.message).toMatch(/maximum context length is 1024 tokens.*at least \d+ input tokens/);
  expect((await ask('/detokenize', { tokens: Array(2 ** 18).fill(5) })).statusCode).toBe(400);
  await large.close();
});

it('a wrong list of many ids costs one short message', async () => {
  const response = await post(`{"prompt":[${'5,'.repeat(400_000)}"x"]}`);
  expect(response.statusCode).toBe(400);
  expect(response.body.length).toBeLessThan(600);
});

it.each(['__proto__', '\\u005f_proto__', '__pr\\u006fto__'])('%s in a body reaches nothing', async (key) => {
  const bytes = Buffer.from(`{"a":[{"${key}":{"polluted":true},"b":1}],"${key}":1}`);
  const body = parseJsonBody(bytes) as { a: object[] };
  expect(Object.getOwnPropertyNames(body)).toEqual(['a']);
  expect(Object.getOwnPropertyNames(body.a[0])).toEqual(['b']);
  const kwargs = `{"prompt":"x","max_tokens":1,"${key}":{"polluted":true},"chat_template_kwargs":{"${key}":{"polluted":true}}}`;
  expect((await post(kwargs)).statusCode).toBe(200);
  expect(({} as { polluted?: boolean }).polluted).toBeUndefined();
});

it('a compressed body is refused by name, not as broken text', async () => {
  const gzip = await post(gzipSync('{"prompt":"x"}'), {
    'content-type': 'application/json',
    'content-encoding': 'gzip',
  });
  expect(gzip.statusCode).toBe(400);
  expect(gzip.json().error.message).toContain('gzip');
});

it('unknown fields are accepted', async () => {
  expect((await post('{"prompt":"x","max_tokens":1,"frobnicate":1}')).statusCode).toBe(200);
});
