/**
 * Tokenmill and node-llama-cpp on the same weights, threads and prompts, in turns, in the same run.
 *
 *   npm run bench:peers -- [--models smol-135m,llama-1b] [--formats bf16,int8,int4] [--rounds 3] [--threads N]
 *                          [--scenarios 'decode 1,prefill 512'] [--output-len 64] [--modes] [--write]
 *
 * Installs the peer into .cache/peers and writes random models to .cache/models on first use. `--modes` also compares ways of
 * batching. `--write` puts the tables into docs/performance.md, between their markers.
 */
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { ROOT, run, SetupError, setupOrExit } from '../../scripts/setup.mjs';
import { FORMATS } from './formats.mjs';
import { formatReport } from './report.mjs';
import { scenarios } from './work.mjs';

const PEER = 'node-llama-cpp@3.22.1';
const PEERS = join(ROOT, '.cache', 'peers');
const MODELS = join(ROOT, '.cache', 'models');
const HERE = join(ROOT, 'bench', 'peers');
const DOC = join(ROOT, 'docs', 'performance.md');

function options() {
  const { values } = parseArgs({
    options: {
      models: { type: 'string', default: 'smol-135m,llama-1b' },
      formats: { type: 'string', default: 'bf16' },
      rounds: { type: 'string', default: '3' },
      threads: { type: 'string' },
      scenarios: { type: 'string' },
      'output-len': { type: 'string', default: '64' },
      modes: { type: 'boolean', default: false },
      write: { type: 'boolean', default: false },
    },
  });
  const list = (text) => text.split(',').map((item) => item.trim());
  return {
    models: list(values.models),
    formats: list(values.formats),
    rounds: Number(values.rounds),
    threads: values.threads === undefined ? null : Number(values.threads),
    scenarios: scenarios(values.scenarios === undefined ? null : list(values.scenarios), Number(values['output-len'])),
    modes: values.modes,
    write: values.write,
  };
}

const say = (text) => process.stderr.write(`${text}\n`);

/** The peer without its GPU variants, which are 600 MB that no run here would load; its binaries need no install script. */
async function installPeer() {
  if (existsSync(join(PEERS, 'node_modules', 'node-llama-cpp', 'package.json'))) return;
  say(`installing ${PEER} into .cache/peers`);
  mkdirSync(PEERS, { recursive: true });
  writeFileSync(join(PEERS, 'package.json'), '{ "private": true }\n');
  const version = PEER.split('@')[1];
  const system =
    process.platform === 'darwin'
      ? 'mac-arm64-metal'
      : `${process.platform === 'win32' ? 'win' : 'linux'}-${process.arch}`;
  const flags = ['--no-audit', '--no-fund', '--ignore-scripts', '--omit=optional', '--save-exact', '--loglevel=error'];
  const { code, output } = await run('npm', ['install', ...flags, PEER, `@node-llama-cpp/${system}@${version}`], {
    cwd: PEERS,
  });
  if (code !== 0) throw new SetupError(`Installing the peer failed:\n${output}`);
}

/** Folder and GGUF files of a shape; made once. */
async function makeModel(shape, formats) {
  const folder = join(MODELS, shape);
  const gguf = Object.fromEntries(
    Object.entries(FORMATS).map(([format, { gguf: type }]) => [
      format,
      join(folder, `model-${type.toLowerCase()}.gguf`),
    ]),
  );
  const { makeRandomModel } = await import(join(ROOT, 'dist', 'cli', 'random_model.js'));
  const { convertFolderToGguf } = await import(join(ROOT, 'dist', 'cli', 'convert_gguf.js'));
  if (!existsSync(gguf.bf16)) {
    say(`making ${shape} with random weights`);
    rmSync(folder, { recursive: true, force: true });
    makeRandomModel(shape, folder, { gguf: true });
  }
  for (const format of formats) {
    if (!existsSync(gguf[format])) convertFolderToGguf(folder, gguf[format], FORMATS[format].gguf);
  }
  return { shape, folder, gguf, ...(await countElements(folder)) };
}

/** Elements of the linear weights, all of which every step reads; the last one works on logit rows only. */
async function countElements(folder) {
  const { loadModelConfig, recordProgram } = await import(join(ROOT, 'dist', 'models', 'index.js'));
  const program = recordProgram(loadModelConfig(folder), { maxModelLen: 1 });
  const sizes = new Map(program.weights.map(({ value, shape }) => [value, shape.reduce((a, b) => a * b, 1)]));
  const linear = program.calls.filter(({ op }) => op === 'linear');
  const elements = linear.reduce((sum, { inputs }) => sum + sizes.get(inputs[1]), 0);
  const headElements = sizes.get(linear.find(({ outputs }) => outputs[0] === program.logits).inputs[1]);
  return { elements, headElements };
}

