import { expect, test } from 'vitest';
import { AssertionError } from '../base/assert.ts';
import { EngineCore } from './engine_core.ts';
import type { Executor } from './executor.ts';
import {
  expectedTokens,
  FAKE_VOCAB,
  FakeExecutor,
  makePrompt,
  makeRequest,
  testClock,
} from './testdata/fake_executor.ts';
import type { EngineRequest, RequestOutput } from './types.ts';

const CONFIG = {
  blockSize: 4,
  numBlocks: 32,
  maxModelLen: 64,
  maxNumSeqs: 4,
  maxNumBatchedTokens: 16,
  enablePrefixCaching: true,
  enableChunkedPrefill: true,
  schedulingPolicy: 'fcfs',
  longPrefillTokenThreshold: 0,
  targetItlMs: 0,
  watermark: 0,
  vocabSize: FAKE_VOCAB,
} as const;

function makeCore(executor: Executor = new FakeExecutor(CONFIG.numBlocks, CONFIG.blockSize)): EngineCore {
  return new EngineCore(CONFIG, executor, testClock());
}

function runAll(core: EngineCore, requests: readonly EngineRequest[]): RequestOutput[] {
  core.apply({ kind: 'add', requests });
  const outputs: RequestOutput[] = [];
  while (core.hasWork()) outputs.push(...core.step().outputs);
  return outputs;
}

const prompt = makePrompt(3, 10);
const tokens = expectedTokens(prompt, 8);

test('eos ends with stop and no stop token id; the token is reported', () => {
  const outputs = runAll(makeCore(), [makeRequest('a', prompt, { eosTokenIds: [tokens[2] as number] })]);
  expect(outputs.flatMap((o) => o.newTokenIds)).toEqual(tokens.slice(0, 3));
  expect(outputs.at(-1)).toMatchObject({ finishReason: 'stop', stopTokenId: null });
});

test('a stop token id ends with stop and is named, eos first when it is both', () => {
  const id = tokens[1] as number;
  expect(runAll(makeCore(), [makeRequest('a', prompt, { stopTokenIds: [id] })]).at(-1)).toMatchObject({
    finishReason: 'stop',
    stopTokenId: id,
  });
  expect(
    runAll(makeCore(), [makeRequest('a', prompt, { stopTokenIds: [id], eosTokenIds: [id] })]).at(-1),
  ).toMatchObject({ finishReason: 'stop', stopTokenId: null });
});

test('stops do not count before min_tokens', () => {
  const early = { stopTokenIds: [tokens[1] as number], minTokens: 3, maxTokens: 5 };
  const outputs = runAll(makeCore(), [makeRequest('a', prompt, early)]);
  expect(outputs.flatMap((o) => o.newTokenIds)).toEqual(tokens.slice(0, 5));
  expect(outputs.at(-1)?.finishReason).toBe('length');
});

test('length: max_tokens, or the context', () => {
  expect(runAll(makeCore(), [makeRequest('a', prompt, { maxTokens: 1 })])).toHaveLength(1);
  const long = runAll(makeCore(), [makeRequest('a', makePrompt(1, 60), { maxTokens: 50 })]);
  expect(long.map((o) => o.finishReason)).toEqual([null, null, null, 'length']);
});

test('a request that cannot run is refused and the others go on', () => {
  const outputs = runAll(makeCore(), [
    makeRequest('empty', new Int32Array(0)),
    makeRequest('long', makePrompt(1, 64)),
    makeRequest('stranger', Int32Array.of(1, FAKE_VOCAB)),
    makeRequest('negative', Int32Array.of(-1)),
    makeRequest('good', prompt),
  ]);
  const codes = outputs.filter((o) => o.error !== null).map((o) => [o.id, o.error?.code, o.finishReason]);
  expect(codes).toEqual([
    ['empty', 'invalid_request', 'error'],
    ['long', 'context_length_exceeded', 'error'],
    ['stranger', 'invalid_request', 'error'],
    ['negative', 'invalid_request', 'error'],
  ]);
  expect(outputs.filter((o) => o.id === 'good').flatMap((o) => o.newTokenIds)).toEqual(tokens);
});

test('timing, stats and the order of life', () => {
  const core = makeCore();
  core.apply({ kind: 'add', requests: [makeRequest('a', prompt, { maxTokens: 2 })] });
  const first = core.step();
  expect(first.outputs[0]?.timing).toEqual({ scheduledMs: 1, firstTokenMs: 2, lastTokenMs: 2, preemptions: 0 });
  expect(first.stats).toMatchObject({ numRunning: 1, numWaiting: 0, promptTokens: 10, generatedTokens: 1, stepMs: 1 });
  expect(first.stats.kvUsage).toBeCloseTo(3 / 32);
  const second = core.step();
  expect(second.outputs[0]?.timing).toEqual({ scheduledMs: 1, firstTokenMs: 2, lastTokenMs: 4, preemptions: 0 });
  expect(second.stats).toMatchObject({ numRunning: 0, promptTokens: 0, generatedTokens: 1, kvUsage: 0 });
  expect(core.hasWork()).toBe(false);
});

test('prompt logprobs come once, with the first token, however the prompt was chunked', () => {
  const request = makeRequest('a', makePrompt(9, 40), { maxTokens: 2, promptLogprobs: 0 });
  const [first, second] = runAll(makeCore(), [request]);
  expect(first?.promptLogprobs).toHaveLength(40);
  expect(first?.promptLogprobs?.[0]).toBeNull();
  expect(first?.promptLogprobs?.slice(1).map((p) => p?.tokenIds[0])).toEqual([...request.promptTokenIds.subarray(1)]);
  expect(second?.promptLogprobs).toBeNull();
});

test('shutdown aborts what is in flight and frees it', () => {
  const core = makeCore();
  core.apply({ kind: 'add', requests: [makeRequest('a', prompt), makeRequest('b', prompt)] });
  core.step();
  expect(core.apply({ kind: 'shutdown' })).toBe(false);
  expect(core.step().outputs.map((o) => [o.id, o.finishReason])).toEqual([
    ['a', 'abort'],
    ['b', 'abort'],
  ]);
  expect(core.scheduler.blocks.freeBlocks).toBe(CONFIG.numBlocks);
});

test('an executor that throws ends the engine', () => {
  const broken: Executor = {
    submit: () => {
      throw new AssertionError('kernel');
    },
    collect: () => {
      throw new Error('not reached');
    },
    close: () => {},
  };
  const core = makeCore(broken);
  core.apply({ kind: 'add', requests: [makeRequest('a', prompt)] });
  expect(() => core.step()).toThrow(AssertionError);
});
