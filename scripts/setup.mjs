/**
 * What a clone needs before anything of it can run: packages, compiled and bundled TypeScript, native kernels. Does only what is
 * missing, and finds out in milliseconds that nothing is. Plain JavaScript without dependencies: nothing is installed yet.
 *
 *   node scripts/setup.mjs          bring everything up to date
 *   node scripts/setup.mjs --check  exit code 1 when something is out of date, change nothing
 */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

export const ROOT = fileURLToPath(new URL('..', import.meta.url));
const STAMPS = join(ROOT, '.cache', 'setup');
/** What `npm start` and `npm run tokenmill` run; see bundle.mjs. */
export const BUNDLE = join(ROOT, '.cache', 'bundle');

/** A stage that cannot go on; the message says the cause and the cure. */
export class SetupError extends Error {}

/** All files below `folder` for which `keep(name)` holds, sorted; folders named in `skip` are not entered. */
export function listFiles(folder, keep, skip = []) {
  if (!existsSync(folder)) return [];
  const found = [];
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) {
      if (!skip.includes(entry.name)) found.push(...listFiles(path, keep, skip));
    } else if (keep(entry.name)) found.push(path);
  }
  return found.sort();
}

/** Changes when a file comes, goes, or is written. Names, sizes and times only: reading is left to the compilers. */
function fingerprint(files) {
  const hash = createHash('sha256').update(process.version);
  for (const file of files) {
    const { size, mtimeMs } = statSync(file);
    hash.update(`${relative(ROOT, file)}\0${size}\0${mtimeMs}\n`);
  }
  return hash.digest('hex');
}

function readStamp(name) {
  try {
    return JSON.parse(readFileSync(join(STAMPS, `${name}.json`), 'utf8'));
  } catch {
    return null;
  }
}

function writeStamp(name, stamp) {
  mkdirSync(STAMPS, { recursive: true });
  writeFileSync(join(STAMPS, `${name}.json`), JSON.stringify(stamp));
}

/**
 * Runs a command; resolves to its exit code and output. `onLine` sees each line as it comes.
 * A command that does not exist gives code 127.
 */
export function run(command, args, { cwd = ROOT, env = process.env, onLine = null, inherit = false } = {}) {
  return new Promise((resolve) => {
    const child = spawn(command, args, { cwd, env, stdio: inherit ? 'inherit' : ['ignore', 'pipe', 'pipe'] });
    let output = '';
    let partial = '';
    const take = (chunk) => {
      output += chunk;
      if (onLine === null) return;
      const lines = (partial + chunk).split('\n');
      partial = lines.pop() ?? '';
      for (const line of lines) onLine(line);
    };
    child.stdout?.setEncoding('utf8').on('data', take);
    child.stderr?.setEncoding('utf8').on('data', take);
    child.on('error', (error) => resolve({ code: 127, output: `${output}${error.message}\n` }));
    child.on('close', (code, signal) => {
      if (onLine !== null && partial !== '') onLine(partial);
      resolve({ code: signal === null ? code : 128, output });
    });
  });
}

/** Every package of the lock file is installed in its version. Optional ones may be absent: npm chooses them by machine. */
function packagesCurrent() {
  try {
    const wanted = JSON.parse(readFileSync(join(ROOT, 'package-lock.json'), 'utf8')).packages;
    const installed = JSON.parse(readFileSync(join(ROOT, 'node_modules', '.package-lock.json'), 'utf8')).packages;
    return Object.entries(wanted).every(
      ([path, entry]) =>
        path === '' || entry.optional || entry.devOptional || installed[path]?.version === entry.version,
    );
  } catch {
    return false;
  }
}

async function installPackages() {
  const npm = process.env['npm_execpath'];
  const args = ['ci', '--no-audit', '--no-fund', '--loglevel=error'];
  const result = npm?.endsWith('.js') ? await run(process.execPath, [npm, ...args]) : await run('npm', args);
  if (result.code === 0) return;
  const offline = /ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ETIMEDOUT|ENETUNREACH|network/.test(result.output);
  const cure = offline
    ? 'The package registry cannot be reached. Connect this machine (or set `npm config set registry` and `proxy`) and run the command again.'
    : 'Read the lines above, then run `npm ci` by hand to see more.';
  throw new SetupError(`${result.output.trim()}\n\nInstalling packages failed. ${cure}`);
}

const sourceFiles = () => [
  ...listFiles(join(ROOT, 'src'), (name) => /\.(ts|json)$/.test(name) && !name.endsWith('.test.ts'), ['testdata']),
  join(ROOT, 'tsconfig.json'),
  join(ROOT, 'tsconfig.build.json'),
  join(ROOT, 'package-lock.json'),
  join(ROOT, 'scripts', 'bundle.mjs'),
];

function typescriptCurrent() {
  return (
    existsSync(join(ROOT, 'dist', 'cli', 'main.js')) &&
    existsSync(join(BUNDLE, 'main.js')) &&
    readStamp('typescript')?.fingerprint === fingerprint(sourceFiles())
  );
}

