/** Random requests, aborts and tiny caches against the definition without blocks. A failure prints its seed. */
import { describe, expect, test } from 'vitest';
import { Rng } from '../base/rng.ts';
import { EngineCore, type EngineCoreConfig } from './engine_core.ts';
import { maxSequenceTokens } from './scheduler.ts';
import {
  expectedTokens,
  FAKE_VOCAB,
  FakeExecutor,
  makePrompt,
  makeRequest,
  testClock,
} from './testdata/fake_executor.ts';
import type { EngineRequest, StepOutputs } from './types.ts';

interface Flight {
  readonly request: EngineRequest;
  readonly tokens: number[];
  aborted: boolean;
}

function randomConfig(rng: Rng): EngineCoreConfig {
  const blockSize = rng.pick([1, 2, 4, 16]);
  const maxModelLen = rng.pick([24, 48, 96]);
  const enableChunkedPrefill = rng.next() < 0.8;
  return {
    vocabSize: FAKE_VOCAB,
    blockSize,
    numBlocks: Math.ceil((maxModelLen * rng.pick([1, 1.3, 3])) / blockSize),
    maxModelLen,
    maxNumSeqs: rng.int(1, 12),
    maxNumBatchedTokens: enableChunkedPrefill ? rng.int(1, 64) : maxModelLen,
    enablePrefixCaching: rng.next() < 0.7,
    enableChunkedPrefill,
    schedulingPolicy: rng.pick(['fcfs', 'priority'] as const),
    longPrefillTokenThreshold: rng.pick([0, 0, 5]),
    targetItlMs: enableChunkedPrefill ? rng.pick([0, 1, 40]) : 0,
    watermark: rng.pick([0, 0, 0.1]),
  };
}

/** Half of the prompts start like one of a few others. */
function randomRequest(rng: Rng, id: string, maxModelLen: number): EngineRequest {
  const length = rng.int(1, maxModelLen - 1);
  const prompt = makePrompt(rng.int(0, 1 << 20), length);
  if (rng.next() < 0.5) {
    const shared = rng.int(0, length);
    prompt.set(makePrompt(rng.int(0, 3), shared).subarray(0, shared));
  }
  return makeRequest(
    id,
    prompt,
    { maxTokens: rng.int(1, 12), promptLogprobs: rng.next() < 0.05 ? 0 : null },
    {
      priority: rng.int(-2, 2),
      cacheSalt: rng.next() < 0.1 ? 'salt' : null,
      skipPrefixCache: rng.next() < 0.05,
      arrivalMs: rng.int(0, 1000),
    },
  );
}

class Fuzz {
  readonly counts = { arrivals: 0, aborts: 0, preemptions: 0, hits: 0 };
  private readonly rng: Rng;
  private readonly config: EngineCoreConfig;
  private readonly core: EngineCore;
  private readonly flights = new Map<string, Flight>();

  constructor(seed: number) {
    this.rng = new Rng(seed);
    this.config = randomConfig(this.rng);
    const executor = new FakeExecutor(this.config.numBlocks, this.config.blockSize);
    this.core = new EngineCore(this.config, executor, testClock());
  }

  run(arrivals: number): void {
    while (this.counts.arrivals < arrivals || this.core.hasWork()) {
      if (this.counts.arrivals < arrivals && this.flights.size < 40 && this.rng.next() < 0.7) this.arrive();
      if (this.flights.size > 0 && this.rng.next() < 0.15) this.abortOne();
      if (this.core.hasWork()) this.settle(this.core.step());
      if (this.rng.next() < 0.02) this.core.check();
    }
    this.core.check();
    expect(this.flights.size).toBe(0);
    expect(this.core.scheduler.blocks.freeBlocks).toBe(this.config.numBlocks);
    expect(this.core.scheduler.running.length + this.core.scheduler.waiting.size).toBe(0);
  }

  private arrive(): void {
    const request = randomRequest(this.rng, `r${this.counts.arrivals++}`, this.config.maxModelLen);
    this.flights.set(request.id, { request, tokens: [], aborted: false });
    this.core.apply({ kind: 'add', requests: [request] });
  }

  private abortOne(): void {
    const flight = this.rng.pick([...this.flights.values()]);
    flight.aborted = true;
    this.counts.aborts++;
    this.core.apply({ kind: 'abort', ids: [flight.request.id] });
  }

  private settle({ outputs, stats }: StepOutputs): void {
    this.counts.preemptions += stats.preemptions;
    this.counts.hits += stats.prefixHits;
    for (const output of outputs) {
      const flight = this.flights.get(output.id);
      if (flight === undefined) throw new Error(`output for ${output.id}, which is not in flight`);
      flight.tokens.push(...output.newTokenIds);
      if (output.finishReason === null) continue;
      this.flights.delete(output.id);
      const { promptTokenIds, sampling } = flight.request;
      expect(output.finishReason).toBe(flight.aborted ? 'abort' : 'length');
      if (!flight.aborted) {
        const room = maxSequenceTokens(this.config) - promptTokenIds.length;
        expect(flight.tokens.length).toBe(Math.min(sampling.maxTokens, Math.max(1, room)));
      }
      expect(flight.tokens).toEqual(expectedTokens(promptTokenIds, flight.tokens.length));
    }
  }
}

describe('engine fuzz', () => {
  test('random schedules give each request what it gets alone, and leak no block', () => {
    const total = { arrivals: 0, aborts: 0, preemptions: 0, hits: 0 };
    for (let seed = 1; seed <= 60; seed++) {
      const fuzz = new Fuzz(seed);
      try {
        fuzz.run(60);
      } catch (error) {
        throw new Error(`seed ${seed}: ${(error as Error).message}`, { cause: error });
      }
      for (const key of ['arrivals', 'aborts', 'preemptions', 'hits'] as const) total[key] += fuzz.counts[key];
    }
    // The run must have been rough enough to prove something.
    expect(Math.min(total.aborts, total.preemptions, total.hits)).toBeGreaterThan(100);
  });

  test('no block is lost after 100,000 random arrivals, cancels and preemptions', () => {
    const total = { events: 0, preemptions: 0 };
    for (let seed = 1001; total.events < 100_000; seed++) {
      const rng = new Rng(seed);
      const config = { ...randomConfig(rng), maxModelLen: 24, blockSize: 4, numBlocks: 12 };
      const core = new EngineCore({ ...config, vocabSize: FAKE_VOCAB }, new FakeExecutor(12, 4), testClock());
      for (let i = 0; i < 10_000; i++) {
        const id = `r${i}`;
        core.apply({ kind: 'add', requests: [randomRequest(rng, id, 12)] });
        total.events++;
        if (rng.next() < 0.4) {
          core.apply({ kind: 'abort', ids: [`r${rng.int(Math.max(0, i - 8), i)}`] });
          total.events++;
        }
        while (core.scheduler.waiting.size > 6) total.preemptions += core.step().stats.preemptions;
      }
      while (core.hasWork()) total.preemptions += core.step().stats.preemptions;
      core.check();
      expect(core.scheduler.blocks.freeBlocks, `seed ${seed}`).toBe(12);
    }
    expect(total.preemptions).toBeGreaterThan(1000);
  });
});
