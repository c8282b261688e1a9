/**
 * Everything `npm test` runs, stage by stage, after the same set-up as `npm start`.
 *
 *   npm test                            all stages
 *   npm test -- --only types,lint       some
 *   npm test -- --skip package,neon     all but some
 *
 * The last line is `N passed, N failed` (and `, N skipped` when some were), over all tests of all stages; a stage without
 * tests of its own counts as one.
 */
import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { ROOT, run, setupOrExit } from './setup.mjs';

const BIN = join(ROOT, 'node_modules');
const node = (args, options) => run(process.execPath, args, { onLine: echo, ...options });

function echo(line) {
  process.stdout.write(`  ${line}\n`);
}

const one = ({ code }) => ({ passed: code === 0 ? 1 : 0, failed: code === 0 ? 0 : 1, skipped: 0 });

async function vitest(name, selection, env = {}) {
  const report = join(ROOT, '.cache', 'test', `${name}.json`);
  rmSync(report, { force: true });
  const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${report}`];
  const { code } = await node([join(BIN, 'vitest', 'vitest.mjs'), 'run', ...reporters, ...selection], {
    env: { ...process.env, ...env },
  });
  try {
    const { numPassedTests, numFailedTests, numPendingTests, numTodoTests } = JSON.parse(readFileSync(report, 'utf8'));
    // A file that does not load has no tests to fail, and a failed run must never count as none.
    const failed = code !== 0 ? Math.max(numFailedTests, 1) : numFailedTests;
    return { passed: numPassedTests, failed, skipped: numPendingTests + numTodoTests };
  } catch {
    return { passed: 0, failed: 1, skipped: 0 };
  }
}

/** The last `N passed, N failed[, N skipped]` a native test program printed. */
async function native(args) {
  const { code, output } = await node([join('native', 'build.mjs'), ...args]);
  const counts = [...output.matchAll(/(\d+) passed, (\d+) failed(?:, (\d+) skipped)?/g)].at(-1);
  if (counts === undefined) return one({ code });
  const failed = Number(counts[2]);
  return {
    passed: Number(counts[1]),
    failed: code !== 0 ? Math.max(failed, 1) : failed,
    skipped: Number(counts[3] ?? 0),
  };
}

function skipped(why) {
  echo(`skipped: ${why}`);
  return { passed: 0, failed: 0, skipped: 1 };
}

const CROSS_TOOLS = { 'aarch64-linux-gnu-g++': 'g++-aarch64-linux-gnu', 'qemu-aarch64': 'qemu-user' };

async function missingCrossPackages() {
  const missing = [];
  for (const [tool, name] of Object.entries(CROSS_TOOLS)) {
    if ((await run(tool, ['--version'])).code !== 0) missing.push(name);
  }
  return missing;
}

/** NEON kernels, cross-compiled and run under emulation. On a machine that is arm64 itself the native stage covers them. */
async function neon() {
  if (process.arch !== 'x64' || process.platform !== 'linux')
    return skipped('cross-compiling is set up for Linux x64 only');
  let missing = await missingCrossPackages();
  if (missing.length > 0 && process.getuid?.() === 0) {
    echo(`installing ${missing.join(' and ')}`);
    const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
    const install = () => run('apt-get', ['install', '-y', '--no-install-recommends', ...missing], { env });
    if ((await install()).code !== 0 && (await run('apt-get', ['update'], { env })).code === 0) await install();
    missing = await missingCrossPackages();
  }
  if (missing.length > 0) return skipped(`needs ${missing.join(' and ')} (apt-get install ${missing.join(' ')})`);
  return native(['--test', '--aarch64']);
}

const STAGES = [
  { name: 'types', run: async () => one(await node([join(BIN, 'typescript', 'bin', 'tsc'), '-p', 'tsconfig.json'])) },
  { name: 'lint', run: async () => one(await node([join(BIN, '@biomejs', 'biome', 'bin', 'biome'), 'check', '.'])) },
  { name: 'unused', run: async () => one(await node([join(BIN, 'knip', 'bin', 'knip.js')])) },
  { name: 'tidy', run: () => vitest('tidy', ['scripts/']) },
  // Instruction sets this machine lacks run too, emulated by the same kernel templates.
  { name: 'tests', run: () => vitest('tests', ['--exclude', 'scripts/**'], { TOKENMILL_TEST_EMULATED: '1' }) },
  { name: 'native', run: () => native(['--test', '--asan']) },
  { name: 'neon', run: neon },
  { name: 'package', run: async () => one(await node([join('scripts', 'package_test.mjs')])) },
];

function chosenStages(args) {
  const names = (flag) => {
    const at = args.indexOf(flag);
    return at === -1 ? null : (args[at + 1] ?? '').split(',').filter((name) => name !== '');
  };
  const [only, skip] = [names('--only'), names('--skip')];
  const known = STAGES.map((stage) => stage.name);
  const unknown = [...(only ?? []), ...(skip ?? [])].find((name) => !known.includes(name));
  if (unknown !== undefined) {
    process.stderr.write(`No stage is called ${unknown}. Stages: ${known.join(', ')}.\n`);
    process.exit(2);
  }
  return STAGES.filter(({ name }) => (only === null || only.includes(name)) && !skip?.includes(name));
}

const stages = chosenStages(process.argv.slice(2));
const begin = performance.now();
await setupOrExit();
const rows = [];
for (const stage of stages) {
  process.stdout.write(`\n=== ${stage.name} (${rows.length + 1} of ${stages.length})\n`);
  const start = performance.now();
  rows.push({ name: stage.name, ...(await stage.run()), seconds: (performance.now() - start) / 1000 });
}

process.stdout.write('\n');
const total = { passed: 0, failed: 0, skipped: 0 };
for (const row of rows) {
  for (const key of Object.keys(total)) total[key] += row[key];
  const verdict = row.failed > 0 ? 'FAILED' : 'ok';
  const skips = row.skipped > 0 ? `, ${row.skipped} skipped` : '';
  const counts = `${row.passed} passed, ${row.failed} failed${skips}`;
  process.stdout.write(
    `${row.name.padEnd(8)} ${verdict.padEnd(7)} ${row.seconds.toFixed(1).padStart(6)} s  ${counts}\n`,
  );
}
process.stdout.write(`all      ${' '.repeat(7)} ${((performance.now() - begin) / 1000).toFixed(1).padStart(6)} s\n\n`);
process.stdout.write(
  `${total.passed} passed, ${total.failed} failed${total.skipped > 0 ? `, ${total.skipped} skipped` : ''}\n`,
);
process.exitCode = total.failed > 0 ? 1 : 0;
