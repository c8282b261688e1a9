import { connect } from 'node:net';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { TrafficSpec } from '../spec/fleet_spec.ts';
import type { Gateway, GatewayOptions } from './gateway.ts';
import type { ServiceStats } from './routing_table.ts';
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
  type TableParts,
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

const replica = (i: number): Replica => replicas[i] as Replica;
const asked = (): number[] => replicas.map(({ seen }) => seen.length);
const stats = (): ServiceStats => gateway.stats().services['default/one'] as ServiceStats;

async function serve(
  urls: readonly string[],
  traffic: Partial<TrafficSpec> = {},
  parts: TableParts = {},
  options: Partial<GatewayOptions> = {},
): Promise<void> {
  const services = [serviceOf('one', urls, traffic), ...(parts.services ?? [])];
  ({ gateway, port } = await startGateway(tableOf({ ...parts, services }), options));
}

const all = (): string[] => replicas.map(({ url }) => url);
const streamed = (more: object = {}) =>
  ask(port, '/v1/chat/completions', { body: chat('one', { stream: true, ...more }) });

describe('before the first byte', () => {
  it('asks another replica when one refuses, resets or answers with an error of its own', async () => {
    const behaviours = [
      (_: unknown, res: { destroy(): void }) => res.destroy(),
      answer(503, { error: 'draining' }),
      answer(429, { error: 'full' }),
      answer(500, { error: 'dead' }),
    ];
    await serve(all());
    for (const behave of behaviours) {
      replica(0).behave = behave;
      replica(1).behave = behave;
      for (let i = 0; i < 4; i++) expect((await streamed()).status).toBe(200);
    }
    expect(replica(2).seen.length).toBe(16);
    expect(stats().revisions['one-00001']?.errors).toBeGreaterThan(0);
    expect(stats().inFlight).toBe(0);
  });

  it('asks another one when the head came but no byte of the body', async () => {
    await serve(all().slice(0, 2));
    let first = true;
    for (const i of [0, 1]) {
      replica(i).behave = (seen, res, req) => {
        if (!first) {
          stream(3, 1)(seen, res, req);
          return;
        }
        first = false;
        res.writeHead(200, { 'content-type': 'text/event-stream' });
        res.flushHeaders();
        setTimeout(() => res.destroy(), 20);
      };
    }
    expect(eventsOf((await streamed()).body)).toHaveLength(4);
    expect(asked()).toEqual([1, 1, 0]);
  });

  it('asks again when a plain answer breaks off in its middle', async () => {
    await serve(all().slice(0, 2));
    let first = true;
    for (const i of [0, 1]) {
      replica(i).behave = (seen, res, req) => {
        if (!first) {
          echo('whole')(seen, res, req);
          return;
        }
        first = false;
        res.writeHead(200, { 'content-type': 'application/json', 'content-length': '1000' });
        res.write('{"half":');
        setTimeout(() => res.destroy(), 20);
      };
    }
    const { status, body } = await ask(port, '/v1/completions', { body: { model: 'one' } });
    expect([status, JSON.parse(body)]).toMatchObject([200, { replica: 'whole' }]);
  });

  it("takes a kept connection that the replica closes for nobody's failure", async () => {
    const used = new Set<object>();
    replica(0).behave = (seen, res, req) => {
      if (used.has(req.socket)) {
        req.socket.destroy();
        return;
      }
      used.add(req.socket);
      echo('a')(seen, res, req);
    };
    await serve(all().slice(0, 1), {}, {}, { maxAttempts: 1 });
    for (let i = 0; i < 5; i++) {
      expect((await ask(port, '/v1/completions', { body: { model: 'one' } })).status).toBe(200);
    }
    expect(stats().revisions['one-00001']).toMatchObject({ requests: 5, errors: 0 });
  });

  it('tries no more than it may, and then tells', async () => {
    for (const one of replicas) one.behave = answer(500, { error: 'dead' });
    await serve(all(), {}, {}, { maxAttempts: 2 });
    const { status, body } = await ask(port, '/v1/completions', { body: { model: 'one' } });
    expect([status, body]).toEqual([500, '{"error":"dead"}']);
    expect(asked().reduce((a, b) => a + b)).toBe(2);
  });

  it('does not ask again what is the fault of the request', async () => {
    for (const one of replicas) one.behave = answer(400, { error: 'bad' });
    await serve(all());
    expect((await ask(port, '/v1/completions', { body: { model: 'one' } })).status).toBe(400);
    expect(asked().reduce((a, b) => a + b)).toBe(1);
  });

  it('waits for a replica to come back while there is time, then says 502', async () => {
    const [dead] = all();
    await replica(0).close();
    await serve([dead as string], { queue: { maxRequests: 10, maxBytes: 1e6, ttlMs: 400, coldTtlMs: 400 } });
    const { status, body, headers } = await ask(port, '/v1/completions', { body: { model: 'one' } });
    expect(status).toBe(502);
    expect(JSON.parse(body)).toMatchObject({ error: { type: 'BadGatewayError', code: 502 } });
    expect(headers['x-request-id']).toMatch(/^[0-9a-f]{16}$/);
  });

  it('hedges: a second replica is asked beside a silent one, and the loser is let go', async () => {
    let cut = 0;
    replica(0).behave = (_seen, res) => void res.on('close', () => cut++);
    replica(1).behave = (_seen, res) => void res.on('close', () => cut++);
    await serve(all(), { hedgeAfterMs: 30 }, {}, { maxAttempts: 3 });
    replica(2).behave = stream(2, 1);
    expect(eventsOf((await streamed()).body)).toHaveLength(3);
    expect(replica(2).seen).toHaveLength(1);
    await until(() => cut === asked()[0]! + asked()[1]!, 'the silent ones see their connections end');
    expect(stats().inFlight).toBe(0);
    expect(Object.values(stats().endpoints).map(({ inFlight }) => inFlight)).toEqual([0, 0, 0]);
  });
});

