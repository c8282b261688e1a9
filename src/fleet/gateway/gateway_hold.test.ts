import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Gateway } from './gateway.ts';
import type { ServiceStats } from './routing_table.ts';
import {
  type Answer,
  ask,
  chat,
  echo,
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
  replicas = await Promise.all(['a', 'b'].map((name) => startReplica(echo(name))));
});

afterEach(async () => {
  await gateway.close();
  await Promise.all(replicas.map((replica) => replica.close()));
});

const replica = (i: number): Replica => replicas[i] as Replica;
const stats = (): ServiceStats => gateway.stats().services['default/one'] as ServiceStats;
const complete = (more: object = {}, headers: Record<string, string> = {}): Promise<Answer> =>
  ask(port, '/v1/completions', { body: { model: 'one', ...more }, headers });

describe('a service without a ready endpoint', () => {
  it('holds its requests, counts them, and releases them in order when the table brings one', async () => {
    ({ gateway, port } = await startGateway(tableOf({ services: [serviceOf('one', [])] })));
    const answers: Promise<Answer>[] = [];
    for (let i = 0; i < 20; i++) {
      answers.push(complete({ prompt: `p${i}` }));
      await until(() => stats().waiting === i + 1, `request ${i} is held`);
    }
    expect(stats()).toMatchObject({ waiting: 20, inFlight: 0, arrivals: 20, refused: 0 });
    expect(stats().lastActiveAt).not.toBeNull();
    gateway.applyTable(tableOf({ services: [serviceOf('one', [replica(0).url])] }));
    for (const { status } of await Promise.all(answers)) expect(status).toBe(200);
    const prompts = replica(0).seen.map(({ body }) => (JSON.parse(body) as { prompt: string }).prompt);
    expect([...prompts].sort()).toEqual(Array.from({ length: 20 }, (_, i) => `p${i}`).sort());
    expect(stats()).toMatchObject({ waiting: 0, inFlight: 0 });
  });

  it('refuses at once when it does not hold', async () => {
    ({ gateway, port } = await startGateway(tableOf({ services: [serviceOf('one', [], {}, false)] })));
    const { status, headers, body } = await complete();
    expect(status).toBe(503);
    expect(headers['retry-after']).toMatch(/^[1-9]\d*$/);
    expect(headers['x-llm-d-request-dropped-reason']).toBe('rejected-no-endpoints');
    expect(JSON.parse(body)).toMatchObject({ error: { type: 'ServiceUnavailableError', code: 503 } });
    expect(stats()).toMatchObject({ arrivals: 1, refused: 1 });
  });

  it('refuses with 503 what it held too long, and with 429 what its queue has no room for', async () => {
    const queue = { maxRequests: 2, maxBytes: 1e6, ttlMs: 300, coldTtlMs: 300 };
    ({ gateway, port } = await startGateway(tableOf({ services: [serviceOf('one', [], { queue })] })));
    const held = [complete(), complete()];
    await until(() => stats().waiting === 2, 'two are held');
    const third = await complete();
    expect([third.status, third.headers['x-llm-d-request-dropped-reason']]).toEqual([429, 'rejected-saturated']);
    for (const { status, headers } of await Promise.all(held)) {
      expect([status, headers['x-llm-d-request-dropped-reason']]).toEqual([503, 'rejected-ttl-expired']);
    }
  });

  it('lets higher priorities go first and drops the lowest for them', async () => {
    const queue = { maxRequests: 2, maxBytes: 1e6, ttlMs: 9000, coldTtlMs: 9000 };
    const gatewaySpec = { objectives: { urgent: 10 } };
    ({ gateway, port } = await startGateway(
      tableOf({ services: [serviceOf('one', [], { queue })], gateway: gatewaySpec }),
    ));
    const low = complete({ prompt: 'low', priority: 5 });
    await until(() => stats().waiting === 1, 'low is held');
    const middle = complete({ prompt: 'middle' });
    await until(() => stats().waiting === 2, 'middle is held');
    const urgent = complete({ prompt: 'urgent' }, { 'x-llm-d-inference-objective': 'urgent' });
    expect((await low).status).toBe(429);
    const order: string[] = [];
    replica(0).behave = (seen, res, req) => {
      order.push((JSON.parse(seen.body) as { prompt: string }).prompt);
      echo('a')(seen, res, req);
    };
    // Until its first sample the endpoint gets what it can run; order shows on one connection after another.
    gateway.applyTable(tableOf({ services: [serviceOf('one', [replica(0).url], { queue })] }));
    expect((await middle).status).toBe(200);
    expect((await urgent).status).toBe(200);
    expect(order).toHaveLength(2);
  });

  it('forgets a held request whose client leaves', async () => {
    ({ gateway, port } = await startGateway(tableOf({ services: [serviceOf('one', [])] })));
    const leaving = new AbortController();
    const held = ask(port, '/v1/completions', { body: { model: 'one' }, signal: leaving.signal }).catch(() => null);
    await until(() => stats().waiting === 1, 'it is held');
    leaving.abort();
    await held;
    await until(() => stats().waiting === 0, 'it is forgotten');
    expect(gateway.bodies.bytes).toBe(0);
  });

  it('keeps held streams alive with comments when it is told to, and an error is an event then', async () => {
    const queue = { maxRequests: 2, maxBytes: 1e6, ttlMs: 700, coldTtlMs: 700 };
    ({ gateway, port } = await startGateway(tableOf({ services: [serviceOf('one', [], { queue })] }), {
      keepAliveMs: 100,
    }));
    const failing = await ask(port, '/v1/chat/completions', { body: chat('one', { stream: true }) });
    expect(failing.status).toBe(200);
    expect(failing.body).toMatch(/^(: keep-alive\n\n){2,}\ndata: \{"error":\{.*"code":503\}\}\n\ndata: \[DONE\]\n\n$/);
    const kept = ask(port, '/v1/chat/completions', { body: chat('one', { stream: true }) });
    await until(() => stats().waiting === 1, 'it is held');
    await new Promise((resolve) => setTimeout(resolve, 250));
    replica(0).behave = stream(2, 1);
    gateway.applyTable(tableOf({ services: [serviceOf('one', [replica(0).url], { queue })] }));
    expect((await kept).body).toMatch(
      /^(: keep-alive\n\n)+data: \{"token":1\}\n\ndata: \{"token":2\}\n\ndata: \[DONE\]\n\n$/,
    );
  });
});

