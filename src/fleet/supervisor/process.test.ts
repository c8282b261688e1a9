import { type ChildProcess, spawn } from 'node:child_process';
import { appendFileSync, closeSync, existsSync, mkdtempSync, readFileSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import {
  FLEET_VARIABLE,
  findMembers,
  identify,
  isAlive,
  MEMBER_VARIABLE,
  parseStat,
  signalProcess,
} from './process_identity.ts';
import { chooseCpus, serveArgs, serveEnv, spawnDetached, withNames } from './replica_process.ts';
import { openLog, readLog, rotateLog, tailLog } from './rotated_log.ts';
import { template } from './testdata/fleet.ts';

const scratch = mkdtempSync(join(tmpdir(), 'tokenmill-fleet-'));
afterAll(() => rmSync(scratch, { recursive: true }));

const ended = (child: ChildProcess) => new Promise((resolve) => child.once('exit', resolve));

test('a process is known by its start time as well, so another one with its number is not signalled', async () => {
  const child = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)']);
  const identity = identify(child.pid as number);
  if (identity === null) throw new Error('not found');
  expect(isAlive(identity)).toBe(true);
  const namesake = { ...identity, startTime: `${identity.startTime}0` };
  expect([isAlive(namesake), signalProcess(namesake, 'SIGKILL')]).toEqual([false, false]);
  expect(isAlive(identity)).toBe(true);
  expect(signalProcess(identity, 'SIGKILL')).toBe(true);
  await ended(child);
  expect([isAlive(identity), signalProcess(identity, 'SIGTERM')]).toEqual([false, false]);
});

test('the name in a stat line may hold anything', () => {
  const rest = Array.from({ length: 48 }, (_, i) => String(i + 4)).join(' ');
  expect(parseStat(`12 (a) S (b c) R ${rest}`)).toEqual({ state: 'R', session: 6, startTicks: '22' });
  expect(parseStat('12 (a')).toBeNull();
});

test('a detached process is found by its mark, and its end is told', async () => {
  const log = join(scratch, 'member.log');
  const env = { ...process.env, [FLEET_VARIABLE]: scratch, [MEMBER_VARIABLE]: 'm-1-a' };
  const started = spawnDetached(
    [process.execPath, '-e', 'console.log("hello"); setTimeout(() => process.exit(3), 400)'],
    env,
    log,
  );
  expect(findMembers(scratch)).toEqual(new Map([['m-1-a', started?.process]]));
  expect(await started?.ended).toBe('exit code 3');
  expect(readFileSync(log, 'utf8')).toBe('hello\n');
  expect(findMembers(scratch).size).toBe(0);
});

test('what the template says wins over what we add, other than the address', () => {
  const quiet = ['--disable-access-log-for-endpoints', '/health,/livez,/ready,/readyz,/metrics'];
  const address = ['--host', '127.0.0.1', '--port', '4000'];
  expect(serveArgs(withNames(template(), ['m', 'n']), 4000)).toEqual(
    ['serve', 'tokenmill-tiny', '--served-model-name', 'm', 'n', quiet, '--shutdown-timeout', '23', address].flat(),
  );
  const args = ['--served_model_name=q', '--shutdown-timeout', '5', '--disable-access-log'];
  const own = template({ model: '/models/x', args, env: { A: 'b' } });
  expect(serveArgs(withNames(own, ['m']), 4000)).toEqual(['serve', '/models/x', ...args, ...address]);
  const env = serveEnv(own, {
    PATH: '/bin',
    TOKENMILL_PORT: '9',
    TOKENMILL_API_KEY: 'k',
    VLLM_API_KEY: 'k',
    HF_TOKEN: 't',
  });
  expect(env).toEqual({ PATH: '/bin', HF_TOKEN: 't', A: 'b' });
});

test('CPUs go to those who have the fewest neighbours', () => {
  expect(chooseCpus([0, 1, 2, 3], [[0, 1], null], 2000)).toEqual([2, 3]);
  expect(chooseCpus([0, 1, 2, 3], [[0, 1], [2]], 1500)).toEqual([0, 3]);
  expect(chooseCpus([0, 1], [], null)).toBeNull();
  expect(chooseCpus([0, 1], [], 2000)).toBeNull();
});

test('a log stays within its bounds while its writer goes on', () => {
  const path = join(scratch, 'x.log');
  const bounds = { maxBytes: 100, maxParts: 2 };
  const writer = openLog(path);
  for (let i = 0; i < 50; i++) {
    writeSync(writer, `line ${i} ${'x'.repeat(20)}\n`);
    rotateLog(path, bounds);
  }
  closeSync(writer);
  const sizes = [path, `${path}.1`, `${path}.2`].map((file) => readFileSync(file).length);
  expect(Math.max(...sizes)).toBeLessThan(200);
  expect(existsSync(`${path}.3`)).toBe(false);
  const text = [`${path}.2`, `${path}.1`, path].map((file) => readFileSync(file, 'utf8')).join('');
  expect(text.trim().split('\n').at(-1)).toMatch(/^line 49 /);
});

test('the end of a log, and what comes after', () => {
  const path = join(scratch, 'y.log');
  appendFileSync(path, 'a\nb\nc\n');
  const tail = tailLog(path, 2);
  expect(tail).toEqual({ text: 'b\nc\n', end: 6 });
  expect(readLog(path, tail.end, 100)).toEqual({ text: '', end: 6 });
  appendFileSync(path, 'd\n');
  expect(readLog(path, tail.end, 100)).toEqual({ text: 'd\n', end: 8 });
  expect(readLog(path, 1000, 100)).toEqual({ text: 'a\nb\nc\nd\n', end: 8 });
  expect(tailLog(join(scratch, 'absent.log'), 5)).toEqual({ text: '', end: 0 });
});
