/** `bench modes`: the same requests one by one, in static batches, continuously batched, and with a shared prefix cached. */
import { writeFile } from 'node:fs/promises';
import { systemClock } from '../../base/clock.ts';
import { Rng } from '../../base/rng.ts';
import type { AsyncLLM } from '../../client/async_llm.ts';
import type { ConfigOf, FlagTable } from '../../config/flag_types.ts';
import {
  describeEngine,
  type EngineRecord,
  type EngineWork,
  loadBenchEngine,
  parseEngineBench,
  randomPrompt,
  runAll,
  runOne,
} from './engine_run.ts';
import { formatNumber, table } from './plot.ts';
import { progressLine } from './progress.ts';
import { summarize } from './statistics.ts';

const MANY = 1_000_000;

const DOC =
  'The same requests one by one, in static batches, continuously batched, and with their shared prefix cached.';

export const MODES_FLAGS = {
  numPrompts: {
    kind: 'int',
    cli: '--num-prompts',
    default: 32,
    min: 1,
    max: MANY,
    group: 'own',
    doc: 'Requests, all waiting from the start.',
  },
  prefixLen: {
    kind: 'int',
    cli: '--prefix-len',
    default: 128,
    min: 0,
    max: MANY,
    group: 'own',
    doc: 'Tokens that all prompts begin with.',
  },
  inputLen: {
    kind: 'int',
    cli: '--input-len',
    default: 64,
    min: 1,
    max: MANY,
    group: 'own',
    doc: 'Tokens of a prompt after them, on average.',
  },
  outputLen: {
    kind: 'int',
    cli: '--output-len',
    default: 64,
    min: 1,
    max: MANY,
    group: 'own',
    doc: 'Tokens of an answer, on average.',
  },
  rangeRatio: {
    kind: 'float',
    cli: '--range-ratio',
    default: 0.75,
    min: 0,
    max: 1,
    group: 'own',
    doc: 'Lengths vary by this share around the average.',
  },
  batchSize: {
    kind: 'int',
    cli: '--batch-size',
    default: 8,
    min: 1,
    max: MANY,
    group: 'own',
    doc: 'Requests of a static batch.',
  },
  outputJson: { kind: 'string', cli: '--output-json', default: null, group: 'own', doc: 'Write the result here.' },
} as const satisfies FlagTable;

type ModesWork = Pick<
  ConfigOf<typeof MODES_FLAGS>,
  'numPrompts' | 'prefixLen' | 'inputLen' | 'outputLen' | 'rangeRatio' | 'batchSize'
>;

export interface ModeResult {
  readonly mode: string;
  readonly seconds: number;
  /** Prompt and output tokens. */
  readonly tokensPerS: number;
  readonly outputTokensPerS: number;
  /** From the start of the whole work, as all requests wait from then on; ms. */
  readonly ttftMeanMs: number;
  readonly ttftP95Ms: number;
  /** End to end from the start of the whole work, ms. */
  readonly e2eP95Ms: number;
  readonly cachedTokens: number;
}

type Runner = (
  llm: AsyncLLM,
  works: readonly EngineWork[],
  onProgress: (done: number) => void,
) => Promise<EngineRecord[]>;

async function oneByOne(
  llm: AsyncLLM,
  works: readonly EngineWork[],
  onProgress: (done: number) => void,
): Promise<EngineRecord[]> {
  const records: EngineRecord[] = [];
  for (const work of works) {
    records.push(await runOne(llm, work));
    onProgress(records.length);
  }
  return records;
}

/** A batch starts when the one before it has ended to its last token: what batching was before it was continuous. */
function staticBatches(size: number): Runner {
  return async (llm, works, onProgress) => {
    const records: EngineRecord[] = [];
    for (let at = 0; at < works.length; at += size) {
      records.push(...(await runAll(llm, works.slice(at, at + size))));
      onProgress(records.length);
    }
    return records;
  };
}

export function makeModesWork(work: ModesWork, vocabSize: number, rng: Rng): Omit<EngineWork, 'skipPrefixCache'>[] {
  const around = (length: number) =>
    Math.max(1, rng.int(Math.ceil(length * (1 - work.rangeRatio)), Math.floor(length * (1 + work.rangeRatio))));
  const prefix = randomPrompt(work.prefixLen, vocabSize, rng);
  return Array.from({ length: work.numPrompts }, () => ({
    promptIds: Int32Array.from([...prefix, ...randomPrompt(around(work.inputLen), vocabSize, rng)]),
    outputLen: around(work.outputLen),
  }));
}