describe('saturated endpoints', () => {
  it('get no more than they have room for until they say that they have', async () => {
    replica(0).metrics = 'vllm:num_requests_running 8\nvllm:num_requests_waiting 5\nvllm:kv_cache_usage_perc 0.1\n';
    let open: (() => void)[] = [];
    replica(0).behave = (seen, res, req) => void open.push(() => echo('a')(seen, res, req));
    ({ gateway, port } = await startGateway(tableOf({ services: [serviceOf('one', [replica(0).url])] }), {
      sampleIntervalMs: 50,
    }));
    await new Promise((resolve) => setTimeout(resolve, 150));
    const answers = [complete(), complete(), complete()];
    await until(() => stats().waiting === 2, 'two of three are held');
    expect(stats().inFlight).toBe(1);
    const shed = await complete({ priority: 1 });
    expect([shed.status, shed.headers['x-llm-d-request-dropped-reason']]).toEqual([429, 'rejected-saturated']);
    replica(0).metrics = 'vllm:num_requests_running 8\nvllm:num_requests_waiting 0\nvllm:kv_cache_usage_perc 0.1\n';
    await until(() => open.length === 3, 'the others are sent after the next sample');
    for (const go of open) go();
    open = [];
    for (const { status } of await Promise.all(answers)) expect(status).toBe(200);
  });
});

describe('tables', () => {
  it('change under load without a failed request', async () => {
    ({ gateway, port } = await startGateway(tableOf({ services: [serviceOf('one', [replica(0).url])] })));
    const statuses = new Map<number, number>();
    let going = true;
    const client = async (): Promise<void> => {
      while (going) {
        const { status } = await complete();
        statuses.set(status, (statuses.get(status) ?? 0) + 1);
      }
    };
    const clients = Array.from({ length: 16 }, client);
    const sets = [[0], [0, 1], [1], [], [1, 0]];
    for (let i = 0; i < 60; i++) {
      const urls = (sets[i % sets.length] as number[]).map((index) => replica(index).url);
      gateway.applyTable(tableOf({ services: [serviceOf('one', urls)] }));
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    gateway.applyTable(tableOf({ services: [serviceOf('one', [replica(0).url])] }));
    going = false;
    await Promise.all(clients);
    expect([...statuses.keys()]).toEqual([200]);
    expect(replica(1).seen.length).toBeGreaterThan(0);
    expect(stats()).toMatchObject({ waiting: 0, inFlight: 0, refused: 0 });
  });

  it('that are older are refused, and a draining endpoint gets nothing new but ends what it has', async () => {
    replica(0).behave = stream(20, 20);
    const first = tableOf({ services: [serviceOf('one', [replica(0).url])] });
    ({ gateway, port } = await startGateway(first));
    const running = ask(port, '/v1/chat/completions', { body: chat('one', { stream: true }) });
    await until(() => stats().inFlight === 1, 'it runs');
    const service = serviceOf('one', [replica(0).url, replica(1).url]);
    const [revision] = service.revisions;
    const endpoints = (revision as (typeof service.revisions)[0]).endpoints.map((endpoint, i) => ({
      ...endpoint,
      state: i === 0 ? ('draining' as const) : ('ready' as const),
    }));
    gateway.applyTable(
      tableOf({
        services: [{ ...service, revisions: [{ ...(revision as (typeof service.revisions)[0]), endpoints }] }],
      }),
    );
    for (let i = 0; i < 5; i++) expect(JSON.parse((await complete()).body)).toMatchObject({ replica: 'b' });
    expect(stats().endpoints[`one-${replica(0).port}`]?.inFlight).toBe(1);
    expect((await running).body).toContain('{"token":20}');
    expect(() => gateway.applyTable(first)).toThrow(/older/);
    gateway.applyTable(tableOf({ services: [serviceOf('one', [replica(1).url])] }));
    expect(Object.keys(stats().endpoints)).toEqual([`one-${replica(1).port}`]);
  });
});
