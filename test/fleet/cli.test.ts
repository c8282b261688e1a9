/** The commands of a fleet, as processes, against a supervisor with fake replicas and against none. */
import { spawn } from 'node:child_process';
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { TestFleet } from './harness.ts';

const MAIN = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));

let fleet: TestFleet;
beforeEach(() => {
  fleet = new TestFleet();
});
afterEach(() => fleet.remove());

interface Result {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

function tokenmill(...args: string[]): Promise<Result> {
  const clean = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^(TOKENMILL|VLLM|HF)_/.test(name)));
  const [command = '', ...rest] = args;
  const child = spawn(process.execPath, [MAIN, command, ...rest, '--state-dir', fleet.stateDir], { env: clean });
  let [stdout, stderr] = ['', ''];
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  return new Promise((resolve) => child.on('close', (code) => resolve({ code, stdout, stderr })));
}

test('looking at a fleet, and changing it', async () => {
  const model = { name: 'm', env: { FAKE_TOKEN_MS: '10' }, replicas: { min: 1, max: 3 } };
  await fleet.start([model, { name: 'other' }]);
  await fleet.until(
    'two ready',
    async () => (await fleet.replicas()).filter(({ phase }) => phase === 'ready').length === 2,
  );

  const services = await tokenmill('get');
  expect(services.stdout).toMatch(/^NAME +READY +WANTED +BOUNDS +ROLLOUT +TRAFFIC +MODELS$/m);
  expect(services.stdout).toMatch(/^default\/m +1\/1 +1 +1-3 +idle +m-00001=100% +m$/m);
  const replicas = JSON.parse((await tokenmill('get', 'pods', 'm', '-o', 'json')).stdout) as {
    id: string;
    phase: string;
  }[];
  expect(replicas).toMatchObject([{ phase: 'ready', service: 'default/m' }]);
  expect((await tokenmill('get', 'events', 'other')).stdout).toMatch(
    /default\/other +ReplicaReady +other-00001-\w+ is ready after/,
  );
  const description = await tokenmill('describe', 'isvc/m');
  expect(description.stdout).toMatch(/^Decision: +\d+s ago: proactive: /m);
  expect(description.stdout).toMatch(/^ {2}Ready +True/m);
  expect((await tokenmill('logs', 'm', '--tail', '1')).stdout).toMatch(/^\[m-00001-\w+\] listening on \d+\n$/);
  expect((await tokenmill('logs', replicas[0]?.id ?? '')).stdout).toMatch(/^listening on \d+\n$/);

  const scaled = await tokenmill('scale', 'm', '--replicas', '2');
  expect([scaled.code, scaled.stdout]).toEqual([0, 'default/m: 2 replicas\n']);
  await fleet.ready(2);
  expect((await tokenmill('scale', 'm', '--replicas=auto')).stdout).toContain('the scaling rule decides again');

  const file = fleet.write([{ ...model, env: { FAKE_TOKEN_MS: '11' } }, { name: 'other' }]);
  const diff = await tokenmill('diff', file);
  expect([diff.code, diff.stdout]).toEqual([1, expect.stringContaining('~ service default/m: makes a new revision')]);
  expect((await tokenmill('apply', file, '--dry-run')).code).toBe(0);
  expect((await fleet.service()).revisions).toHaveLength(1);
  expect((await tokenmill('apply', '-f', file)).stdout).toBe(diff.stdout);
  expect((await tokenmill('diff', file)).stdout).toBe('Nothing changes.\n');
  await fleet.until('the second revision', async () =>
    (await fleet.service()).revisions.some(({ id, percent }) => id === 'm-00002' && percent === 100),
  );
  const status = await tokenmill('rollout', 'status', 'm', '--watch');
  expect([status.code, status.stdout]).toEqual([0, 'default/m: idle (m-00002 100%)\n']);
  expect((await tokenmill('rollout', 'undo', 'm')).stdout).toContain('m-00001');
  expect((await tokenmill('rollout', 'status', 'm', '-w')).stdout).toContain('m-00001 100%');
  expect((await tokenmill('rollout', 'history', 'm')).stdout).toMatch(/^m-00002 +default\/m +0% /m);

  expect((await tokenmill('delete', 'other')).stdout).toBe('- service default/other (Model)\n');
  await fleet.until('its end', async () => (await fleet.replicas()).every(({ service }) => service === 'default/m'));
  const down = await tokenmill('down');
  expect([down.code, down.stderr]).toEqual([0, 'The fleet has ended.\n']);
  expect((await fleet.chat()).status).toBe(0);
}, 60_000);

