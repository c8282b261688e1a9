/**
 * Builds the native kernels with CMake. Plain JavaScript without dependencies: it runs before anything is compiled.
 *
 *   node native/build.mjs                    the addon: build/Release/tokenmill.node; does nothing when it is current
 *   node native/build.mjs --test             builds and runs the native tests
 *   node native/build.mjs --test --asan      the same under the address and undefined-behaviour sanitizers
 *   node native/build.mjs --test --tsan      the same under the thread sanitizer
 *   node native/build.mjs --test --aarch64   cross-compiles for arm64 and runs under qemu-aarch64
 */
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const NATIVE = fileURLToPath(new URL('.', import.meta.url));
const ROOT = join(NATIVE, '..');
const ADDON = join(ROOT, 'build', 'Release', 'tokenmill.node');

const options = new Set(process.argv.slice(2));
const KNOWN = ['--test', '--asan', '--tsan', '--aarch64'];

/** Last line of a test program. */
const COUNTS = /^(\d+) passed, (\d+) failed\n/m;

function fail(message) {
  process.stderr.write(`native: ${message}\n`);
  process.exit(1);
}

function works(command) {
  return spawnSync(command, ['--version'], { stdio: 'ignore' }).status === 0;
}

/** What is missing on this machine, as one sentence with the cure; null when nothing is. */
function missingTools(compiler) {
  const missing = [];
  if (!works('cmake')) missing.push('cmake');
  if (compiler === null || !works(compiler))
    missing.push(compiler === 'aarch64-linux-gnu-g++' ? 'g++-aarch64-linux-gnu' : 'g++');
  if (!works('make') && !works('ninja')) missing.push('make');
  if (options.has('--aarch64') && !works('qemu-aarch64')) missing.push('qemu-user');
  if (missing.length === 0) return null;
  const cure =
    process.platform === 'darwin'
      ? 'Install them with `xcode-select --install` and `brew install cmake`'
      : `Install them with \`apt-get install ${missing.join(' ')}\` (or your system's equivalent)`;
  return `building the kernels needs ${missing.join(' and ')}. ${cure}, then run the command again.`;
}

function findCompiler() {
  if (options.has('--aarch64')) return 'aarch64-linux-gnu-g++';
  const candidates = [process.env['CXX'], 'g++', 'clang++', 'c++'].filter((name) => name !== undefined && name !== '');
  return candidates.find(works) ?? null;
}

function listSources(folder) {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) return entry.name === 'build' ? [] : listSources(path);
    return /\.(cc|h|txt|mjs)$/.test(entry.name) ? [path] : [];
  });
}

/** Changes when a source comes, goes or is written. */
function fingerprint() {
  const hash = createHash('sha256');
  for (const file of listSources(NATIVE).sort()) {
    const { size, mtimeMs } = statSync(file);
    hash.update(`${file}\0${size}\0${mtimeMs}\n`);
  }
  return hash.digest('hex');
}

