/**
 * What one gateway process carries and what it adds: null replicas, the gateway and the load client are processes of their own.
 * CPU time is the gateway's own (from /proc), so that neighbours on the machine change the rates but not these figures.
 *
 *   npx tsc -p tsconfig.build.json && node bench/fleet/gateway.mjs [--seconds 4] [--replicas 2] [--prof FOLDER]
 */
import { spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '4' },
    replicas: { type: 'string', default: '2' },
    prof: { type: 'string' },
  },
});
const seconds = Number(values.seconds);
const here = fileURLToPath(new URL('.', import.meta.url));
const main = fileURLToPath(new URL('../../dist/fleet/gateway/gateway_main.js', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'tokenmill-gateway-'));
const children = [];

function start(args, env = {}) {
  const child = spawn(process.execPath, args, {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, ...env },
  });
  children.push(child);
  return child;
}

const firstLine = (child) =>
  new Promise((resolve) => {
    let text = '';
    child.stdout.on('data', (data) => {
      text += data;
      if (text.includes('\n')) resolve(JSON.parse(text.slice(0, text.indexOf('\n'))));
    });
  });

function control(method, path, value) {
  return new Promise((resolve, reject) => {
    const req = request({ socketPath: join(folder, 'control'), method, path }, (res) => {
      let text = '';
      res.on('data', (data) => {
        text += data;
      });
      res.on('end', () => resolve(JSON.parse(text)));
    });
    req.on('error', reject);
    req.end(value === undefined ? undefined : JSON.stringify(value));
  });
}

function cpuMs(pid) {
  let total = 0;
  for (const task of readdirSync(`/proc/${pid}/task`)) {
    total += Number(readFileSync(`/proc/${pid}/task/${task}/schedstat`, 'utf8').split(' ')[0]);
  }
  return total / 1e6;
}

function load(options) {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [join(here, 'load.mjs'), JSON.stringify({ seconds, ...options })], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let text = '';
    child.stdout.on('data', (data) => {
      text += data;
    });
    child.on('close', () => resolve(JSON.parse(text)));
  });
}

function tableOf(ports) {
  const traffic = {
    pins: [],
    stickyBy: null,
    shadow: null,
    queue: { maxRequests: 5000, maxBytes: 1e9, ttlMs: 60_000, coldTtlMs: 300_000 },
    fallbacks: [],
    priority: 0,
    hedgeAfterMs: 0,
    idleTimeoutMs: 60_000,
  };
  const endpoints = ports.map((port) => ({ id: `null-${port}`, url: `http://127.0.0.1:${port}`, state: 'ready' }));
  const revisions = [{ id: 'null-00001', percent: 100, tags: ['latest'], endpoints }];
  const gateway = { host: '127.0.0.1', port: 0, externals: [], scorers: {}, objectives: {}, requireKey: false };
  const services = [{ id: 'default/null', models: ['null'], revisions, traffic, holds: true }];
  return { version: 1, services, routes: [], graphs: [], gateway };
}

const round = (value) => (value === null ? '-' : value.toFixed(3));

const CASES = [
  { name: 'saturated, plain', options: { connections: 64 } },
  {
    name: 'saturated, streams, 5 ms between tokens',
    options: { connections: 400, stream: true, tokens: 200, gapMs: 5 },
  },
  { name: 'saturated, 16 KB prompts', options: { connections: 64, promptBytes: 16_384 } },
  { name: 'moderate, plain', options: { connections: 16, paceMs: 20 } },
  {
    name: 'moderate, streams, 10 ms between tokens',
    options: { connections: 32, stream: true, tokens: 50, gapMs: 10 },
  },
];

try {
  const replicas = Array.from({ length: Number(values.replicas) }, () => start([join(here, 'null_replica.mjs')]));
  const ports = await Promise.all(replicas.map(async (child) => (await firstLine(child)).port));
  const prof = values.prof === undefined ? [] : ['--cpu-prof', `--cpu-prof-dir=${values.prof}`];
  const flags = ['--control', join(folder, 'control'), '--table', join(folder, 'table.json')];
  const gateway = start([...prof, main, ...flags]);
  const { port } = await firstLine(gateway);
  await control('PUT', '/table', tableOf(ports));
  await load({ port, connections: 32, seconds: 1 });
  for (const { name, options } of CASES) {
    const direct = await load({ port: ports[0], ...options });
    const before = cpuMs(gateway.pid);
    const through = await load({ port, ...options });
    const cpu = cpuMs(gateway.pid) - before;
    const unit = options.stream ? through.events : through.requests;
    console.log(`${name}: ${options.connections} connections`);
    console.log(
      `  through: ${(through.requests / through.seconds).toFixed(0)} requests/s, ${(through.events / through.seconds).toFixed(0)} events/s, errors ${through.errors}`,
    );
    console.log(
      `  gateway CPU: ${((1000 * cpu) / unit).toFixed(1)} us a ${options.stream ? 'event' : 'request'}, ${((100 * cpu) / 1000 / through.seconds).toFixed(0)} % of a core; a full core: ${((1000 * unit) / cpu).toFixed(0)}/s`,
    );
    for (const what of options.stream ? ['firstByteMs'] : ['latencyMs']) {
      const added = (q) => round(through[what][q] - direct[what][q]);
      console.log(
        `  ${what}: direct p50 ${round(direct[what].p50)} p99 ${round(direct[what].p99)}, through p50 ${round(through[what].p50)} p99 ${round(through[what].p99)}, added p50 ${added('p50')} p99 ${added('p99')}`,
      );
    }
  }
  await control('POST', '/drain', { timeoutMs: 1000 });
  await new Promise((resolve) => gateway.once('close', resolve));
} finally {
  for (const child of children) child.kill('SIGKILL');
  rmSync(folder, { recursive: true, force: true });
}
