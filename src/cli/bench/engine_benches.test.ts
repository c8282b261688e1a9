import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Rng } from '../../base/rng.ts';
import type { LLMEngine } from '../../client/llm_engine.ts';
import { loadEngine } from '../../client/load_engine.ts';
import { parseEngineBench, randomPrompt } from './engine_run.ts';
import { LATENCY_FLAGS, measureLatency } from './latency.ts';
import { benchMakeModel } from './make_model.ts';
import { formatModes, makeModesWork, measureModes } from './modes.ts';
import { measureStall } from './stall.ts';
import { measureThroughput } from './throughput.ts';

let folder: string;
let llm: LLMEngine;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tokenmill-bench-'));
  expect(await benchMakeModel(['tiny-llama', '--out', join(folder, 'model')])).toBe(0);
  const flags = ['--backend', 'reference', '--max-model-len', '256', '--num-gpu-blocks-override', '256'];
  const parsed = await parseEngineBench('latency', '', {}, [join(folder, 'model'), ...flags]);
  if (parsed === null) throw new Error('no help was asked for');
  llm = await loadEngine(parsed.config, { inProcess: true });
});

afterAll(async () => {
  await llm?.close();
  await rm(folder, { recursive: true, force: true });
});

describe('offline benchmarks', () => {
  it('take the flags of serve beside their own', async () => {
    const parse = (...args: string[]) => parseEngineBench('latency', '', LATENCY_FLAGS, args);
    const parsed = await parse('m', '--max-num-seqs', '9', '--batch-size', '3');
    expect(parsed?.config).toMatchObject({ model: 'm', maxNumSeqs: 9 });
    expect(parsed?.config).not.toHaveProperty('batchSize');
    expect(parsed?.flags).toMatchObject({ batchSize: 3, inputLen: 32 });
    await expect(parse('--batch-sise', '3')).rejects.toThrow('--batch-size');
  });

  it('latency: one figure a repetition and a request', async () => {
    const work = { inputLen: 5, outputLen: 4, batchSize: 2, numIters: 3, numItersWarmup: 1 };
    const result = await measureLatency(llm, work, () => {});
    expect(result.secondsEach).toHaveLength(3);
    expect(result.firstTokenS).toHaveLength(6);
    expect(result.perTokenS).toHaveLength(6);
  });

  it('throughput: counts every token of the work', async () => {
    const rng = new Rng(1);
    const works = [3, 20, 7].map((length) => ({
      promptIds: randomPrompt(length, 500, rng),
      outputLen: 6,
      skipPrefixCache: true,
    }));
    const result = await measureThroughput(llm, works, () => {});
    expect(result).toMatchObject({ requests: 3, promptTokens: 30, outputTokens: 18, cachedTokens: 0 });
  });

  it('stall: every token of every stream is counted once, beside the first token of each prompt', async () => {
    const work = { streams: 3, streamInputLen: 4, inputLen: 40, quietTokens: 2, arrivals: 2 };
    const { quietMs, busyMs, ttftMs } = await measureStall(llm, work, new Rng(1));
    expect(ttftMs).toHaveLength(2);
    expect(quietMs.length).toBeGreaterThanOrEqual(3 * 4 - 3);
    expect(busyMs.length).toBeGreaterThanOrEqual(2 * 3);
    expect(Math.min(...quietMs, ...busyMs)).toBeGreaterThanOrEqual(0);
  });

  it('modes: the same work in each, cached tokens in the last only', async () => {
    const work = { numPrompts: 6, prefixLen: 64, inputLen: 6, outputLen: 5, rangeRatio: 0.5, batchSize: 3 };
    const results = await measureModes(llm, work, () => {});
    expect(results.map(({ mode }) => mode)).toEqual([
      'one by one',
      'static batches of 3',
      'continuous batching',
      'continuous + shared prefix',
    ]);
    expect(results.slice(0, 3).map(({ cachedTokens }) => cachedTokens)).toEqual([0, 0, 0]);
    const tokens = results.map(({ tokensPerS, seconds }) => Math.round(tokensPerS * seconds));
    expect(new Set(tokens).size).toBe(1);
    expect(formatModes(results)).toHaveLength(5);
  });

  it('modes: lengths are mixed around the average', () => {
    const work = { numPrompts: 200, prefixLen: 4, inputLen: 20, outputLen: 20, rangeRatio: 0.75, batchSize: 8 };
    const lengths = makeModesWork(work, 100, new Rng(0)).map(({ outputLen }) => outputLen);
    expect([Math.min(...lengths), Math.max(...lengths)]).toEqual([5, 35]);
  });
});

describe('make-model', () => {
  it('writes a folder of the shape', async () => {
    const config = JSON.parse(await readFile(join(folder, 'model', 'config.json'), 'utf8')) as Record<string, unknown>;
    expect(config['architectures']).toEqual(['LlamaForCausalLM']);
  });

  it('refuses unknown shapes and folders in use', async () => {
    await expect(benchMakeModel(['smol-135', '--out', join(folder, 'x')])).rejects.toThrow('smol-135m');
    await expect(benchMakeModel(['tiny-llama', '--out', join(folder, 'model')])).rejects.toThrow('not empty');
    await expect(benchMakeModel([])).rejects.toThrow('needs the name');
  });
});
