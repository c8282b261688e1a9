import { connect } from 'node:net';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { RouteSpec } from '../spec/fleet_spec.ts';
import type { Gateway } from './gateway.ts';
import {
  answer,
  ask,
  chat,
  echo,
  eventsOf,
  type Replica,
  serviceOf,
  startGateway,
  startReplica,
  stream,
  tableOf,
  until,
} from './testdata/harness.ts';

let replicas: Replica[] = [];
let gateway: Gateway;
let port: number;

beforeEach(async () => {
  replicas = await Promise.all(['a', 'b', 'c'].map((name) => startReplica(echo(name))));
});

afterEach(async () => {
  await gateway.close();
  await Promise.all(replicas.map((replica) => replica.close()));
});

const url = (i: number): string => (replicas[i] as Replica).url;
const replica = (i: number): Replica => replicas[i] as Replica;
const jsonOf = (body: string): Record<string, unknown> => JSON.parse(body) as Record<string, unknown>;

async function serve(...args: Parameters<typeof startGateway>): Promise<void> {
  ({ gateway, port } = await startGateway(...args));
}

const at = { file: 'fleet.yaml', line: 1, column: 1 };

function routeOf(more: Partial<RouteSpec['rules'][0]>, path: string): RouteSpec {
  const rule = {
    matches: [{ path: { type: 'PathPrefix' as const, value: path }, method: null, headers: [], query: [] }],
    backends: [],
    setHeaders: {},
    removeHeaders: [],
    pathPrefixTo: null,
    mirrorTo: null,
    requestTimeoutMs: 0,
    ...more,
  };
  return { id: `default/${path}`, at, hostnames: [], rules: [rule] };
}

