import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { Agent, request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { GatewayStats, RoutingTable } from './routing_table.ts';
import {
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
} from './testdata/harness.ts';

const MAIN = fileURLToPath(new URL('../../../dist/fleet/gateway/gateway_main.js', import.meta.url));

let folder: string;
let replica: Replica;
let main: ChildProcess | null = null;
const pids = new Set<number>();

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'gw-'));
  replica = await startReplica(echo('a'));
});

afterEach(async () => {
  for (const pid of pids) {
    try {
      process.kill(pid, 'SIGKILL');
    } catch {
      // It has ended by itself.
    }
  }
  pids.clear();
  await replica.close();
  rmSync(folder, { recursive: true, force: true });
});

const socketPath = (): string => join(folder, 'control');

async function start(more: readonly string[] = []): Promise<number> {
  const flags = ['--control', socketPath(), '--table', join(folder, 'table.json'), ...more];
  const child = spawn(process.execPath, [MAIN, ...flags], { stdio: ['ignore', 'pipe', 'inherit'] });
  main = child;
  pids.add(child.pid as number);
  return new Promise((resolve, reject) => {
    let text = '';
    child.stdout.on('data', (data: Buffer) => {
      text += data.toString();
      const line = text.split('\n').find((one) => one.includes('the gateway serves'));
      if (line !== undefined) resolve((JSON.parse(line) as { port: number }).port);
    });
    child.once('exit', (code) => reject(new Error(`the gateway ended with code ${code}`)));
  });
}

function control(method: string, path: string, value?: unknown): Promise<{ status: number; value: unknown }> {
  return new Promise((resolve, reject) => {
    const req = request({ socketPath: socketPath(), method, path, agent: false }, (res) => {
      let text = '';
      res.on('data', (piece: Buffer) => {
        text += piece.toString();
      });
      res.on('end', () => resolve({ status: res.statusCode ?? 0, value: JSON.parse(text) }));
    });
    req.on('error', reject);
    req.end(value === undefined ? undefined : JSON.stringify(value));
  });
}

const stats = async (): Promise<GatewayStats> => (await control('GET', '/stats')).value as GatewayStats;
const exited = (child: ChildProcess): Promise<void> =>
  child.exitCode !== null ? Promise.resolve() : new Promise((resolve) => child.once('exit', () => resolve()));
const table = (): RoutingTable => tableOf({ services: [serviceOf('one', [replica.url])] });

async function handover(): Promise<number> {
  const { status, value } = await control('POST', '/handover', { script: MAIN });
  expect(status, JSON.stringify(value)).toBe(200);
  const { pid } = value as { pid: number };
  pids.add(pid);
  return pid;
}

