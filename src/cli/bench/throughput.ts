/** `bench throughput`: a heap of requests at once, tokens a second until the last is done. */
import { writeFile } from 'node:fs/promises';
import { Rng } from '../../base/rng.ts';
import type { AsyncLLM } from '../../client/async_llm.ts';
import type { ConfigOf, FlagTable } from '../../config/flag_types.ts';
import {
  describeEngine,
  type EngineWork,
  loadBenchEngine,
  parseEngineBench,
  randomPrompt,
  runAll,
} from './engine_run.ts';
import { formatNumber } from './plot.ts';
import { progressLine } from './progress.ts';
import { datasetWork } from './workload.ts';

const MANY = 1_000_000;

const DOC = 'Tokens a second over a heap of requests that arrive at once.';

export const THROUGHPUT_FLAGS = {
  numPrompts: {
    kind: 'int',
    cli: '--num-prompts',
    default: 64,
    min: 1,
    max: MANY,
    group: 'own',
    doc: 'Requests, all at once.',
  },
  inputLen: {
    kind: 'int',
    cli: '--input-len',
    default: 128,
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
  prefixLen: {
    kind: 'int',
    cli: '--prefix-len',
    default: 0,
    min: 0,
    max: MANY,
    group: 'own',
    doc: 'Tokens that all prompts begin with, before --input-len more.',
  },
  datasetPath: {
    kind: 'string',
    cli: '--dataset-path',
    default: null,
    group: 'own',
    doc: 'Prompts of a file instead: .jsonl or .json records, or a prompt a line.',
  },
  outputJson: { kind: 'string', cli: '--output-json', default: null, group: 'own', doc: 'Write the result here.' },
} as const satisfies FlagTable;

type ThroughputFlags = ConfigOf<typeof THROUGHPUT_FLAGS>;

export interface ThroughputResult {
  readonly requests: number;
  readonly seconds: number;
  readonly promptTokens: number;
  readonly cachedTokens: number;
  readonly outputTokens: number;
  readonly requestsPerS: number;
  readonly outputTokensPerS: number;
  readonly totalTokensPerS: number;
}

async function makeWork(llm: AsyncLLM, flags: ThroughputFlags, rng: Rng): Promise<EngineWork[]> {
  const { numPrompts, inputLen, outputLen, prefixLen, datasetPath } = flags;
  if (datasetPath !== null) {
    const items = await datasetWork(datasetPath, numPrompts, outputLen, rng);
    return items.map(({ prompt }) => ({
      promptIds: llm.tokenizer.encode(prompt as string, { addSpecialTokens: true }),
      outputLen,
      skipPrefixCache: false,
    }));
  }
  const prefix = randomPrompt(prefixLen, llm.plan.vocabSize, rng);
  return Array.from({ length: numPrompts }, () => ({
    promptIds: Int32Array.from([...prefix, ...randomPrompt(inputLen, llm.plan.vocabSize, rng)]),
    outputLen,
    skipPrefixCache: false,
  }));
}

export async function measureThroughput(
  llm: AsyncLLM,
  works: readonly EngineWork[],
  onProgress: (done: number) => void,
): Promise<ThroughputResult> {
  const records = await runAll(llm, works, onProgress);
  const startMs = Math.min(...records.map((record) => record.startMs));
  const seconds = (Math.max(...records.map(({ endMs }) => endMs)) - startMs) / 1000;
  const sum = (key: 'promptTokens' | 'cachedTokens' | 'outputTokens') =>
    records.reduce((total, record) => total + record[key], 0);
  const [promptTokens, outputTokens] = [sum('promptTokens'), sum('outputTokens')];
  return {
    requests: records.length,
    seconds,
    promptTokens,
    cachedTokens: sum('cachedTokens'),
    outputTokens,
    requestsPerS: records.length / seconds,
    outputTokensPerS: outputTokens / seconds,
    totalTokensPerS: (promptTokens + outputTokens) / seconds,
  };
}

export async function benchThroughput(args: readonly string[]): Promise<number> {
  const parsed = await parseEngineBench('throughput', DOC, THROUGHPUT_FLAGS, args);
  if (parsed === null) return 0;
  const { config, flags } = parsed;
  const llm = await loadBenchEngine(config);
  const progress = progressLine(process.stderr);
  try {
    const works = await makeWork(llm, flags, new Rng(0));
    await runAll(
      llm,
      works.slice(0, 1).map((work) => ({ ...work, outputLen: 2, skipPrefixCache: true })),
    );
    const result = await measureThroughput(llm, works, (done) => progress.show(`${done} of ${works.length}`));
    progress.clear();
    const about = describeEngine(llm);
    process.stdout.write(
      `${about}\n${result.requests} requests in ${formatNumber(result.seconds)} s: ` +
        `${result.promptTokens} tokens in (${result.cachedTokens} cached), ${result.outputTokens} out\n\n` +
        `${formatNumber(result.requestsPerS)} requests/s, ${formatNumber(result.outputTokensPerS)} output tokens/s, ` +
        `${formatNumber(result.totalTokensPerS)} tokens/s\n`,
    );
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