describe('fallbacks', () => {
  it('go to another model, then to an external server with its own key and nothing of the client', async () => {
    const dead = all()[0] as string;
    await replica(0).close();
    const external = { name: 'outside', url: `${replica(2).url}/api/v1`, model: 'big', keyEnv: 'OUTSIDE_KEY' };
    const parts = { services: [serviceOf('two', [replica(1).url])], gateway: { externals: [external] } };
    await serve([dead], { fallbacks: ['gone', 'two', 'outside'] }, parts, { env: { OUTSIDE_KEY: 'sk-out' } });
    const second = await ask(port, '/v1/chat/completions', {
      body: chat('one'),
      headers: { cookie: 'c=1', authorization: 'Bearer mine' },
    });
    expect(JSON.parse(second.body)).toMatchObject({ replica: 'b', body: expect.stringContaining('"model":"two"') });
    gateway.applyTable(
      tableOf({
        services: [serviceOf('one', [], { fallbacks: ['two', 'outside'] })],
        gateway: { externals: [external] },
      }),
    );
    const third = await ask(port, '/v1/chat/completions', {
      body: chat('one'),
      headers: { cookie: 'c=1', authorization: 'Bearer mine' },
    });
    expect(JSON.parse(third.body)).toMatchObject({ replica: 'c', path: '/api/v1/chat/completions' });
    expect(replica(2).seen[0]?.headers).toMatchObject({ authorization: 'Bearer sk-out' });
    expect(replica(2).seen[0]?.headers).not.toHaveProperty('cookie');
    expect(replica(2).seen[0]?.headers).not.toHaveProperty('x-forwarded-for');
  });

  it('leave an external server out whose key is not set', async () => {
    const external = { name: 'outside', url: replica(2).url, model: 'big', keyEnv: 'NOT_SET' };
    await serve(
      [],
      { fallbacks: ['outside'], queue: { maxRequests: 0, maxBytes: 0, ttlMs: 1, coldTtlMs: 1 } },
      { gateway: { externals: [external] } },
    );
    expect((await streamed()).status).toBe(429);
    expect(asked()).toEqual([0, 0, 0]);
  });
});