function result(mode: string, startMs: number, records: readonly EngineRecord[]): ModeResult {
  const seconds = (Math.max(...records.map(({ endMs }) => endMs)) - startMs) / 1000;
  const sum = (key: 'promptTokens' | 'outputTokens' | 'cachedTokens') =>
    records.reduce((total, record) => total + record[key], 0);
  const ttft = summarize(records.map(({ firstMs }) => firstMs - startMs));
  const e2e = summarize(records.map(({ endMs }) => endMs - startMs));
  return {
    mode,
    seconds,
    tokensPerS: (sum('promptTokens') + sum('outputTokens')) / seconds,
    outputTokensPerS: sum('outputTokens') / seconds,
    ttftMeanMs: ttft?.mean ?? Number.NaN,
    ttftP95Ms: ttft?.p95 ?? Number.NaN,
    e2eP95Ms: e2e?.p95 ?? Number.NaN,
    cachedTokens: sum('cachedTokens'),
  };
}

/** Runs every mode on the same requests; the prefix cache is read in the last mode only. */
export async function measureModes(
  llm: AsyncLLM,
  work: ModesWork,
  onProgress: (mode: string, done: number) => void,
): Promise<ModeResult[]> {
  const requests = makeModesWork(work, llm.plan.vocabSize, new Rng(0));
  const modes: readonly { readonly name: string; readonly run: Runner; readonly cache: boolean }[] = [
    { name: 'one by one', run: oneByOne, cache: false },
    { name: `static batches of ${work.batchSize}`, run: staticBatches(work.batchSize), cache: false },
    { name: 'continuous batching', run: runAll, cache: false },
    { name: 'continuous + shared prefix', run: runAll, cache: true },
  ];
  const results: ModeResult[] = [];
  for (const { name, run, cache } of modes) {
    await llm.resetPrefixCache();
    const works = requests.map((request) => ({ ...request, skipPrefixCache: !cache }));
    const startMs = systemClock.now();
    results.push(result(name, startMs, await run(llm, works, (done) => onProgress(name, done))));
  }
  return results;
}

export function formatModes(results: readonly ModeResult[]): string[] {
  const slowest = results[0]?.tokensPerS ?? Number.NaN;
  const head = ['', 'tokens/s', 'output/s', 'against the first', 'TTFT mean', 'TTFT p95', 'E2E p95', 'cached'];
  const rows = results.map((row) => [
    row.mode,
    formatNumber(row.tokensPerS),
    formatNumber(row.outputTokensPerS),
    `${formatNumber(row.tokensPerS / slowest)} x`,
    `${formatNumber(row.ttftMeanMs)} ms`,
    `${formatNumber(row.ttftP95Ms)} ms`,
    `${formatNumber(row.e2eP95Ms)} ms`,
    String(row.cachedTokens),
  ]);
  return table([head, ...rows]);
}

export async function benchModes(args: readonly string[]): Promise<number> {
  const parsed = await parseEngineBench('modes', DOC, MODES_FLAGS, args);
  if (parsed === null) return 0;
  const { config, flags } = parsed;
  const llm = await loadBenchEngine(config);
  const progress = progressLine(process.stderr);
  try {
    const results = await measureModes(llm, flags, (mode, done) =>
      progress.show(`${mode}: ${done} of ${flags.numPrompts}`),
    );
    progress.clear();
    const about = describeEngine(llm);
    const work = `${flags.numPrompts} requests waiting from the start: ${flags.prefixLen} shared tokens, about ${flags.inputLen} own, about ${flags.outputLen} out`;
    process.stdout.write(`${about}\n${work}\n\n${formatModes(results).join('\n')}\n`);
    if (flags.outputJson !== null) {
      await writeFile(
        flags.outputJson,
        `${JSON.stringify({ date: new Date().toISOString(), about, work: flags, modes: results }, null, 2)}\n`,
      );
    }
    return 0;
  } finally {
    await llm.close();
  }
}
