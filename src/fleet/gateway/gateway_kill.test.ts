import { type ChildProcess, spawn } from 'node:child_process';
import { Agent, request } from 'node:http';
import { fileURLToPath } from 'node:url';
import { afterEach, expect, it } from 'vitest';
import type { Gateway } from './gateway.ts';
import type { Endpoint } from './routing_table.ts';
import { serviceOf, startGateway, tableOf } from './testdata/harness.ts';

const NULL_REPLICA = fileURLToPath(new URL('../../../bench/fleet/null_replica.mjs', import.meta.url));

interface Child {
  readonly id: string;
  readonly url: string;
  readonly process: ChildProcess;
}

const children = new Set<ChildProcess>();
let gateway: Gateway | null = null;

afterEach(async () => {
  for (const child of children) child.kill('SIGKILL');
  children.clear();
  await gateway?.close();
});

let started = 0;

async function startChild(): Promise<Child> {
  const child = spawn(process.execPath, [NULL_REPLICA], { stdio: ['ignore', 'pipe', 'ignore'] });
  children.add(child);
  const line = await new Promise<string>((resolve) =>
    child.stdout.once('data', (data: Buffer) => resolve(data.toString())),
  );
  const { port } = JSON.parse(line) as { port: number };
  return { id: `null-${++started}`, url: `http://127.0.0.1:${port}`, process: child };
}

interface Outcome {
  readonly status: number;
  readonly sentTokens: boolean;
  readonly whole: boolean;
}

function once(agent: Agent, port: number, stream: boolean): Promise<Outcome> {
  const body = JSON.stringify({ model: 'null', messages: [], max_tokens: 3, ...(stream ? { stream: true } : {}) });
  const headers = {
    'content-type': 'application/json',
    'content-length': body.length,
    'x-null-gap-ms': stream ? '1' : '0',
  };
  return new Promise((resolve, reject) => {
    const req = request({ port, agent, path: '/v1/chat/completions', method: 'POST', headers }, (res) => {
      let text = '';
      res.on('data', (piece: Buffer) => {
        text += piece.toString();
      });
      res.on('end', () => {
        const whole = stream ? text.endsWith('data: [DONE]\n\n') && !text.includes('"error"') : text.includes('usage');
        resolve({ status: res.statusCode ?? 0, sentTokens: text.includes('"content"'), whole });
      });
      res.on('error', reject);
    });
    req.on('error', reject);
    req.end(body);
  });
}

it('10,000 requests while replicas are killed and replaced: none fails that had sent no token', async () => {
  let alive = await Promise.all(Array.from({ length: 4 }, startChild));
  const table = (): ReturnType<typeof tableOf> => {
    const endpoints: Endpoint[] = alive.map(({ id, url }) => ({ id, url, state: 'ready' }));
    const service = serviceOf('null', []);
    const revisions = service.revisions.map((revision) => ({ ...revision, endpoints }));
    return tableOf({ services: [{ ...service, revisions }] });
  };
  const made = await startGateway(table());
  gateway = made.gateway;
  const agent = new Agent({ keepAlive: true, maxSockets: 48 });
  let left = 10_000;
  const broken: Outcome[] = [];
  const failed: unknown[] = [];
  const client = async (): Promise<void> => {
    while (left-- > 0) {
      try {
        const outcome = await once(agent, made.port, left % 4 === 0);
        if (outcome.whole) continue;
        (outcome.sentTokens ? broken : failed).push(outcome);
      } catch (error) {
        failed.push(error);
      }
    }
  };
  let kills = 0;
  const killing = (async () => {
    while (left > 500) {
      const before = left;
      const victim = alive[kills % alive.length] as Child;
      victim.process.kill('SIGKILL');
      kills++;
      const replacement = await startChild();
      // The table learns of it late, as it would from a probe.
      while (left > Math.max(0, before - 700)) await new Promise((resolve) => setTimeout(resolve, 5));
      alive = alive.map((child) => (child === victim ? replacement : child));
      made.gateway.applyTable(table());
      while (left > Math.max(0, before - 1200)) await new Promise((resolve) => setTimeout(resolve, 5));
    }
  })();
  await Promise.all([...Array.from({ length: 48 }, client), killing]);
  agent.destroy();
  expect(kills).toBeGreaterThan(5);
  expect(failed).toEqual([]);
  // Streams that were cut say so: nothing is lost in silence.
  expect(broken.length).toBeLessThan(kills * 48);
  for (const { status } of broken) expect(status).toBe(200);
  expect(made.gateway.stats().services['default/null']).toMatchObject({
    inFlight: 0,
    waiting: 0,
    refused: 0,
    arrivals: 10_000,
  });
});