async function runChild(engine, spec) {
  const full = { ...spec, spawnedMs: Date.now() };
  const { code, output } = await run(process.execPath, [join(HERE, `${engine}_child.mjs`), JSON.stringify(full)]);
  if (code !== 0) throw new SetupError(`${engine} failed:\n${output}`);
  return JSON.parse(output.trim().split('\n').at(-1));
}

/** Every round runs both engines on fresh prompts, first one and then the other in front. */
async function measure(model, format, { rounds, threads, scenarios: asked }) {
  const results = { tokenmill: [], llama: [] };
  const starts = { tokenmill: [], llama: [] };
  for (let round = 0; round < rounds; round++) {
    const order = round % 2 === 0 ? ['tokenmill', 'llama'] : ['llama', 'tokenmill'];
    for (const engine of order) {
      say(`${model.shape} ${format}, round ${round + 1} of ${rounds}: ${engine}`);
      const spec = { folder: model.folder, gguf: model.gguf[format], format, threads, run: round + 1, peers: PEERS };
      starts[engine].push((await runChild(engine, { ...spec, scenarios: [] })).firstTokenMs);
      results[engine].push(await runChild(engine, { ...spec, scenarios: asked }));
    }
  }
  return { model, format, results, starts };
}

/** What `bench modes` and a shared prefix give on one model. */
async function measureModes(model, threads) {
  say(`${model.shape}: ways of batching`);
  const json = join(MODELS, 'modes.json');
  const main = join(ROOT, 'dist', 'cli', 'main.js');
  const sizes = ['--prefix-len', '32', '--input-len', '16', '--output-len', '64', '--max-model-len', '1024'];
  const flags = [...sizes, '--threads', String(threads), '--output-json', json];
  const args = ['bench', 'modes', model.folder, ...flags];
  const { code, output } = await run(process.execPath, [main, ...args]);
  if (code !== 0) throw new SetupError(`bench modes failed:\n${output}`);
  const prefix = await runChild('prefix', { folder: model.folder, threads, run: 1 });
  return { shape: model.shape, ...JSON.parse(readFileSync(json, 'utf8')), prefix };
}

/** Of two measurements of the machine: whatever else ran can only have lowered one of them. */
function higher(a, b) {
  return Object.fromEntries(
    Object.entries(a).map(([key, value]) => [key, typeof value === 'number' ? Math.max(value, b[key]) : value]),
  );
}

function writeDoc(text) {
  const [begin, end] = ['<!-- bench:peers begin -->', '<!-- bench:peers end -->'];
  const doc = readFileSync(DOC, 'utf8');
  const [from, to] = [doc.indexOf(begin), doc.indexOf(end)];
  if (from === -1 || to < from) throw new SetupError(`docs/performance.md lacks the markers ${begin} and ${end}.`);
  writeFileSync(DOC, `${doc.slice(0, from + begin.length)}\n\n${text}\n\n${doc.slice(to)}`);
}

const asked = options();
await setupOrExit();
try {
  await installPeer();
  const { measureRoof } = await import(join(ROOT, 'dist', 'cli', 'bench', 'roof.js'));
  const before = measureRoof(asked.threads);
  const { threads } = before;
  const models = [];
  for (const shape of asked.models) models.push(await makeModel(shape, asked.formats));
  const measured = [];
  for (const model of models)
    for (const format of asked.formats) measured.push(await measure(model, format, { ...asked, threads }));
  const roof = higher(before, measureRoof(threads));
  const modes = asked.modes ? await measureModes(models.at(-1), threads) : null;
  const machine = { cpu: cpus()[0]?.model ?? 'unknown', threads, node: process.version };
  const args = process.argv.slice(2).filter((arg) => arg !== '--write');
  const quoted = args.map((arg) => (arg.includes(' ') ? `'${arg}'` : arg));
  const command = ['npm run bench:peers', ...(quoted.length > 0 ? ['--', ...quoted] : [])].join(' ');
  const text = formatReport({
    date: new Date().toISOString().slice(0, 10),
    machine,
    roof,
    measured,
    modes,
    command,
    peer: PEER,
    rounds: asked.rounds,
    scenarios: asked.scenarios,
  });
  process.stdout.write(`${text}\n`);
  if (asked.write) writeDoc(text);
} catch (error) {
  if (!(error instanceof SetupError)) throw error;
  say(error.message);
  process.exitCode = 1;
}
