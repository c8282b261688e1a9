/** `bench start`: from the begin of a process to its first token, and the memory it took; packing weights and mapping packed ones. */
import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { promisify } from 'node:util';
import { assert } from '../../base/assert.ts';
import { TokenmillError } from '../../base/errors.ts';
import { Rng } from '../../base/rng.ts';
import type { ConfigOf, FlagTable } from '../../config/flag_types.ts';
import type { EngineConfig } from '../../config/flags.ts';
import type { EnginePlan } from '../../config/plan.ts';
import { inspectPacked } from '../../executor/load.ts';
import { loadBenchEngine, parseEngineBench, randomPrompt, runOne } from './engine_run.ts';
import { formatNumber, table } from './plot.ts';
import { progressLine } from './progress.ts';
import { median } from './statistics.ts';

const DOC =
  'From the begin of a process to its first token, and its peak memory: packing the weights, then mapping packed ones.';
const PROMPT_TOKENS = 16;
/** A few GB a minute, at the pace of the writer. */
const PACKED_LIMIT_MS = 30 * 60_000;
const PACKED_POLL_MS = 500;

export const START_FLAGS = {
  rounds: {
    kind: 'int',
    cli: '--rounds',
    default: 3,
    min: 1,
    max: 1000,
    group: 'own',
    doc: 'Starts of each kind, in turns.',
  },
  once: {
    kind: 'bool',
    cli: '--once',
    default: false,
    group: 'own',
    doc: 'Measure the start of this process alone and print it as JSON.',
  },
  untilPacked: {
    kind: 'bool',
    cli: '--until-packed',
    default: false,
    group: 'own',
    doc: 'With --once, end when the packed weights are written.',
  },
  outputJson: { kind: 'string', cli: '--output-json', default: null, group: 'own', doc: 'Write the result here.' },
} as const satisfies FlagTable;

/** One start; ms since the process began. */
export interface StartRecord {
  readonly loadedMs: number;
  readonly firstTokenMs: number;
  /** Weights were mapped as an earlier start packed them. */
  readonly weightsMapped: boolean;
  /** Largest resident set, mapped files included. */
  readonly peakBytes: number;
  /** What the plan says: weights as the kernels read them. */
  readonly weightBytes: number;
}

/** The start of this very process. */
async function measureOnce(config: EngineConfig, untilPacked: boolean): Promise<StartRecord> {
  const llm = await loadBenchEngine(config);
  try {
    const loadedMs = performance.now();
    const promptIds = randomPrompt(PROMPT_TOKENS, llm.plan.vocabSize, new Rng(0));
    await runOne(llm, { promptIds, outputLen: 1, skipPrefixCache: true });
    const firstTokenMs = performance.now();
    const peakBytes = process.resourceUsage().maxRSS * 1024;
    if (untilPacked) await packedIsThere(llm.plan);
    const { weightsMapped } = llm.timings;
    return { loadedMs, firstTokenMs, weightsMapped, peakBytes, weightBytes: llm.plan.memory.weightBytes };
  } finally {
    await llm.close();
  }
}

/** The engine writes them beside its work, a little at a time; a model that is closed stops writing. */
async function packedIsThere(plan: EnginePlan): Promise<void> {
  const endMs = performance.now() + PACKED_LIMIT_MS;
  for (let packed = inspectPacked(plan); packed?.state !== 'present'; packed = inspectPacked(plan)) {
    if (packed === null)
      throw new TokenmillError('unsupported_feature', 'This backend keeps no packed weights to map.');
    if (performance.now() > endMs) {
      throw new TokenmillError('internal', 'The packed weights were not written, so that no start can map them.', {
        remedy: "Make room on the disk of the system's temporary folder.",
      });
    }
    await setTimeout(PACKED_POLL_MS);
  }
}

async function measureChild(args: readonly string[]): Promise<StartRecord> {
  const command = [...process.execArgv, process.argv[1] as string, 'bench', 'start', ...args, '--once'];
  const { stdout } = await promisify(execFile)(process.execPath, command);
  return JSON.parse(stdout) as StartRecord;
}

export interface StartRow {
  readonly kind: string;
  readonly records: readonly StartRecord[];
}

/** `start` begins a process with these flags added. The packed weights are written once, by a start that is not counted. */
export async function measureStarts(
  rounds: number,
  packedCache: string,
  start: (flags: readonly string[]) => Promise<StartRecord>,
): Promise<StartRow[]> {
  const kinds = [
    { kind: 'packing', flags: ['--packed-cache', 'off'] },
    { kind: 'mapping packed weights', flags: ['--packed-cache', packedCache] },
  ];
  await start([...(kinds[1]?.flags ?? []), '--until-packed']);
  const rows = kinds.map(({ kind, flags }) => ({ kind, flags, records: [] as StartRecord[] }));
  for (let round = 0; round < rounds; round++) {
    for (const [i, row] of rows.entries()) {
      const record = await start(row.flags);
      assert(record.weightsMapped === (i === 1), 'a start does with the weights what its row says');
      row.records.push(record);
    }
  }
  return rows.map(({ kind, records }) => ({ kind, records }));
}

export function formatStarts(rows: readonly StartRow[]): string[] {
  const of = (records: readonly StartRecord[], pick: (record: StartRecord) => number) => median(records.map(pick));
  const lines = rows.map(({ kind, records }) => [
    kind,
    `${formatNumber(of(records, ({ loadedMs }) => loadedMs))} ms`,
    `${formatNumber(of(records, ({ firstTokenMs }) => firstTokenMs))} ms`,
    `${formatNumber(of(records, ({ peakBytes }) => peakBytes / 2 ** 20))} MiB`,
    `${of(records, ({ peakBytes, weightBytes }) => peakBytes / weightBytes).toFixed(2)} x`,
  ]);
  return table([['', 'loaded', 'first token', 'peak memory', 'of the weights'], ...lines]);
}

export async function benchStart(args: readonly string[]): Promise<number> {
  const parsed = await parseEngineBench('start', DOC, START_FLAGS, args);
  if (parsed === null) return 0;
  const { config, flags } = parsed;
  if (flags.once) {
    process.stdout.write(`${JSON.stringify(await measureOnce(config, flags.untilPacked))}\n`);
    return 0;
  }
  return benchRounds(args, config, flags);
}

async function benchRounds(
  args: readonly string[],
  config: EngineConfig,
  flags: ConfigOf<typeof START_FLAGS>,
): Promise<number> {
  const packedCache = await mkdtemp(join(tmpdir(), 'tokenmill-bench-start-'));
  const progress = progressLine(process.stderr);
  let starts = 0;
  try {
    const rows = await measureStarts(flags.rounds, packedCache, (added) => {
      progress.show(`start ${++starts} of ${2 * flags.rounds + 1}`);
      return measureChild([...args, ...added]);
    });
    progress.clear();
    const about = `${config.model}, first token of a prompt of ${PROMPT_TOKENS}, medians of ${flags.rounds} starts`;
    process.stdout.write(`${about}\n\n${formatStarts(rows).join('\n')}\n`);
    if (flags.outputJson !== null) {
      const json = { date: new Date().toISOString(), about, rows };
      await writeFile(flags.outputJson, `${JSON.stringify(json, null, 2)}\n`);
    }
    return 0;
  } finally {
    progress.clear();
    await rm(packedCache, { recursive: true, force: true });
  }
}