describe('routing', () => {
  it('finds the service by the model of the body, and tells which names there are', async () => {
    await serve(tableOf({ services: [serviceOf('one', [url(0)]), serviceOf('two', [url(1)])] }));
    const body = chat('two', { temperature: 0.5, stop: ['"model":"one"'] });
    const found = await ask(port, '/v1/chat/completions?x=1', { body });
    expect(found.status).toBe(200);
    expect(jsonOf(found.body)).toMatchObject({
      replica: 'b',
      path: '/v1/chat/completions?x=1',
      body: JSON.stringify(body),
    });
    expect(found.headers['x-tokenmill-revision']).toBe('two-00001');
    expect(found.headers['x-gateway-destination-endpoint-served']).toBe(`127.0.0.1:${replica(1).port}`);
    const unknown = await ask(port, '/v1/chat/completions', { body: chat('three') });
    expect(unknown.status).toBe(404);
    expect(jsonOf(unknown.body)).toEqual({
      error: {
        message: 'The model `three` does not exist. Served models: one, two.',
        type: 'NotFoundError',
        param: 'model',
        code: 404,
      },
    });
    const none = await ask(port, '/v1/completions', { body: { prompt: 'x' } });
    expect(none.status).toBe(400);
  });

  it('takes the only service where no model is named, and the model of the path in KServe V2 and V1', async () => {
    await serve(tableOf({ services: [serviceOf('one', [url(0)])] }));
    expect(jsonOf((await ask(port, '/generate', { body: { inputs: 'x' } })).body)).toMatchObject({
      replica: 'a',
      path: '/generate',
    });
    expect(jsonOf((await ask(port, '/info')).body)).toMatchObject({ path: '/info' });
    gateway.applyTable(tableOf({ services: [serviceOf('one', [url(0)]), serviceOf('t/wo', [url(1)])] }));
    for (const path of [
      '/v2/models/t%2Fwo/infer',
      '/v2/models/t%2Fwo/versions/1/generate',
      '/v1/models/t%2Fwo:predict',
    ]) {
      expect(jsonOf((await ask(port, path, { body: { text_input: 'x' } })).body)).toMatchObject({ replica: 'b', path });
    }
    const missing = await ask(port, '/v2/models/nope/infer', { body: {} });
    expect(missing.status).toBe(404);
    expect(typeof jsonOf(missing.body)['error']).toBe('string');
    const tgi = await ask(port, '/generate', { body: { inputs: 'x' } });
    expect(jsonOf(tgi.body)).toMatchObject({ error_type: 'validation' });
  });

  it('answers probes, models and metrics itself', async () => {
    await serve(null);
    expect((await ask(port, '/health')).status).toBe(200);
    expect((await ask(port, '/ready')).status).toBe(503);
    expect((await ask(port, '/v1/chat/completions', { body: chat('one') })).status).toBe(503);
    gateway.applyTable(tableOf({ services: [serviceOf('one', [url(0)]), serviceOf('two', [])] }));
    expect((await ask(port, '/ready')).status).toBe(200);
    const { data } = jsonOf((await ask(port, '/v1/models')).body) as { data: { id: string }[] };
    expect(data.map(({ id }) => id)).toEqual(['one', 'two']);
    expect((await ask(port, '/v1/models/two')).status).toBe(200);
    expect((await ask(port, '/v1/models/three')).status).toBe(404);
    expect(jsonOf((await ask(port, '/v2/health/ready')).body)).toEqual({ ready: true });
    await ask(port, '/v1/chat/completions', { body: chat('one') });
    const { body } = await ask(port, '/metrics');
    expect(body).toContain('tokenmill_fleet_arrivals_total{service="default/one"} 1');
    expect(body).toContain('tokenmill_fleet_requests_total{service="default/one",revision="one-00001"} 1');
    expect(body).toContain('tokenmill_fleet_output_tokens_total{service="default/one",revision="one-00001"} 2');
  });

  it('follows an HTTPRoute: rewrite, headers, mirror, a backend that is not there', async () => {
    const routes = [
      routeOf(
        {
          backends: [{ service: 'default/two', weight: 1 }],
          pathPrefixTo: '/v1',
          setHeaders: { 'x-set': 'yes' },
          removeHeaders: ['x-gone'],
          mirrorTo: 'default/three',
        },
        '/team/v1',
      ),
      routeOf({ backends: [{ service: null, weight: 1 }] }, '/broken'),
    ];
    const services = [serviceOf('one', [url(0)]), serviceOf('two', [url(1)]), serviceOf('three', [url(2)])];
    await serve(tableOf({ services, routes }));
    const headers = { 'x-gone': 'x', 'x-kept': 'k', connection: 'x-hop', 'x-hop': 'h' };
    const found = await ask(port, '/team/v1/completions?a=b', { body: { model: 'one', prompt: 'x' }, headers });
    // The name is of another service, so the replica is asked for its own.
    expect(jsonOf(found.body)).toMatchObject({
      replica: 'b',
      path: '/v1/completions?a=b',
      body: '{"model":"two","prompt":"x"}',
    });
    const [seen] = replica(1).seen;
    expect(seen?.headers).toMatchObject({
      'x-set': 'yes',
      'x-kept': 'k',
      'x-forwarded-for': expect.stringContaining('127.0.0.1'),
    });
    expect(seen?.headers).not.toHaveProperty('x-gone');
    expect(seen?.headers).not.toHaveProperty('x-hop');
    await until(() => replica(2).seen.length === 1, 'the mirror gets its copy');
    expect(jsonOf(replica(2).seen[0]?.body ?? '')['model']).toBe('three');
    expect((await ask(port, '/broken', { body: chat('one') })).status).toBe(500);
  });

  it('splits by the shares of revisions and follows pins', async () => {
    const base = serviceOf('one', [url(0)], { pins: [{ header: 'x-team', value: 'beta', to: 'canary' }] });
    const canary = {
      id: 'canary',
      percent: 20,
      tags: ['next'],
      endpoints: [{ id: 'c', url: url(1), state: 'ready' as const }],
    };
    const stable = { ...(base.revisions[0] as (typeof base.revisions)[0]), percent: 80 };
    await serve(tableOf({ services: [{ ...base, revisions: [stable, canary] }] }));
    for (let i = 0; i < 200; i++) await ask(port, '/v1/completions', { body: { model: 'one', prompt: 'x' } });
    expect(replica(1).seen.length).toBeGreaterThan(20);
    expect(replica(1).seen.length).toBeLessThan(62);
    const pinned = await ask(port, '/v1/completions', { body: { model: 'one' }, headers: { 'x-team': 'beta' } });
    expect(jsonOf(pinned.body)['replica']).toBe('b');
    const tagged = await ask(port, '/v1/completions', {
      body: { model: 'one' },
      headers: { 'x-tokenmill-revision': 'next' },
    });
    expect(jsonOf(tagged.body)['replica']).toBe('b');
    const unknown = await ask(port, '/v1/completions', {
      body: { model: 'one' },
      headers: { 'x-tokenmill-revision': 'x' },
    });
    expect(unknown.status).toBe(404);
  });

  it('refuses bodies that are too large or no JSON, and goes on', async () => {
    await serve(tableOf({ services: [serviceOf('one', [url(0)])] }), { maxBodyBytes: 1000 });
    expect((await ask(port, '/v1/completions', { raw: 'x'.repeat(2000) }).catch(() => ({ status: 413 }))).status).toBe(
      413,
    );
    for (const raw of ['{"model":"one"', '[1]', '{"model":"one"} {}', `{"a":${'['.repeat(400)}`]) {
      expect((await ask(port, '/v1/completions', { raw })).status).toBe(400);
    }
    expect((await ask(port, '/v1/completions', { body: { model: 'one' } })).status).toBe(200);
    expect(gateway.bodies.bytes).toBe(0);
  });
});