describe('after the first byte', () => {
  it('ends a broken stream with an error event, behind whole events only', async () => {
    replica(0).behave = (_seen, res) => {
      res.writeHead(200, { 'content-type': 'text/event-stream' });
      res.write('data: {"token":1}\n\n');
      setTimeout(() => res.write('data: {"tok'), 10);
      setTimeout(() => res.destroy(), 40);
    };
    await serve(all().slice(0, 1));
    const { body, broken, status } = await streamed();
    expect([status, broken]).toEqual([200, false]);
    const events = eventsOf(body);
    expect(events[0]).toBe('{"token":1}');
    expect(JSON.parse(events[1] as string)).toMatchObject({
      error: { type: 'BadGatewayError', code: 502, param: null },
    });
    expect(events[2]).toBe('[DONE]');
    expect(events).toHaveLength(3);
    expect(stats().revisions['one-00001']).toMatchObject({ requests: 1, errors: 1 });
  });

  it('breaks an answer off that is no event stream, so that nobody takes it for whole', async () => {
    replica(0).behave = (_seen, res) => {
      res.writeHead(200, { 'content-type': 'application/octet-stream' });
      res.write('some');
      setTimeout(() => res.destroy(), 20);
    };
    await serve(all().slice(0, 1));
    expect((await ask(port, '/info')).broken).toBe(true);
  });

  it('ends a stream that falls silent', async () => {
    replica(0).behave = (_seen, res) => {
      res.writeHead(200, { 'content-type': 'text/event-stream' });
      res.write('data: {"token":1}\n\n');
    };
    await serve(all().slice(0, 1), { idleTimeoutMs: 200 });
    expect(eventsOf((await streamed()).body)[1]).toContain('it was silent for 200 ms');
  });
});

describe('a client that leaves', () => {
  it('ends the request at the replica at once, streaming or not', async () => {
    let gone = 0;
    replica(0).behave = (_seen, res) => {
      res.on('close', () => gone++);
      res.writeHead(200, { 'content-type': 'text/event-stream' });
      res.write('data: {"token":1}\n\n');
    };
    await serve(all().slice(0, 1));
    const leaving = new AbortController();
    const answered = ask(port, '/v1/completions', {
      body: { model: 'one', stream: true },
      signal: leaving.signal,
      onData: () => leaving.abort(),
    });
    await answered.catch(() => {});
    await until(() => gone === 1, 'the replica sees the client leave in a stream');
    replica(0).behave = (_seen, res) => void res.on('close', () => gone++);
    const early = new AbortController();
    const waiting = ask(port, '/v1/completions', { body: { model: 'one' }, signal: early.signal }).catch(() => {});
    await until(() => replica(0).seen.length === 2, 'the second request is there');
    early.abort();
    await waiting;
    await until(() => gone === 2, 'the replica sees the client leave before an answer');
    expect(stats()).toMatchObject({ inFlight: 0 });
    // Who leaves says nothing of the replica.
    expect(stats().revisions['one-00001']?.errors).toBe(0);
  });
});

describe('a client that does not read', () => {
  it('is cut after the idle time, and the replica is free of it', async () => {
    let gone = 0;
    replica(0).behave = (_seen, res) => {
      res.on('close', () => gone++);
      res.writeHead(200, { 'content-type': 'text/event-stream' });
      const more = (): void => {
        while (!res.destroyed && res.write(`data: ${'x'.repeat(65_536)}\n\n`));
        if (!res.destroyed) res.once('drain', more);
      };
      more();
    };
    await serve(all().slice(0, 1), { idleTimeoutMs: 300 });
    const body = JSON.stringify({ model: 'one', stream: true });
    const socket = connect(port, '127.0.0.1');
    let closed = false;
    socket.on('close', () => {
      closed = true;
    });
    socket.on('error', () => {});
    const head = `POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: ${body.length}`;
    socket.write(`${head}\r\n\r\n${body}`);
    socket.pause();
    await until(() => gone === 1, 'the replica is free');
    socket.resume();
    await until(() => closed, 'the client is cut');
    expect(stats().inFlight).toBe(0);
    expect(gateway.bodies.bytes).toBe(0);
  });
});

describe('an endpoint that fails', () => {
  it('is left out, and its shadow never disturbs', async () => {
    await serve(all(), { shadow: { to: 'two', percent: 100 } }, { services: [serviceOf('two', [replica(2).url])] });
    const dead = replica(0);
    dead.behave = (_seen, res) => res.destroy();
    for (let i = 0; i < 40; i++)
      expect((await ask(port, '/v1/completions', { body: { model: 'one' } })).status).toBe(200);
    expect(dead.seen.length).toBeLessThan(10);
    expect(stats().endpoints[`one-${dead.port}`]?.ejected).toBe(true);
    const shadows = replica(2).seen.filter(({ body }) => body.includes('"two"'));
    expect(shadows.length).toBe(40);
  });
});
