/** `bench latency`: how long one batch takes from its arrival to its last token. */
import { writeFile } from 'node:fs/promises';
import { Rng } from '../../base/rng.ts';
import type { AsyncLLM } from '../../client/async_llm.ts';
import type { FlagTable } from '../../config/flag_types.ts';
import { describeEngine, loadBenchEngine, parseEngineBench, randomPrompt, runAll } from './engine_run.ts';
import { formatNumber, table } from './plot.ts';
import { progressLine } from './progress.ts';
import { type Summary, summarize } from './statistics.ts';

const MANY = 1_000_000;

const DOC = 'How long one batch takes, from its arrival to its last token.';

export const LATENCY_FLAGS = {
  inputLen: {
    kind: 'int',
    cli: '--input-len',
    default: 32,
    min: 1,
    max: MANY,
    group: 'own',
    doc: 'Tokens of each prompt.',
  },
  outputLen: {
    kind: 'int',
    cli: '--output-len',
    default: 128,
    min: 1,
    max: MANY,
    group: 'own',
    doc: 'Tokens of each answer.',
  },
  batchSize: {
    kind: 'int',
    cli: '--batch-size',
    default: 8,
    min: 1,
    max: MANY,
    group: 'own',
    doc: 'Requests that arrive together.',
  },
  numIters: {
    kind: 'int',
    cli: '--num-iters',
    default: 10,
    min: 1,
    max: MANY,
    group: 'own',
    doc: 'Measured repetitions.',
  },
  numItersWarmup: {
    kind: 'int',
    cli: '--num-iters-warmup',
    default: 2,
    min: 0,
    max: MANY,
    group: 'own',
    doc: 'Repetitions before them.',
  },
  outputJson: { kind: 'string', cli: '--output-json', default: null, group: 'own', doc: 'Write the result here.' },
} as const satisfies FlagTable;

export interface LatencyWork {
  readonly inputLen: number;
  readonly outputLen: number;
  readonly batchSize: number;
  readonly numIters: number;
  readonly numItersWarmup: number;
}

export interface LatencyResult {
  /** Seconds of each measured batch. */
  readonly secondsEach: readonly number[];
  /** Seconds to the first token of each request. */
  readonly firstTokenS: readonly number[];
  /** Seconds a token after the first, of each request. */
  readonly perTokenS: readonly number[];
}

/** Fresh prompts each time and no prefix cache: every repetition does the whole work. */
export async function measureLatency(
  llm: AsyncLLM,
  work: LatencyWork,
  onIteration: (done: number) => void,
): Promise<LatencyResult> {
  const rng = new Rng(0);
  const result = { secondsEach: [] as number[], firstTokenS: [] as number[], perTokenS: [] as number[] };
  for (let i = -work.numItersWarmup; i < work.numIters; i++) {
    const works = Array.from({ length: work.batchSize }, () => ({
      promptIds: randomPrompt(work.inputLen, llm.plan.vocabSize, rng),
      outputLen: work.outputLen,
      skipPrefixCache: true,
    }));
    const records = await runAll(llm, works);
    if (i < 0) continue;
    const startMs = Math.min(...records.map((record) => record.startMs));
    result.secondsEach.push((Math.max(...records.map(({ endMs }) => endMs)) - startMs) / 1000);
    for (const { firstMs, endMs, outputTokens } of records) {
      result.firstTokenS.push((firstMs - startMs) / 1000);
      if (outputTokens > 1) result.perTokenS.push((endMs - firstMs) / 1000 / (outputTokens - 1));
    }
    onIteration(i + 1);
  }
  return result;
}

const milliseconds = (summary: Summary | null, scale = 1000) =>
  summary === null
    ? ['n/a']
    : [summary.mean, summary.p50, summary.p90, summary.p99].map((value) => formatNumber(value * scale));

export async function benchLatency(args: readonly string[]): Promise<number> {
  const parsed = await parseEngineBench('latency', DOC, LATENCY_FLAGS, args);
  if (parsed === null) return 0;
  const { config, flags } = parsed;
  const llm = await loadBenchEngine(config);
  const progress = progressLine(process.stderr);
  try {
    const result = await measureLatency(llm, flags, (done) => progress.show(`${done} of ${flags.numIters}`));
    progress.clear();
    const rows = [
      ['ms', 'mean', 'p50', 'p90', 'p99'],
      ['whole batch', ...milliseconds(summarize(result.secondsEach))],
      ['first token', ...milliseconds(summarize(result.firstTokenS))],
      ['each token after', ...milliseconds(summarize(result.perTokenS))],
    ];
    const about = describeEngine(llm);
    const work = `${flags.batchSize} requests of ${flags.inputLen} tokens in, ${flags.outputLen} out, ${flags.numIters} times`;
    process.stdout.write(`${about}\n${work}\n\n${table(rows).join('\n')}\n`);
    if (flags.outputJson !== null) {
      await writeFile(
        flags.outputJson,
        `${JSON.stringify({ date: new Date().toISOString(), about, work: flags, ...result }, null, 2)}\n`,
      );
    }
    return 0;
  } finally {
    await llm.close();
  }
}
