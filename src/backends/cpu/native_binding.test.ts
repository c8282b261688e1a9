import { execFileSync, spawnSync } from 'node:child_process';
import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { AssertionError } from '../../base/assert.ts';
import { TokenmillError } from '../../base/errors.ts';
import { cpuMeasurements, createCpuBackend } from './cpu_backend.ts';
import { loadNative, native } from './native_binding.ts';

const BINARY = fileURLToPath(new URL('../../../build/Release/tokenmill.node', import.meta.url));

let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tokenmill-native-'));
  vi.stubEnv('XDG_CACHE_HOME', folder);
  vi.resetModules();
});

afterEach(() => {
  vi.unstubAllEnvs();
  rmSync(folder, { recursive: true });
});

async function loadFresh() {
  return (await import('./native_binding.ts')).loadNative();
}

test('an explicit path that does not exist is refused with the cure', async () => {
  vi.stubEnv('TOKENMILL_NATIVE', join(folder, 'absent.node'));
  await expect(loadFresh()).rejects.toMatchObject({
    code: 'native_missing',
    message: expect.stringContaining('node native/build.mjs'),
  });
});

test('a broken binary is refused without taking the process down', async () => {
  const broken = join(folder, 'broken.node');
  writeFileSync(broken, 'not a library');
  vi.stubEnv('TOKENMILL_NATIVE', broken);
  await expect(loadFresh()).rejects.toMatchObject({ code: 'native_missing', message: expect.stringContaining(broken) });
});

test('an explicit binary is loaded once it worked in a child process', async () => {
  const copy = join(folder, 'copy.node');
  copyFileSync(BINARY, copy);
  vi.stubEnv('TOKENMILL_NATIVE', copy);
  expect((await loadFresh()).isaLevels(false)).toEqual(loadNative().isaLevels(false));
});

test('a forced ISA level that is not there is refused, naming those that are', () => {
  const backend = createCpuBackend();
  vi.stubEnv('TOKENMILL_ISA', 'sve9');
  const run = () =>
    backend.runOp({
      op: 'add',
      attrs: {},
      sizes: { T: 1, S: 1, R: 1 },
      inputs: [Float32Array.of(1), Float32Array.of(2)],
      inputShapes: [
        [1, 1],
        [1, 1],
      ],
      outputShapes: [[1, 1]],
      weightDType: 'float32',
      quantization: 'none',
      kv: null,
      threads: 1,
      repeat: 0,
    });
  expect(run).toThrow(backend.isaLevels[0] as string);
  vi.stubEnv('TOKENMILL_ISA', '');
  expect([...(run().outputs[0] as Float32Array)]).toEqual([3]);
});

test('emulated levels are for tests that ask for them', () => {
  vi.stubEnv('TOKENMILL_TEST_EMULATED', '');
  expect(createCpuBackend().isaLevels.filter((level) => level.endsWith('_emulated'))).toEqual([]);
  vi.stubEnv('TOKENMILL_TEST_EMULATED', '1');
  const { isaLevels } = createCpuBackend();
  expect(isaLevels).toContain('amx_emulated');
  expect(isaLevels[0]).not.toMatch(/_emulated$/);
});

test('the binary needs no C++ runtime of the system', () => {
  const tool = spawnSync('objdump', ['-p', BINARY], { encoding: 'utf8' });
  if (tool.status !== 0) return;
  const libraries = [...tool.stdout.matchAll(/NEEDED\s+(\S+)/g)].map((match) => match[1]);
  expect(libraries).not.toContain('libstdc++.so.6');
  expect(libraries).not.toContain('libgcc_s.so.1');
});

test('several threads load the addon, each with its own models', async () => {
  const script = `const { parentPort } = require('node:worker_threads');
    parentPort.postMessage(require(${JSON.stringify(BINARY)}).isaLevels(false));`;
  const answers = await Promise.all(
    Array.from({ length: 3 }, () => {
      const worker = new Worker(script, { eval: true });
      return new Promise((resolve, reject) => {
        worker.once('message', resolve);
        worker.once('error', reject);
      });
    }),
  );
  for (const levels of answers) expect(levels).toEqual(loadNative().isaLevels(false));
});

test('native errors become ours', () => {
  const coded = (code: string) => () => {
    throw Object.assign(new Error('cause'), { code });
  };
  expect(() => native(coded('assertion'))).toThrow(AssertionError);
  expect(() => native(coded('weights_invalid'))).toThrow(TokenmillError);
  expect(() => native(coded('ENOENT'))).toThrow('cause');
});

test('arguments of the wrong kind throw and never crash', () => {
  const script = `const { Model } = require(process.argv[1]);
    const tries = [[], [null], [{}], [{ isa: 'avx2' }], [{ isa: 1 }], [{ isa: 'avx2', threads: 1e9 }],
      [{ isa: 'avx2', threads: 1, values: new Float64Array(3), calls: [], kv: {}, limits: {} }],
      [{ isa: 'avx2', threads: NaN, values: 'x' }]];
    let thrown = 0;
    for (const args of tries) try { new Model(...args); } catch { thrown++; }
    if (thrown !== tries.length) process.exit(3);
    for (const name of Object.getOwnPropertyNames(Model.prototype)) {
      if (name === 'constructor' || name === 'close') continue;
      try { Model.prototype[name].call({}); process.exit(4); } catch {}
    }`;
  execFileSync(process.execPath, ['-e', script, BINARY]);
});

test('the machine is described and measured', () => {
  const { cpu, peak, team } = cpuMeasurements(1, []);
  expect(cpu.features.length).toBeGreaterThan(0);
  const alone = { threads: 1, places: [], ownsThread: false };
  const level = createCpuBackend().isaLevels[0] as string;
  for (const kind of ['fp32', 'bf16', 'int8'] as const) expect(peak(level, kind)).toBeGreaterThan(0.1);
  expect(createRequire(import.meta.url)(BINARY).measureBandwidth(alone, 2 ** 24)).toBeGreaterThan(0.1);
  expect(team()).toEqual({ barrierUs: expect.any(Number), runUs: expect.any(Number), wakeUs: expect.any(Number) });
});
