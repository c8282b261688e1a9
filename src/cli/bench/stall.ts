/** `bench stall`: how long streams wait for their next token while a long prompt arrives, for several --target-itl-ms in turns. */
import { writeFile } from 'node:fs/promises';
import { systemClock } from '../../base/clock.ts';
import { TokenmillError } from '../../base/errors.ts';
import { Rng } from '../../base/rng.ts';
import type { AsyncLLM } from '../../client/async_llm.ts';
import type { FlagTable } from '../../config/flag_types.ts';
import { describeEngine, loadBenchEngine, parseEngineBench, randomPrompt, runOne } from './engine_run.ts';
import { formatNumber, table } from './plot.ts';
import { progressLine } from './progress.ts';
import { summarize } from './statistics.ts';

const MANY = 1_000_000;

const DOC = 'How long streams wait for their next token while a long prompt arrives, with and without --target-itl-ms.';

const STALL_FLAGS = {
  streams: {
    kind: 'int',
    cli: '--streams',
    default: 8,
    min: 1,
    max: 65536,
    group: 'own',
    doc: 'Answers that are being written.',
  },
  streamInputLen: {
    kind: 'int',
    cli: '--stream-input-len',
    default: 32,
    min: 1,
    max: MANY,
    group: 'own',
    doc: 'Tokens of their prompts.',
  },
  inputLen: {
    kind: 'int',
    cli: '--input-len',
    default: 2000,
    min: 1,
    max: MANY,
    group: 'own',
    doc: 'Tokens of the prompt that arrives.',
  },
  quietTokens: {
    kind: 'int',
    cli: '--quiet-tokens',
    default: 24,
    min: 1,
    max: MANY,
    group: 'own',
    doc: 'Tokens that the first stream gets before each arrival.',
  },
  arrivals: {
    kind: 'int',
    cli: '--arrivals',
    default: 3,
    min: 1,
    max: 1000,
    group: 'own',
    doc: 'Prompts that arrive in a round, one after the other.',
  },
  rounds: { kind: 'int', cli: '--rounds', default: 2, min: 1, max: 1000, group: 'own', doc: 'Rounds of all targets.' },
  targets: {
    kind: 'list',
    cli: '--targets',
    default: ['0', '100'],
    group: 'own',
    doc: 'Values of --target-itl-ms that take turns; 0 = off.',
  },
  outputJson: { kind: 'string', cli: '--output-json', default: null, group: 'own', doc: 'Write the result here.' },
} as const satisfies FlagTable;

export interface StallWork {
  readonly streams: number;
  readonly streamInputLen: number;
  readonly inputLen: number;
  readonly quietTokens: number;
  readonly arrivals: number;
}

/** All in ms, as the reader of the stream sees them. */
export interface StallResult {
  /** Times between two tokens of a stream, while no prompt is computed and while one is. */
  readonly quietMs: number[];
  readonly busyMs: number[];
  /** From the arrival of each long prompt to its first token. */
  readonly ttftMs: number[];
}

/** Tokens that a stream of the benchmark gets at most; more than any round takes. */
const STREAM_TOKENS = 2000;

/** Streams that are read until `stop`; every token's time lands in one of the lists. */
class Streams {
  readonly result: StallResult = { quietMs: [], busyMs: [], ttftMs: [] };
  isBusy = false;
  private readonly llm: AsyncLLM;
  private readonly abort = new AbortController();
  private readonly readers: Promise<void>[] = [];
  private firstStreamTokens = 0;
  private wake: () => void = () => {};

  constructor(llm: AsyncLLM) {
    this.llm = llm;
  }

  start(id: string, prompt: Int32Array, maxTokens: number): void {
    this.readers.push(this.read(id, prompt, maxTokens, this.readers.length === 0));
  }

  /** Until the first stream has got `tokens` more. */
  async wait(tokens: number): Promise<void> {
    const until = this.firstStreamTokens + tokens;
    while (this.firstStreamTokens < until) {
      await new Promise<void>((resolve) => {
        this.wake = resolve;
      });
    }
  }

  async stop(): Promise<void> {
    this.abort.abort();
    await Promise.all(this.readers);
  }