/** Runs a command with a progress line of its `[ 42%]` marks; ends the process with its output when it fails. */
async function step(title, command, args, cwd) {
  const live = process.stderr.isTTY === true;
  const child = spawn(command, args, { cwd, stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  const take = (chunk) => {
    output += chunk;
    const percent = [...String(chunk).matchAll(/^\[\s*(\d+)%\]/gm)].at(-1);
    if (percent && live) process.stderr.write(`\rnative: ${title} ${percent[1]}%  `);
    else if (percent) process.stdout.write(`native: ${title} ${percent[1]}%\n`);
  };
  child.stdout.on('data', take);
  child.stderr.on('data', take);
  const code = await new Promise((resolve) => {
    child.on('error', () => resolve(127));
    child.on('close', (status) => resolve(status ?? 1));
  });
  if (live) process.stderr.write('\r\x1b[K');
  if (code !== 0) fail(`${title} failed:\n${output}`);
}

async function build(variant, target, definitions, compiler) {
  const folder = join(NATIVE, 'build', variant);
  mkdirSync(folder, { recursive: true });
  const settings = Object.entries({ CMAKE_CXX_COMPILER: compiler, ...definitions }).map(
    ([key, value]) => `-D${key}=${value}`,
  );
  await step('configuring', 'cmake', ['-S', NATIVE, '-B', folder, ...settings], ROOT);
  await step(
    'compiling',
    'cmake',
    ['--build', folder, '--target', target, '--parallel', String(availableParallelism())],
    ROOT,
  );
  return folder;
}

async function buildAddon(compiler) {
  const stamp = join(NATIVE, 'build', 'addon.stamp');
  const wanted = fingerprint();
  if (existsSync(ADDON) && existsSync(stamp) && readFileSync(stamp, 'utf8') === wanted) return;
  const missing = missingTools(compiler());
  if (missing) fail(missing);
  if (!existsSync(join(ROOT, 'node_modules', 'node-addon-api'))) fail('node_modules is missing. Run `npm ci` first.');
  const folder = await build('release', 'addon', { MILL_TESTS: 'OFF' }, compiler());
  mkdirSync(join(ROOT, 'build', 'Release'), { recursive: true });
  // A running process keeps the old file; writing into it would crash that process.
  copyFileSync(join(folder, 'tokenmill.node'), `${ADDON}.new`);
  renameSync(`${ADDON}.new`, ADDON);
  writeFileSync(stamp, wanted);
}

/** The reference backend's numbers for the op table; the writer is compiled on its own, from TypeScript. */
function writeOpCases() {
  const node = (...args) => spawnSync(process.execPath, args, { stdio: ['ignore', 'inherit', 'inherit'] }).status;
  const cases = join(ROOT, 'build', 'op_cases.bin');
  node(join(ROOT, 'node_modules', 'typescript', 'bin', 'tsc'), '-p', join(NATIVE, 'test', 'tsconfig.json'));
  const written = node(join(ROOT, 'build', 'op_cases', 'scripts', 'write_op_cases.js'), cases) === 0;
  if (!written) fail('the op cases could not be written; see above.');
  return cases;
}

async function runTests(compiler) {
  const missing = missingTools(compiler());
  if (missing) fail(missing);
  const sanitize = options.has('--asan') ? 'address,undefined' : options.has('--tsan') ? 'thread' : '';
  const variant = `test${[...options].filter((name) => name !== '--test').join('')}`;
  const cross = options.has('--aarch64') ? { CMAKE_SYSTEM_NAME: 'Linux', CMAKE_SYSTEM_PROCESSOR: 'aarch64' } : {};
  const folder = await build(
    variant,
    'native_test',
    { MILL_TESTS: 'ON', MILL_ADDON: 'OFF', MILL_SANITIZE: sanitize, ...cross },
    compiler(),
  );
  const cases = writeOpCases();
  const test = [join(folder, 'native_test'), cases];
  await runAll(options.has('--aarch64') ? emulated(test) : shardsOf(test));
}

/** The tests in several processes, each with its part of them; under emulation one core takes minutes. */
function shardsOf(command) {
  const shards = availableParallelism();
  return Array.from({ length: shards }, (_, shard) => [...command, String(shard), String(shards)]);
}

/** All tests on a processor that has everything, and the op cases of each lesser level on one that has no more than it. */
function emulated(test) {
  const qemu = (cpu) => ['qemu-aarch64', '-cpu', cpu, '-L', '/usr/aarch64-linux-gnu', ...test];
  return [
    ...shardsOf(qemu('max')),
    [...qemu('cortex-a57'), '0', '1', ' neon'],
    [...qemu('cortex-a76'), '0', '1', ' neon_dotprod'],
  ];
}

/** Runs test programs at once, prints what they say and the sum of their counts. */
async function runAll(commands) {
  const results = await Promise.all(commands.map(([command, ...args]) => runOne(command, args)));
  const total = (index) => results.reduce((sum, { output }) => sum + Number(COUNTS.exec(output)?.[index] ?? 0), 0);
  // One that crashed before it could count is a failure too.
  const crashed = results.filter(({ output }) => !COUNTS.test(output)).length;
  for (const { output } of results) process.stdout.write(output.replace(COUNTS, ''));
  process.stdout.write(`${total(1)} passed, ${total(2) + crashed} failed\n`);
  process.exitCode = results.every(({ code }) => code === 0) ? 0 : 1;
}

function runOne(command, args) {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  let output = '';
  child.stdout.on('data', (chunk) => {
    output += chunk;
  });
  return new Promise((resolve) => {
    child.on('error', (error) => resolve({ code: 127, output: `${error.message}\n` }));
    child.on('close', (code) => resolve({ code: code ?? 1, output }));
  });
}

const unknown = [...options].find((name) => !KNOWN.includes(name));
if (unknown !== undefined) fail(`unknown option ${unknown}; known: ${KNOWN.join(', ')}.`);
if (options.has('--test')) await runTests(findCompiler);
else await buildAddon(findCompiler);