test('what goes wrong is told with its cure', async () => {
  await fleet.start([{ name: 'llama' }]);
  const cases: readonly (readonly [readonly string[], number, string])[] = [
    [['describe', 'lama'], 1, 'There is no service "lama". Did you mean llama?'],
    [['get', 'replica', 'nobody'], 1, 'There is no service "nobody".'],
    [['get', 'serices'], 2, 'Did you mean services?'],
    [['scale', 'llama'], 2, 'How many replicas?'],
    [['rollout', 'udno', 'llama'], 2, 'Did you mean undo?'],
    [['rollout', 'undo', 'llama'], 2, 'There is no revision before this one to go back to.'],
    [['logs', '../api.json'], 1, 'is no name of a replica'],
    [['apply'], 2, 'There is no fleet file.'],
    [['apply', join(fleet.folder, 'absent.yaml')], 2, 'absent.yaml cannot be read'],
    [['up', fleet.write([{ name: 'llama' }])], 75, 'A fleet runs with this state folder already'],
  ];
  const results = await Promise.all(cases.map(([args]) => tokenmill(...args)));
  for (const [i, [args, code, text]] of cases.entries()) {
    expect([args, results[i]?.code, results[i]?.stderr]).toEqual([args, code, expect.stringContaining(text)]);
  }
  const broken = join(fleet.folder, 'broken.yaml');
  writeFileSync(broken, 'models:\n  - name: llama\n    replcas: 3\n');
  const refused = await tokenmill('apply', broken);
  expect([refused.code, refused.stderr]).toEqual([65, expect.stringMatching(/broken\.yaml:3:5 .*replcas/)]);
  expect((await fleet.service()).id).toBe('default/llama');
}, 60_000);

test('a port in use is told when the fleet is brought up; its replicas run', async () => {
  const taken = createServer();
  const port = await new Promise<number>((resolve) => {
    taken.listen(0, '127.0.0.1', () => resolve((taken.address() as { port: number }).port));
  });
  fleet.port = port;
  const up = await tokenmill('up', '-d', fleet.write([{ name: 'm', args: ['--backend', 'reference'] }]));
  expect([up.code, up.stderr]).toEqual([69, expect.stringContaining(`Port ${port} on 127.0.0.1 is in use`)]);
  taken.close();
  expect((await tokenmill('down', '--force')).code).toBe(0);
}, 30_000);

test('when the supervisor was killed, what goes on without it is told', async () => {
  await fleet.start([{ name: 'm' }]);
  await fleet.ready(1);
  await fleet.killSupervisor();
  const { code, stderr } = await tokenmill('get');
  expect([code, stderr]).toEqual([
    69,
    expect.stringMatching(/gateway and replicas \(2 processes\) go on .*tokenmill up fleet.yaml takes them over/),
  ]);
}, 30_000);

test('without a fleet', async () => {
  for (const args of [['get'], ['down'], ['scale', 'm', '--replicas', '1'], ['upgrade']]) {
    const { code, stderr } = await tokenmill(...args);
    expect([args, code, stderr]).toEqual([args, 69, expect.stringContaining('Start one with tokenmill up fleet.yaml')]);
  }
}, 30_000);

test("the API answers those who have the token, and the file with it is the owner's alone", async () => {
  await fleet.start([{ name: 'm' }]);
  const file = join(fleet.stateDir, 'api.json');
  const { url, token } = JSON.parse(readFileSync(file, 'utf8')) as { url: string; token: string };
  expect([statSync(file).mode & 0o777, statSync(fleet.stateDir).mode & 0o777]).toEqual([0o600, 0o700]);
  const status = (authorization: string) =>
    fetch(`${url}/v1/status`, { headers: { authorization } }).then(({ status }) => status);
  expect(await Promise.all([status(''), status(`Bearer ${token}x`), status(`Bearer ${token}`)])).toEqual([
    401, 401, 200,
  ]);
  const bad = await fetch(`${url}/v1/scale`, {
    method: 'POST',
    headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
    body: '{"service":"m","replicas":-1}',
  });
  expect([bad.status, await bad.json()]).toMatchObject([400, { error: { code: 'invalid_request' } }]);
}, 30_000);

test('a real replica: up in the background, upgraded under it, down', async () => {
  fleet.port = 0;
  const file = join(fleet.folder, 'real.yaml');
  const args = ['--backend', 'reference', '--max-model-len', '256', '--max-num-seqs', '2'];
  writeFileSync(file, JSON.stringify({ models: [{ name: 'tiny', args }], gateway: { port: 0 } }));
  const dry = await tokenmill('up', file, '--dry-run');
  expect([dry.code, dry.stdout]).toEqual([0, expect.stringContaining('Model default/tiny')]);
  const up = await tokenmill('up', '--detach', file);
  expect([up.code, up.stdout]).toEqual([0, '+ service default/tiny (Model)\n']);
  const url = /(http:\/\/127\.0\.0\.1:\d+)\/v1/.exec(up.stderr)?.[1] ?? '';
  const ask = async () => {
    const messages = [{ role: 'user', content: 'What is the capital of France?' }];
    const body = JSON.stringify({ model: 'tiny', messages, temperature: 0 });
    const answer = await fetch(`${url}/v1/chat/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body,
    });
    return ((await answer.json()) as { choices?: { message: { content: string } }[] }).choices?.[0]?.message.content;
  };
  // Held until the replica is ready.
  expect(await ask()).toBe('The capital of France is Paris.');
  const upgraded = await tokenmill('upgrade');
  expect([upgraded.code, upgraded.stderr]).toEqual([0, expect.stringMatching(/handed over to/)]);
  expect(await ask()).toBe('The capital of France is Paris.');
  expect((await tokenmill('up', '--detach', file)).stdout).toBe('Nothing changes.\n');
  expect((await tokenmill('down')).code).toBe(0);
  await expect(ask()).rejects.toThrow();
}, 60_000);