  private async read(id: string, prompt: Int32Array, maxTokens: number, first: boolean): Promise<void> {
    let beforeMs = 0;
    const params = { temperature: 0, maxTokens, ignoreEos: true, detokenize: false };
    for await (const { tokenIds } of this.llm.generate({ id, prompt, params, signal: this.abort.signal })) {
      if (tokenIds.length === 0) continue;
      const nowMs = systemClock.now();
      if (beforeMs > 0) (this.isBusy ? this.result.busyMs : this.result.quietMs).push(nowMs - beforeMs);
      beforeMs = nowMs;
      if (!first) continue;
      this.firstStreamTokens++;
      this.wake();
    }
  }
}

export async function measureStall(llm: AsyncLLM, work: StallWork, rng: Rng): Promise<StallResult> {
  const { vocabSize, maxModelLen } = llm.plan;
  const streams = new Streams(llm);
  const prompt = (length: number) => randomPrompt(length, vocabSize, rng);
  const maxTokens = Math.min(STREAM_TOKENS, maxModelLen - work.streamInputLen);
  for (let i = 0; i < work.streams; i++) streams.start(`stream-${i}`, prompt(work.streamInputLen), maxTokens);
  await streams.wait(1);
  for (let i = 0; i < work.arrivals; i++) {
    await streams.wait(work.quietTokens);
    streams.isBusy = true;
    const record = await runOne(llm, { promptIds: prompt(work.inputLen), outputLen: 1, skipPrefixCache: true });
    // The token that waited for the prompt's last step comes with it.
    await streams.wait(1);
    streams.isBusy = false;
    streams.result.ttftMs.push(record.firstMs - record.startMs);
  }
  await streams.stop();
  return streams.result;
}

function readTargets(list: readonly string[]): number[] {
  return list.map((text) => {
    const target = Number(text);
    if (target >= 0 && target <= 3_600_000) return target;
    throw new TokenmillError('flag_invalid', `--targets: ${text.slice(0, 40)} is not a number of milliseconds.`, {
      param: '--targets',
      remedy: 'For example --targets 0 50 100.',
    });
  });
}

function report(results: ReadonlyMap<number, StallResult>): string[] {
  const rows = [['--target-itl-ms', 'quiet p50', 'busy p50', 'p99', 'max', 'TTFT p50']];
  for (const [target, { quietMs, busyMs, ttftMs }] of results) {
    const [quiet, busy, ttft] = [summarize(quietMs), summarize(busyMs), summarize(ttftMs)];
    const cells = [quiet?.p50, busy?.p50, busy?.p99, busy?.max, ttft?.p50];
    rows.push([target === 0 ? 'off' : String(target), ...cells.map((ms) => formatNumber(ms ?? Number.NaN))]);
  }
  return table(rows);
}

export async function benchStall(args: readonly string[]): Promise<number> {
  const parsed = await parseEngineBench('stall', DOC, STALL_FLAGS, args);
  if (parsed === null) return 0;
  const { config, flags } = parsed;
  const results = new Map<number, StallResult>();
  const progress = progressLine(process.stderr);
  let about = '';
  for (let round = 0; round < flags.rounds; round++) {
    for (const target of readTargets(flags.targets)) {
      const llm = await loadBenchEngine({ ...config, targetItlMs: target });
      progress.show(`round ${round + 1} of ${flags.rounds}, target ${target}`);
      about = describeEngine(llm);
      const one = await measureStall(llm, flags, new Rng(round)).finally(() => llm.close());
      const all = results.get(target) ?? { quietMs: [], busyMs: [], ttftMs: [] };
      for (const key of ['quietMs', 'busyMs', 'ttftMs'] as const) all[key].push(...one[key]);
      results.set(target, all);
    }
  }
  progress.clear();
  const work = `${flags.streams} streams, ${flags.arrivals} prompts of ${flags.inputLen} tokens in each of ${flags.rounds} rounds; ms`;
  process.stdout.write(`${about}\n${work}\n\n${report(results).join('\n')}\n`);
  if (flags.outputJson !== null) {
    const all = Object.fromEntries(results);
    const json = { date: new Date().toISOString(), about, work: flags, results: all };
    await writeFile(flags.outputJson, `${JSON.stringify(json, null, 2)}\n`);
  }
  return 0;
}