describe.skipIf(!existsSync(MAIN))('the process', () => {
  it('takes tables over a socket of its owner only, and goes on with the last one after a restart', async () => {
    const port = await start();
    expect(statSync(socketPath()).mode & 0o777).toBe(0o600);
    expect((await ask(port, '/ready')).status).toBe(503);
    const first = table();
    expect(await control('PUT', '/table', first)).toEqual({ status: 200, value: { version: first.version } });
    const wrong = await control('PUT', '/table', { ...first, version: first.version + 1, services: [{ id: 'x' }] });
    expect([wrong.status, JSON.stringify(wrong.value)]).toEqual([400, expect.stringContaining('services.0.')]);
    expect((await ask(port, '/v1/completions', { body: { model: 'one' } })).status).toBe(200);
    expect((await stats()).services['default/one']?.arrivals).toBe(1);
    expect(statSync(join(folder, 'table.json')).mode & 0o777).toBe(0o600);
    main?.kill('SIGKILL');
    await exited(main as ChildProcess);
    const again = await start();
    expect((await ask(again, '/v1/completions', { body: { model: 'one' } })).status).toBe(200);
    expect((await stats()).tableVersion).toBe(first.version);
  });

  it('drains: ends what it has, refuses the rest, ends itself', async () => {
    const port = await start();
    await control('PUT', '/table', table());
    replica.behave = stream(20, 25);
    const running = ask(port, '/v1/chat/completions', { body: chat('one', { stream: true }) });
    await until(() => replica.seen.length === 1, 'it runs');
    main?.kill('SIGTERM');
    expect(eventsOf((await running).body)).toHaveLength(21);
    await exited(main as ChildProcess);
    expect(main?.exitCode).toBe(0);
  });

  it('hands its socket to a successor: no request refused, streams end where they began, counters go on', async () => {
    const port = await start();
    await control('PUT', '/table', table());
    let going = true;
    const failures: unknown[] = [];
    let served = 0;
    const client = async (agent: Agent | false): Promise<void> => {
      while (going) {
        await new Promise<void>((resolve) => {
          const req = request(
            { port, path: '/v1/completions', method: 'POST', agent, headers: { 'content-type': 'application/json' } },
            (res) => {
              res.resume();
              res.on('end', () => {
                served++;
                if (res.statusCode !== 200) failures.push(res.statusCode);
                resolve();
              });
            },
          );
          req.on('error', (error) => {
            failures.push(error);
            resolve();
          });
          req.end('{"model":"one"}');
        });
      }
    };
    const agent = new Agent({ keepAlive: true });
    const clients = [
      ...Array.from({ length: 4 }, () => client(false)),
      ...Array.from({ length: 4 }, () => client(agent)),
    ];
    await until(() => served > 50, 'the clients are under way');
    const plain = replica.behave;
    replica.behave = (seen, res, req) =>
      seen.body.includes('"stream"') ? stream(80, 40)(seen, res, req) : plain(seen, res, req);
    const running = ask(port, '/v1/chat/completions', { body: chat('one', { stream: true }) });
    await until(() => replica.seen.some(({ body }) => body.includes('"stream"')), 'a stream runs');
    const before = await stats();
    const first = main as ChildProcess;
    const second = await handover();
    expect(second).not.toBe(first.pid);
    const servedBefore = served;
    await until(() => served > servedBefore + 50, 'the successor serves');
    const during = await stats();
    // The stream of the old process is still counted, so that nobody stops its replica.
    expect(during.services['default/one']?.endpoints[`one-${replica.port}`]?.inFlight).toBeGreaterThanOrEqual(1);
    expect(during.epoch).toBe(before.epoch);
    const third = await handover();
    expect(third).not.toBe(second);
    // The second has nothing of its own, and stays to tell the third of the first's stream.
    const servedThen = served;
    await until(() => served > servedThen + 50, 'the third serves');
    if (first.exitCode === null) {
      const inFlight = (await stats()).services['default/one']?.endpoints[`one-${replica.port}`]?.inFlight ?? 0;
      expect(first.exitCode !== null || inFlight >= 1).toBe(true);
    }
    expect(eventsOf((await running).body)).toHaveLength(81);
    going = false;
    await Promise.all(clients);
    agent.destroy();
    expect(failures).toEqual([]);
    await exited(first);
    expect(first.exitCode).toBe(0);
    const after = await stats();
    expect(after.services['default/one']?.arrivals).toBe(served + 1);
    expect((await control('GET', '/health')).value).toEqual({ pid: third });
  });

  it("leaves nobody behind who is held: the old process hears of the new one's tables", async () => {
    const port = await start();
    await control('PUT', '/table', tableOf({ services: [serviceOf('one', [])] }));
    const held = ask(port, '/v1/completions', { body: { model: 'one' } });
    const waiting = async (): Promise<number> => (await stats()).services['default/one']?.waiting ?? 0;
    while ((await waiting()) === 0) await new Promise((resolve) => setTimeout(resolve, 10));
    const first = main as ChildProcess;
    await handover();
    expect(await waiting()).toBe(1);
    expect(first.exitCode).toBeNull();
    await control('PUT', '/table', table());
    expect((await held).status).toBe(200);
    await exited(first);
    expect(await waiting()).toBe(0);
    expect((await stats()).services['default/one']?.arrivals).toBe(1);
  });

  it('goes on when the successor cannot start', async () => {
    const port = await start();
    await control('PUT', '/table', table());
    const missing = await control('POST', '/handover', { script: join(folder, 'missing.js') });
    expect(missing.status).toBe(400);
    const bad = join(folder, 'bad.mjs');
    writeFileSync(bad, 'process.exit(3)');
    const broken = await control('POST', '/handover', { script: bad });
    expect(broken.status).toBe(500);
    expect((await ask(port, '/v1/completions', { body: { model: 'one' } })).status).toBe(200);
  });
});