/** Outputs whose source is gone would keep working from `dist` and hide the mistake. */
function removeStaleOutputs() {
  const dist = join(ROOT, 'dist');
  for (const file of listFiles(dist, (name) => /\.(js|d\.ts|js\.map)$/.test(name))) {
    const source = relative(dist, file).replace(/\.(js\.map|d\.ts|js)$/, '.ts');
    if (!existsSync(join(ROOT, 'src', source))) rmSync(file);
  }
}

async function buildTypescript() {
  const before = fingerprint(sourceFiles());
  const tsc = join(ROOT, 'node_modules', 'typescript', 'bin', 'tsc');
  const result = await run(process.execPath, [tsc, '-p', 'tsconfig.build.json']);
  removeStaleOutputs();
  if (result.code !== 0) throw new SetupError(`${result.output.trim()}\n\nThe TypeScript sources do not compile.`);
  const bundled = await run(process.execPath, [join('scripts', 'bundle.mjs')]);
  if (bundled.code !== 0) throw new SetupError(`${bundled.output.trim()}\n\nThe compiled sources were not bundled.`);
  writeStamp('typescript', { fingerprint: before });
}

const nativeFiles = () => listFiles(join(ROOT, 'native'), (name) => /\.(cc|h|mjs|txt)$/.test(name), ['build', 'test']);

/** Where native/build.mjs leaves the addon and where src/backends/cpu looks first. */
export const ADDON = join(ROOT, 'build', 'Release', 'tokenmill.node');

function nativeCurrent() {
  return existsSync(ADDON) && readStamp('native')?.fingerprint === fingerprint(nativeFiles());
}

async function buildNative(report) {
  const before = fingerprint(nativeFiles());
  // Its progress marks only: what a failed compiler says is printed once, at the end.
  let shown = -1;
  const onLine = (line) => {
    const percent = Number(/(\d+)%$/.exec(line)?.[1] ?? Number.NaN);
    if (percent > shown && (process.stderr.isTTY || percent >= shown + 10)) {
      shown = percent;
      report(line);
    }
  };
  const result = await run(process.execPath, [join('native', 'build.mjs')], { onLine });
  if (result.code !== 0) throw new SetupError(`${result.output.trim()}\n\nThe native kernels were not built.`);
  writeStamp('native', { fingerprint: before });
}

const STAGES = [
  { name: 'packages', doing: 'installing packages (npm ci)', current: packagesCurrent, make: installPackages },
  { name: 'typescript', doing: 'compiling TypeScript', current: typescriptCurrent, make: buildTypescript },
  { name: 'native', doing: 'compiling the native kernels', current: nativeCurrent, make: buildNative },
];

/** The oldest Node that package.json allows, as [major, minor, patch]. */
function oldestNode() {
  const { engines } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'));
  return engines.node.replace('>=', '').split('.').map(Number);
}

export function checkNode(version = process.versions.node) {
  const oldest = oldestNode();
  const actual = version.split('.').map((part) => Number.parseInt(part, 10));
  const differs = actual.findIndex((part, index) => part !== oldest[index]);
  if (differs === -1 || actual[differs] > oldest[differs]) return;
  throw new SetupError(
    `Tokenmill needs Node.js ${oldest.join('.')} or newer; this is ${version}. Install a current one from https://nodejs.org and run the command again.`,
  );
}

async function runStage(stage) {
  const start = performance.now();
  const live = process.stderr.isTTY === true;
  const say = (text) => process.stderr.write(live ? `\r\x1b[K${text}` : `${text}\n`);
  say(`setup: ${stage.doing} ...`);
  try {
    await stage.make((line) => {
      say(live ? `setup: ${stage.doing} ... ${line.slice(0, 60)}` : `  ${line}`);
    });
  } finally {
    if (live) process.stderr.write('\r\x1b[K');
  }
  process.stderr.write(`setup: ${stage.doing}: ${((performance.now() - start) / 1000).toFixed(1)} s\n`);
}

/** Brings the clone up to date; returns the names of the stages that had something to do. */
export async function setup() {
  checkNode();
  const made = [];
  for (const stage of STAGES) {
    if (stage.current()) continue;
    await runStage(stage);
    made.push(stage.name);
  }
  return made;
}

/** As {@link setup} for a script's main line: a failure is printed without a stack and ends the process. */
export async function setupOrExit() {
  try {
    return await setup();
  } catch (error) {
    if (!(error instanceof SetupError)) throw error;
    process.stderr.write(`${error.message}\n`);
    process.exit(1);
  }
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  if (process.argv.includes('--check')) {
    const stale = STAGES.filter((stage) => !stage.current()).map((stage) => stage.name);
    process.stdout.write(stale.length === 0 ? 'up to date\n' : `out of date: ${stale.join(', ')}\n`);
    process.exitCode = stale.length === 0 ? 0 : 1;
  } else {
    const made = await setupOrExit();
    if (made.length === 0) process.stderr.write('setup: up to date\n');
  }
}
