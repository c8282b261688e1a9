/** An engine in this process for the offline benchmarks, and requests of known length on it. */
import { systemClock } from '../../base/clock.ts';
import type { Rng } from '../../base/rng.ts';
import type { AsyncLLM } from '../../client/async_llm.ts';
import type { LLMEngine } from '../../client/llm_engine.ts';
import { loadEngine } from '../../client/load_engine.ts';
import type { ConfigOf, FlagTable } from '../../config/flag_types.ts';
import type { EngineConfig } from '../../config/flags.ts';
import { parseEngineArgs, printNotes } from '../engine_args.ts';
import { progressLine } from './progress.ts';

export interface EngineWork {
  readonly promptIds: Int32Array;
  readonly outputLen: number;
  /** Neither read nor fill what other requests share. */
  readonly skipPrefixCache: boolean;
}

/** Times in ms. */
export interface EngineRecord {
  readonly startMs: number;
  readonly firstMs: number;
  readonly endMs: number;
  readonly promptTokens: number;
  readonly cachedTokens: number;
  readonly outputTokens: number;
}

/** A benchmark's own flags have the group `own`; `serve`'s come beside them, the model may be positional. Null after help. */
export async function parseEngineBench<const T extends FlagTable>(
  name: string,
  doc: string,
  own: T,
  args: readonly string[],
): Promise<{ config: EngineConfig; flags: ConfigOf<T> } | null> {
  const parsed = await parseEngineArgs(args, {
    usage: [`Usage: tokenmill bench ${name} [model] [flags]`, '', doc],
    own,
    heading: 'Benchmark',
    shown: ['model', 'device'],
    modelFirst: true,
    maxPositionals: 1,
  });
  if (parsed === null) return null;
  printNotes(parsed.notes);
  return { config: parsed.config, flags: parsed.own };
}

export async function loadBenchEngine(config: EngineConfig): Promise<LLMEngine> {
  const progress = progressLine(process.stderr);
  const engine = await loadEngine(config, {
    onLoad: ({ done, total }) => progress.show(`loading weights: ${done} of ${total}`),
  });
  progress.clear();
  return engine;
}

/** Ids of the whole vocabulary: their values do not change how long anything takes, and repeats would be prefix hits. */
export function randomPrompt(length: number, vocabSize: number, rng: Rng): Int32Array {
  return Int32Array.from({ length }, () => rng.int(0, vocabSize - 1));
}

let requests = 0;

export async function runOne(llm: AsyncLLM, work: EngineWork): Promise<EngineRecord> {
  const startMs = systemClock.now();
  let firstMs = 0;
  let outputTokens = 0;
  let cachedTokens = 0;
  const request = {
    id: `bench-${requests++}`,
    prompt: work.promptIds,
    params: { temperature: 0, maxTokens: work.outputLen, ignoreEos: true, detokenize: false },
    skipPrefixCache: work.skipPrefixCache,
  };
  for await (const delta of llm.generate(request)) {
    if (delta.tokenIds.length > 0 && firstMs === 0) firstMs = systemClock.now();
    outputTokens += delta.tokenIds.length;
    cachedTokens = delta.cachedTokens;
  }
  const promptTokens = work.promptIds.length;
  return { startMs, firstMs, endMs: systemClock.now(), promptTokens, cachedTokens, outputTokens };
}

/** All at once, but never more than the queue admits; the engine batches them. */
export async function runAll(
  llm: AsyncLLM,
  works: readonly EngineWork[],
  onProgress: (done: number) => void = () => {},
): Promise<EngineRecord[]> {
  const records: EngineRecord[] = [];
  let next = 0;
  let done = 0;
  const worker = async () => {
    for (let at = next++; at < works.length; at = next++) {
      records[at] = await runOne(llm, works[at] as EngineWork);
      onProgress(++done);
    }
  };
  const width = Math.min(works.length, llm.plan.config.maxNumQueuedReqs);
  await Promise.all(Array.from({ length: width }, worker));
  return records;
}

/** What a figure stands on: without it no two runs can be compared. */
export function describeEngine(llm: AsyncLLM): string {
  const { architecture, backend, isa, threads, weightDType, quantization, kvDType } = llm.plan;
  const weights = quantization === 'none' ? weightDType : quantization;
  return `${llm.plan.servedModelNames[0]} (${architecture}), ${backend} ${isa}, ${threads} threads, weights ${weights}, KV ${kvDType}`;
}
