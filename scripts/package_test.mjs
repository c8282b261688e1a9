/**
 * The package as a user meets it: packed, installed into an empty folder, imported, type-checked, served, asked. What is
 * tested is only what the tarballs hold.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { pack } from './pack.mjs';
import { listFiles, ROOT, run, setupOrExit } from './setup.mjs';

const MAX_INSTALLED_BYTES = 60e6;
const SERVE_TIMEOUT_MS = 60_000;

async function step(name, work) {
  const start = performance.now();
  const note = await work();
  const seconds = ((performance.now() - start) / 1000).toFixed(1);
  process.stdout.write(`package: ${name}${note === undefined ? '' : ` (${note})`} ${seconds} s\n`);
}

async function must(command, args, options) {
  const { code, output } = await run(command, args, options);
  assert.equal(code, 0, `${command} ${args.join(' ')} failed:\n${output}`);
  return output;
}

function installedBytes(folder) {
  return listFiles(folder, () => true).reduce((sum, file) => sum + statSync(file).size, 0);
}

/** Nothing of what a user pulls in refuses this Node or runs a script. */
async function install(folder, tarballs) {
  writeFileSync(join(folder, 'package.json'), '{ "private": true, "type": "module" }\n');
  const output = await must('npm', ['install', '--no-audit', '--no-fund', '--engine-strict', ...tarballs], {
    cwd: folder,
  });
  assert.doesNotMatch(output, /EBADENGINE|install script|deprecated/i);
  const lock = JSON.parse(readFileSync(join(folder, 'node_modules', '.package-lock.json'), 'utf8'));
  const scripted = Object.entries(lock.packages).filter(([, entry]) => entry.hasInstallScript);
  assert.deepEqual(scripted, [], 'a package runs a script when it is installed');
  const bytes = installedBytes(join(folder, 'node_modules'));
  assert.ok(bytes < MAX_INSTALLED_BYTES, `${bytes} bytes installed; the limit is ${MAX_INSTALLED_BYTES}`);
  return `${Object.keys(lock.packages).length} packages, ${(bytes / 1e6).toFixed(1)} MB`;
}

const LIBRARY = `
import { LLM } from 'tokenmill';
const llm = await LLM.load();
const { text, outputs } = await llm.generate('Once upon a time', { temperature: 0, maxTokens: 12 });
console.log(JSON.stringify({ backend: llm.plan.backend, isa: llm.plan.isa, text, tokens: outputs[0].tokenIds.length }));
await llm.close();
`;

async function useLibrary(folder) {
  writeFileSync(join(folder, 'library.mjs'), LIBRARY);
  const output = await must(process.execPath, ['library.mjs'], { cwd: folder });
  const answer = JSON.parse(output.trim().split('\n').at(-1));
  assert.equal(answer.backend, 'cpu');
  assert.equal(answer.tokens, 12);
  assert.ok(answer.text.length > 12, answer.text);
  return answer.isa;
}

const TYPED = `
import { LLM, type SamplingParams } from 'tokenmill';
const params: SamplingParams = { temperature: 0, maxTokens: 4 };
export async function answer(): Promise<string> {
  const llm = await LLM.load();
  const output = await llm.generate('Hi', params);
  await llm.close();
  return output.text;
}
// @ts-expect-error: a field that does not exist
export const wrong: SamplingParams = { temprature: 0 };
`;

async function checkTypes(folder) {
  mkdirSync(join(folder, 'typed'));
  writeFileSync(join(folder, 'typed', 'index.ts'), TYPED);
  const compilerOptions = {
    target: 'es2023',
    lib: ['es2023', 'esnext.disposable', 'dom'],
    module: 'nodenext',
    strict: true,
    noEmit: true,
    types: ['node'],
  };
  const typeRoots = [join(ROOT, 'node_modules', '@types')];
  const config = { compilerOptions: { ...compilerOptions, typeRoots, skipLibCheck: true }, include: ['index.ts'] };
  writeFileSync(join(folder, 'typed', 'tsconfig.json'), JSON.stringify(config));
  await must(process.execPath, [join(ROOT, 'node_modules', 'typescript', 'bin', 'tsc'), '-p', 'typed'], {
    cwd: folder,
  });
}

function freePort() {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.on('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

async function post(url, body) {
  const response = await fetch(url, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
  });
  const text = await response.text();
  assert.equal(response.status, 200, text);
  return JSON.parse(text);
}

async function untilReady(url, child, log) {
  const deadline = performance.now() + SERVE_TIMEOUT_MS;
  while (performance.now() < deadline) {
    assert.equal(child.exitCode, null, `the server ended:\n${log()}`);
    const ready = await fetch(`${url}/health`).then(
      (response) => response.ok,
      () => false,
    );
    if (ready) return;
    await sleep(50);
  }
  assert.fail(`the server was not ready after ${SERVE_TIMEOUT_MS} ms:\n${log()}`);
}

async function serve(folder) {
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const start = performance.now();
  const child = spawn('npx', ['--no-install', 'tokenmill', 'serve', '--port', String(port)], {
    cwd: folder,
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', (chunk) => (output += chunk));
  const ended = new Promise((resolve) => child.on('exit', resolve));
  try {
    await untilReady(url, child, () => output);
    const readyS = (performance.now() - start) / 1000;
    const completion = await post(`${url}/v1/completions`, {
      model: 'tokenmill-tiny',
      prompt: 'Once upon a time',
      max_tokens: 12,
      temperature: 0,
    });
    assert.equal(completion.usage.completion_tokens, 12);
    const messages = [{ role: 'user', content: 'What is the capital of France?' }];
    const chat = await post(`${url}/v1/chat/completions`, { model: 'tokenmill-tiny', messages, temperature: 0 });
    assert.match(chat.choices[0].message.content, /Paris/);
    return `ready after ${readyS.toFixed(1)} s`;
  } finally {
    // The whole group: npx is a process of its own in front of the server.
    if (child.exitCode === null) process.kill(-child.pid, 'SIGTERM');
    await ended;
  }
}

await setupOrExit();
const folder = mkdtempSync(join(tmpdir(), 'tokenmill-package-'));
try {
  let packed;
  await step('packed', async () => {
    packed = await pack();
    return packed.tarballs.map((file) => `${(statSync(file).size / 1e6).toFixed(1)} MB`).join(' + ');
  });
  await step('publint', async () => {
    await must(process.execPath, [
      join(ROOT, 'node_modules', 'publint', 'src', 'cli.js'),
      'run',
      packed.stage,
      '--strict',
    ]);
  });
  await step('installed', () => install(folder, packed.tarballs));
  await step('library', () => useLibrary(folder));
  await step('types', () => checkTypes(folder));
  await step('served', () => serve(folder));
} finally {
  rmSync(folder, { recursive: true, force: true });
}