describe('answers', () => {
  it('passes streams on byte for byte as they come, however they are cut', async () => {
    const text = Array.from({ length: 200 }, (_, i) => `data: {"i":${i},"t":"${'é'.repeat(i % 50)}"}\n\n`).join('');
    const bytes = Buffer.from(`${text}data: [DONE]\n\n`);
    replica(0).behave = (_seen, res) => {
      res.writeHead(200, { 'content-type': 'text/event-stream' });
      let sent = 0;
      const next = (): void => {
        if (sent >= bytes.length) {
          res.end();
          return;
        }
        const size = 1 + ((sent * 7919) % 97);
        res.write(bytes.subarray(sent, sent + size));
        sent += size;
        setImmediate(next);
      };
      next();
    };
    await serve(tableOf({ services: [serviceOf('one', [url(0)])] }));
    const { body, headers } = await ask(port, '/v1/chat/completions', { body: chat('one', { stream: true }) });
    expect(Buffer.from(body).equals(bytes)).toBe(true);
    expect(headers['content-type']).toBe('text/event-stream');
    const stats = gateway.stats().services['default/one']?.revisions['one-00001'];
    expect(stats?.outputTokens).toBe(200);
    expect(stats?.ttftMs.counts.reduce((a, b) => a + b)).toBe(1);
  });

  it('sends the first event before the last is there', async () => {
    replica(0).behave = stream(3, 50, { usage: true });
    await serve(tableOf({ services: [serviceOf('one', [url(0)])] }));
    const pieces: string[] = [];
    const { body } = await ask(port, '/v1/chat/completions', {
      body: chat('one', { stream: true }),
      onData: (text) => pieces.push(text),
    });
    expect(pieces.length).toBeGreaterThanOrEqual(3);
    expect(pieces[0]).toBe('data: {"token":1}\n\n');
    expect(eventsOf(body).at(-1)).toBe('[DONE]');
    expect(gateway.stats().services['default/one']?.revisions['one-00001']).toMatchObject({
      promptTokens: 11,
      outputTokens: 22,
      errors: 0,
    });
  });

  it('holds the replica back while the client does not read', async () => {
    let written = 0;
    replica(0).behave = (_seen, res) => {
      res.writeHead(200, { 'content-type': 'application/octet-stream' });
      const block = Buffer.alloc(65_536, 'x');
      const more = (): void => {
        while (written < 64 * 2 ** 20) {
          written += block.length;
          if (!res.write(block)) {
            res.once('drain', more);
            return;
          }
        }
        res.end();
      };
      more();
    };
    await serve(tableOf({ services: [serviceOf('one', [url(0)])] }));
    const socket = connect(port, '127.0.0.1');
    socket.write('GET /info HTTP/1.1\r\nhost: x\r\n\r\n');
    socket.pause();
    await until(() => written > 0, 'the replica writes');
    await new Promise((resolve) => setTimeout(resolve, 300));
    const before = written;
    expect(before).toBeLessThan(32 * 2 ** 20);
    socket.resume();
    let read = 0;
    socket.on('data', (piece) => {
      read += piece.length;
    });
    await until(() => read > 64 * 2 ** 20, 'all of it comes once the client reads');
    socket.destroy();
  });

  it('speaks to clients of HTTP/1.0, and to those that send the next request before the answer', async () => {
    replica(0).behave = stream(2, 5);
    await serve(tableOf({ services: [serviceOf('one', [url(0)])] }));
    const body = '{"model":"one","stream":true}';
    const fields = `host: x\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n`;
    const talk = async (text: string): Promise<string> => {
      const socket = connect(port, '127.0.0.1');
      let all = '';
      socket.setEncoding('latin1').on('data', (piece: string) => {
        all += piece;
      });
      socket.write(text);
      await new Promise((resolve) => socket.once('close', resolve));
      return all;
    };
    const old = await talk(`POST /v1/completions HTTP/1.0\r\n${fields}\r\n${body}`);
    expect(old).not.toMatch(/transfer-encoding/i);
    expect(old.slice(old.indexOf('\r\n\r\n') + 4)).toBe('data: {"token":1}\n\ndata: {"token":2}\n\ndata: [DONE]\n\n');
    const one = `POST /v1/completions HTTP/1.1\r\n${fields}\r\n${body}`;
    const two = await talk(one + one.replace('host: x', 'host: x\r\nconnection: close'));
    expect(two.split('HTTP/1.1 200 OK')).toHaveLength(3);
    expect(two.split('[DONE]')).toHaveLength(3);
  });

  it('passes on errors of replicas that no other could mend, and answers without a body', async () => {
    await serve(tableOf({ services: [serviceOf('one', [url(0)])] }));
    replica(0).behave = answer(400, { error: { message: 'no' } });
    const bad = await ask(port, '/v1/completions', { body: { model: 'one' } });
    expect([bad.status, bad.body]).toEqual([400, '{"error":{"message":"no"}}']);
    replica(0).behave = (_seen, res) => res.writeHead(204).end();
    expect((await ask(port, '/v1/completions', { body: { model: 'one' } })).status).toBe(204);
    replica(0).behave = (_seen, res) => res.writeHead(200, { 'content-length': '5' }).end();
    const head = await ask(port, '/info', { method: 'HEAD' });
    expect([head.status, head.headers['content-length'], head.body]).toEqual([200, '5', '']);
    expect(gateway.stats().services['default/one']).toMatchObject({ inFlight: 0, waiting: 0, arrivals: 3 });
  });
});
