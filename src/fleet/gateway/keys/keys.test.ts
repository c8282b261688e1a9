import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import { afterEach, beforeEach, expect, it } from 'vitest';
import type { Gateway } from '../gateway.ts';
import { Gateway as GatewayClass } from '../gateway.ts';
import {
  type Answer,
  ask,
  chat,
  echo,
  eventsOf,
  type Replica,
  serviceOf,
  startReplica,
  stream,
  tableOf,
  until,
} from '../testdata/harness.ts';
import { KeyApi } from './key_api.ts';
import { SqliteKeyStore } from './key_store.ts';
import { hashKey, Keys, type Price } from './keys.ts';

let replica: Replica;
let gateway: Gateway;
let keys: Keys;
let port: number;
let at = Date.UTC(2026, 0, 1);

beforeEach(async () => {
  replica = await startReplica(echo('a'));
  at = Date.UTC(2026, 0, 1);
});

afterEach(async () => {
  await gateway.close();
  await replica.close();
});

const MASTER = 'sk-master-key-of-the-test';

async function serve(requireKey: boolean, prices: Record<string, Price> = {}): Promise<void> {
  const store = new SqliteKeyStore(':memory:');
  const options = { store, masterKey: MASTER, prices: new Map(Object.entries(prices)), now: () => at };
  keys = new Keys({ ...options, onWriteError: (error) => expect.fail(String(error)) });
  gateway = new GatewayClass({ log: pino({ level: 'silent' }), keys });
  const services = [serviceOf('one', [replica.url]), serviceOf('two', [replica.url])];
  gateway.applyTable(tableOf({ services, gateway: { requireKey } }));
  port = await gateway.listen('127.0.0.1', 0);
}

const as = (key: string): Record<string, string> => ({ authorization: `Bearer ${key}` });
const parse = (answer: Answer): Record<string, unknown> => JSON.parse(answer.body) as Record<string, unknown>;
const admin = (path: string, body: object): Promise<Answer> => ask(port, path, { body, headers: as(MASTER) });
const use = (key: string, model = 'one', more: object = {}): Promise<Answer> =>
  ask(port, '/v1/chat/completions', { body: chat(model, more), headers: as(key) });

async function generate(body: object): Promise<string> {
  const answer = await admin('/key/generate', body);
  expect(answer.status, answer.body).toBe(200);
  return parse(answer)['key'] as string;
}

it('asks for a key where one is required, and never shows it to a replica', async () => {
  await serve(true);
  expect((await ask(port, '/v1/chat/completions', { body: chat('one') })).status).toBe(401);
  expect((await use('sk-wrong')).status).toBe(401);
  expect((await ask(port, '/v1/models')).status).toBe(401);
  expect((await ask(port, '/health')).status).toBe(200);
  const key = await generate({ key_alias: 'team-a' });
  expect(key).toMatch(/^sk-[\w-]{32}$/);
  expect((await use(key)).status).toBe(200);
  expect((await use(MASTER)).status).toBe(200);
  for (const { headers } of replica.seen) expect(headers).not.toHaveProperty('authorization');
});

it('manages keys with the master key only', async () => {
  await serve(false);
  const body = { key_alias: 'x' };
  for (const headers of [{}, as('sk-other')]) {
    expect((await ask(port, '/key/generate', { body, headers })).status).toBe(401);
  }
  const key = await generate(body);
  expect((await admin('/key/generate', body)).body).toContain('has the alias x');
  expect((await admin('/key/generate', { rpm: 3 })).status).toBe(400);
  expect((await admin('/key/nonsense', {})).status).toBe(400);
  const info = await ask(port, `/key/info?key=${key}`, { headers: as(MASTER) });
  expect(parse(info)['info']).toMatchObject({ key_alias: 'x', spend: 0, blocked: false, expires: null });
  expect(info.body).not.toContain(key);
  expect(parse(info)['key']).toBe(hashKey(key));
  expect(parse(await admin('/key/delete', { keys: [key] }))).toEqual({ deleted_keys: [key] });
  expect((await ask(port, `/key/info?key=${key}`, { headers: as(MASTER) })).status).toBe(400);
});

it('keeps to models, blocks, expiry and updates', async () => {
  await serve(true);
  const key = await generate({ models: ['one'], duration: '1h' });
  expect((await use(key, 'one')).status).toBe(200);
  const refused = await use(key, 'two');
  expect([refused.status, parse(refused)]).toMatchObject([
    403,
    { error: { param: 'model', type: 'PermissionDeniedError' } },
  ]);
  const list = parse(await ask(port, '/v1/models', { headers: as(key) }))['data'] as { id: string }[];
  expect(list.map(({ id }) => id)).toEqual(['one']);
  await admin('/key/update', { key, models: ['two'] });
  expect((await use(key, 'two')).status).toBe(200);
  await admin('/key/block', { key });
  expect((await use(key, 'two')).status).toBe(403);
  await admin('/key/unblock', { key });
  at += 3_600_001;
  expect((await use(key, 'two')).status).toBe(401);
});

it('counts requests, tokens of streams and parallel requests against the limits', async () => {
  await serve(true);
  const slow = await generate({ rpm_limit: 2 });
  const first = await use(slow);
  expect(first.headers).toMatchObject({ 'x-ratelimit-limit-requests': '2', 'x-ratelimit-remaining-requests': '1' });
  expect((await use(slow)).status).toBe(200);
  const refused = await use(slow);
  expect([refused.status, parse(refused)]).toMatchObject([429, { error: { type: 'TooManyRequestsError' } }]);
  expect(Number(refused.headers['retry-after'])).toBe(30);
  at += 30_000;
  expect((await use(slow)).status).toBe(200);

  const tokens = await generate({ tpm_limit: 120 });
  replica.behave = stream(50, 0, { usage: false });
  expect((await use(tokens, 'one', { stream: true, max_tokens: 100 })).status).toBe(200);
  // 50 of the stream and some of the prompt were used, so 100 more do not fit and 20 do.
  expect((await use(tokens, 'one', { stream: true, max_tokens: 100 })).status).toBe(429);
  expect((await use(tokens, 'one', { stream: true, max_tokens: 20 })).status).toBe(200);

  const single = await generate({ max_parallel_requests: 1 });
  replica.behave = stream(3, 60);
  const running = use(single, 'one', { stream: true });
  await until(() => replica.seen.length >= 6, 'one is under way');
  expect((await use(single, 'one', { stream: true })).status).toBe(429);
  expect(eventsOf((await running).body)).toHaveLength(4);
  expect((await use(single, 'one', { stream: true })).status).toBe(200);
});

it('spends a budget in the unit of the prices, also of requests whose client left', async () => {
  await serve(true, { one: { promptPerMillion: 0, outputPerMillion: 1e6 } });
  const key = await generate({ max_budget: 7, budget_duration: '1d' });
  replica.behave = stream(3, 0);
  expect((await use(key, 'one', { stream: true })).status).toBe(200);
  const leaving = new AbortController();
  replica.behave = (_seen, res) => {
    res.writeHead(200, { 'content-type': 'text/event-stream' });
    res.write('data: 1\n\ndata: 2\n\ndata: 3\n\n');
  };
  const options = { body: chat('one', { stream: true }), headers: as(key), signal: leaving.signal };
  await ask(port, '/v1/chat/completions', { ...options, onData: () => leaving.abort() }).catch(() => null);
  await until(() => gateway.stats().services['default/one']?.inFlight === 0, 'it is over');
  const info = async () => parse(await ask(port, `/key/info?key=${key}`, { headers: as(MASTER) }))['info'];
  expect(await info()).toMatchObject({ spend: 6, total_requests: 2, completion_tokens: 6 });
  replica.behave = echo('a');
  expect((await use(key)).status).toBe(200);
  const over = await use(key);
  expect([over.status, parse(over)]).toMatchObject([400, { error: { type: 'budget_exceeded' } }]);
  at += 86_400_000;
  expect((await use(key)).status).toBe(200);
});

it('refuses a budget when there are no prices', async () => {
  await serve(true);
  expect((await admin('/key/generate', { max_budget: 1 })).body).toContain('A budget needs prices');
});

it('adds up what two gateways spend of one budget, as during a handover, and begins anew with its period', async () => {
  await serve(true);
  const folder = mkdtempSync(join(tmpdir(), 'keys-'));
  const price = { promptPerMillion: 0, outputPerMillion: 1e6 };
  const open = (): Keys =>
    new Keys({
      store: new SqliteKeyStore(join(folder, 'keys.db')),
      masterKey: MASTER,
      prices: new Map([['*', price]]),
      now: () => at,
      onWriteError: (error) => expect.fail(String(error)),
    });
  const [first, second] = [open(), open()];
  const body = Buffer.from(JSON.stringify({ key: 'sk-0123456789abcdef', max_budget: 10, budget_duration: '1d' }));
  new KeyApi(first).handle('POST', '/key/generate', '', MASTER, body);
  const spend = (keys: Keys, outputTokens: number): void => {
    const end = { status: 200, promptTokens: 0, outputTokens, revision: null };
    keys.admit('sk-0123456789abcdef', 'one', 1, true).settle(end);
    keys.flush();
  };
  spend(first, 4);
  spend(second, 3);
  spend(first, 2);
  const third = open();
  spend(third, 1);
  expect(() => spend(third, 1)).not.toThrow();
  expect(() => spend(third, 1)).toThrow(/Budget exceeded/);
  at += 86_400_000;
  spend(third, 5);
  const fourth = open();
  expect(fourth.options.store.spendOf(hashKey('sk-0123456789abcdef'))).toMatchObject({ spend: 16, periodSpend: 5 });
  for (const keys of [first, second, third, fourth]) keys.close();
  rmSync(folder, { recursive: true });
});
