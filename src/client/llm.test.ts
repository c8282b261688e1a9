import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { TokenmillError } from '../base/errors.ts';
import { cpuIsaLevels } from '../executor/backends.ts';
import type { GenerationDelta } from './async_llm.ts';
import { LLM } from './llm.ts';
import { SamplingParams } from './sampling_params.ts';

interface Golden {
  readonly messages: { role: string; content: string }[];
  readonly tools: unknown[] | null;
  readonly prompt: string;
  readonly prompt_token_ids: number[];
  readonly output_token_ids: number[];
  readonly text: string;
  readonly smallest_top2_gap: number;
}

const goldens = JSON.parse(
  readFileSync(new URL('../../test/golden/answers.json', import.meta.url), 'utf8'),
) as Golden[];
/** Below this gap between the two likeliest tokens a reduced precision may rightly choose the other. */
const SAFE_GAP = 0.05;
const safe = goldens.filter((golden) => golden.smallest_top2_gap >= SAFE_GAP);
const FRANCE = [{ role: 'user', content: 'What is the capital of France?' }];
const PAGED = [{ role: 'user', content: 'What is PagedAttention?' }];
const backends = ['reference', ...(cpuIsaLevels().length > 0 ? ['cpu' as const] : [])] as const;

async function collect(deltas: AsyncIterable<GenerationDelta>): Promise<GenerationDelta[]> {
  const all: GenerationDelta[] = [];
  for await (const delta of deltas) all.push(delta);
  return all;
}

describe.each(backends)('greedy answers of the embedded model on %s are those of transformers', (backend) => {
  let llm: LLM;
  beforeAll(async () => {
    llm = await LLM.load(undefined, {
      backend,
      inProcess: true,
      maxNumSeqs: 8,
      maxNumBatchedTokens: 256,
      maxModelLen: 1024,
    });
  });
  afterAll(() => llm.close());

  test('templates render, and tokenize to, the golden prompts', () => {
    for (const golden of goldens) {
      const rendered = llm.renderChat(golden.messages, golden.tools ? { tools: golden.tools } : {});
      expect(rendered).toBe(golden.prompt);
      expect([...llm.tokenize(rendered, { addSpecialTokens: false })]).toEqual(golden.prompt_token_ids);
    }
  });

  test('in one batch', async () => {
    // The definition takes a quarter of a second a prompt: the shortest do there.
    const chosen =
      backend === 'cpu'
        ? safe
        : [...safe].sort((a, b) => a.output_token_ids.length - b.output_token_ids.length).slice(0, 3);
    expect(chosen.length).toBeGreaterThanOrEqual(3);
    const params = chosen.map(
      (golden) => new SamplingParams({ temperature: 0, maxTokens: golden.output_token_ids.length }),
    );
    const answers = await llm.generate(
      chosen.map((golden) => golden.prompt),
      params,
    );
    expect(answers.map((answer) => answer.outputs[0]!.tokenIds)).toEqual(
      chosen.map((golden) => golden.output_token_ids),
    );
    expect(answers.map((answer) => answer.text)).toEqual(chosen.map((golden) => golden.text));
  });
});

describe('the LLM class', () => {
  let llm: LLM;
  beforeAll(async () => {
    llm = await LLM.load(undefined, {
      backend: backends.at(-1)!,
      inProcess: true,
      maxModelLen: 256,
      maxNumSeqs: 16,
      maxNumQueuedReqs: 20,
    });
  });
  afterAll(() => llm.close());

  test('one prompt gives one answer, a batch gives a list in its order', async () => {
    const greedy = { temperature: 0, maxTokens: 8 };
    const single = await llm.chat(FRANCE, greedy);
    expect(single.text).toBe('The capital of France is Paris.');
    expect(single.outputs).toHaveLength(1);
    expect(single.outputs[0]).toMatchObject({
      index: 0,
      finishReason: 'stop',
      stopReason: null,
      logprobs: null,
      cumulativeLogprob: null,
    });
    const [ids, again] = await llm.generate(
      [single.promptTokenIds, single.prompt!],
      [{ temperature: 0, maxTokens: 3 }, greedy],
    );
    expect(ids!.prompt).toBeNull();
    expect(ids!.outputs[0]).toMatchObject({ text: 'The capital of', finishReason: 'length' });
    expect(again!.text).toBe(single.text);
    const batch = await llm.chat([FRANCE, PAGED], greedy);
    expect(batch.map((answer) => answer.text)).toEqual([
      single.text,
      'PagedAttention stores the KV cache in fixed-size',
    ]);
    expect(await llm.generate([])).toEqual([]);
  });

  test('metrics count tokens and put times in order', async () => {
    const { metrics } = await llm.chat(PAGED, { temperature: 0, maxTokens: 5 });
    expect(metrics).toMatchObject({ promptTokens: 12, outputTokens: 5, preemptions: 0 });
    expect(metrics.queueMs).toBeLessThanOrEqual(metrics.ttftMs);
    expect(metrics.ttftMs).toBeLessThanOrEqual(metrics.e2eMs);
    expect(metrics.tpotMs).toBeGreaterThan(0);
  });

  test('progress is reported for every prompt', async () => {
    const seen: [number, number][] = [];
    await llm.generate(['a', 'b', 'c'], { maxTokens: 1 }, { progress: (done, total) => seen.push([done, total]) });
    expect(seen).toEqual([
      [1, 3],
      [2, 3],
      [3, 3],
    ]);
  });

  test('streams join to the answer; leaving the loop aborts', async () => {
    const deltas = await collect(llm.stream(FRANCE, { temperature: 0, maxTokens: 20 }));
    expect(deltas.map((delta) => delta.text).join('')).toBe('The capital of France is Paris.');
    expect(deltas.filter((delta) => delta.finishReason !== null)).toHaveLength(1);
    for await (const delta of llm.stream(PAGED, { temperature: 0, maxTokens: 100 })) {
      expect(delta.finishReason).toBeNull();
      break;
    }
    expect(llm.engine.inFlight).toBe(0);
  });

  test('n choices: consecutive seeds, each equal to the request alone', async () => {
    const sampled = { temperature: 1, maxTokens: 12, seed: 77 };
    const together = await llm.generate('Once upon a time', { ...sampled, n: 3 });
    expect(together.outputs.map(({ index }) => index)).toEqual([0, 1, 2]);
    for (const [i, output] of together.outputs.entries()) {
      const alone = await llm.generate('Once upon a time', { ...sampled, seed: 77 + i });
      expect(output.tokenIds).toEqual(alone.outputs[0]!.tokenIds);
    }
    expect(new Set(together.outputs.map(({ text }) => text)).size).toBeGreaterThan(1);
  });

  test('stop strings across tokens, excluded and included', async () => {
    const greedy = { temperature: 0, maxTokens: 60 };
    const whole = (await llm.chat(PAGED, greedy)).text;
    // Begins and ends in the middle of tokens.
    const stop = 'ed-size bl';
    expect(whole).toContain(stop);
    const cut = await llm.chat(PAGED, { ...greedy, stop: ['nowhere', stop] });
    expect(cut.text).toBe(whole.slice(0, whole.indexOf(stop)));
    expect(cut.outputs[0]).toMatchObject({ finishReason: 'stop', stopReason: stop });
    const kept = await llm.chat(PAGED, { ...greedy, stop, includeStopStrInOutput: true });
    expect(kept.text).toBe(whole.slice(0, whole.indexOf(stop) + stop.length));
    const late = await llm.chat(PAGED, { ...greedy, stop, minTokens: 20 });
    expect(late.text).toBe(whole);
    expect(llm.engine.inFlight).toBe(0);
  });

  test('stop tokens and the end of the sequence', async () => {
    const [paris] = llm.tokenize(' Paris', { addSpecialTokens: false });
    const greedy = { temperature: 0, maxTokens: 20 };
    const stopped = await llm.chat(FRANCE, { ...greedy, stopTokenIds: [paris!] });
    expect(stopped.outputs[0]).toMatchObject({ text: 'The capital of France is', stopReason: paris });
    expect(stopped.outputs[0]!.tokenIds.at(-1)).toBe(paris);
    const kept = await llm.chat(FRANCE, { ...greedy, stopTokenIds: [paris!], includeStopStrInOutput: true });
    expect(kept.text).toBe('The capital of France is Paris');
    const on = await llm.chat(FRANCE, { ...greedy, ignoreEos: true });
    expect(on.outputs[0]).toMatchObject({ finishReason: 'length' });
    expect(on.text.startsWith('The capital of France is Paris.')).toBe(true);
  });

  test('logprobs of answer and prompt, as text', async () => {
    const { outputs, promptLogprobs, promptTokenIds } = await llm.chat(FRANCE, {
      temperature: 0,
      maxTokens: 3,
      logprobs: 2,
      promptLogprobs: 1,
    });
    const { logprobs, tokenIds, cumulativeLogprob } = outputs[0]!;
    expect(logprobs!.map(({ tokenId }) => tokenId)).toEqual(tokenIds);
    expect(logprobs!.map(({ token }) => token).join('')).toBe('The capital of');
    for (const entry of logprobs!) {
      expect(entry.top).toHaveLength(2);
      // Greedy: the chosen token is the likeliest.
      expect(entry.top[0]).toMatchObject({ tokenId: entry.tokenId, logprob: entry.logprob, rank: 1 });
      expect(entry.top[1]!.logprob).toBeLessThanOrEqual(entry.logprob);
    }
    expect(cumulativeLogprob).toBeCloseTo(
      logprobs!.reduce((sum, { logprob }) => sum + logprob, 0),
      12,
    );
    expect(promptLogprobs).toHaveLength(promptTokenIds.length);
    expect(promptLogprobs![0]).toBeNull();
    expect(promptLogprobs!.slice(1).map((entry) => entry!.tokenId)).toEqual([...promptTokenIds.subarray(1)]);
  });

  test('the masks hold: allowed tokens, bad words, bias', async () => {
    const [paris, the] = [' Paris', 'The'].map((text) => llm.tokenize(text, { addSpecialTokens: false })[0]!);
    const greedy = { temperature: 0, maxTokens: 8 };
    const allowed = await llm.chat(FRANCE, { ...greedy, maxTokens: 3, allowedTokenIds: [paris!, the!] });
    expect(allowed.outputs[0]!.tokenIds.every((id) => id === paris || id === the)).toBe(true);
    expect((await llm.chat(FRANCE, { ...greedy, badWords: ['Paris'] })).text).not.toContain('Paris');
    expect((await llm.chat(FRANCE, { ...greedy, maxTokens: 1, logitBias: { [String(paris)]: 100 } })).text).toBe(
      ' Paris',
    );
  });

  test('without detokenizing there are tokens but no text', async () => {
    const { outputs } = await llm.chat(FRANCE, { temperature: 0, maxTokens: 4, detokenize: false });
    expect(outputs[0]).toMatchObject({ text: '', finishReason: 'length' });
    expect(outputs[0]!.tokenIds).toHaveLength(4);
  });

  test('abort ends every answer and frees the queue', async () => {
    const stop = new AbortController();
    const running = llm.generate(['a', 'b', 'c'], { maxTokens: 200, ignoreEos: true, n: 2 }, { signal: stop.signal });
    setTimeout(() => stop.abort(), 20);
    const answers = await running;
    expect(answers.flatMap(({ outputs }) => outputs.map(({ finishReason }) => finishReason))).toEqual(
      Array(6).fill('abort'),
    );
    expect(llm.engine.inFlight).toBe(0);
    const gone = AbortSignal.abort();
    expect((await llm.generate('a', { maxTokens: 5 }, { signal: gone })).outputs[0]!.finishReason).toBe('abort');
  });

  test('the queue is bounded and says so; a batch of any size stays within it', async () => {
    const flood = Array.from({ length: 21 }, () => collect(llm.stream('a', { maxTokens: 2, ignoreEos: true })));
    const results = await Promise.allSettled(flood);
    const refused = results
      .filter((result) => result.status === 'rejected')
      .map(({ reason }) => reason as TokenmillError);
    expect(refused.map(({ code, status, retryAfterS }) => [code, status, retryAfterS])).toEqual([
      ['queue_full', 429, 1],
    ]);
    expect(llm.engine.inFlight).toBe(0);
    const many = await llm.generate(
      Array.from({ length: 50 }, (_, i) => `${i}`),
      { maxTokens: 1 },
    );
    expect(many).toHaveLength(50);
    await expect(llm.generate('a', { n: 21 })).rejects.toMatchObject({ code: 'invalid_request', param: 'n' });
  });

  test('what cannot be answered is refused by name, and harms nobody else', async () => {
    const neighbour = llm.chat(FRANCE, { temperature: 0, maxTokens: 8 });
    const refused: readonly (readonly [Promise<unknown>, string])[] = [
      [llm.generate('x'.repeat(1 << 20)), 'context_length_exceeded'],
      [llm.generate('word '.repeat(300)), 'context_length_exceeded'],
      [llm.generate(Int32Array.from({ length: 256 }, () => 5)), 'context_length_exceeded'],
      [llm.generate([4096]), 'invalid_request'],
      [llm.generate([-1]), 'invalid_request'],
      [llm.generate(''), 'invalid_request'],
      [llm.generate('a', { temperature: -1 }), 'invalid_request'],
      [llm.generate(['a', 'b'], [{}]), 'invalid_request'],
      [llm.chat([]), 'template_error'],
    ];
    for (const [promise, code] of refused) await expect(promise).rejects.toMatchObject({ code });
    expect((await neighbour).text).toBe('The capital of France is Paris.');
    expect(llm.engine.inFlight).toBe(0);
  });

  test('probe, cache reset, health', async () => {
    await llm.engine.probe();
    expect(await llm.engine.resetPrefixCache()).toBe(true);
    expect(llm.engine.health()).toMatchObject({ healthy: true, reason: null });
    expect(llm.engine.defaultSampling).toEqual({ temperature: 0.7, topP: 0.9 });
  });
});

test('options are checked like flags', async () => {
  await expect(LLM.load(undefined, { maxModelLn: 5 } as object)).rejects.toThrow(
    /Unknown option maxModelLn\. Did you mean maxModelLen\?/,
  );
  await expect(LLM.load('./nowhere')).rejects.toMatchObject({ code: 'model_files_missing' });
  await expect(LLM.load(undefined, { maxModelLen: 99999, inProcess: true })).rejects.toMatchObject({
    code: 'flag_invalid',
  });
});

test('generation defaults: none, patched', async () => {
  const load = { backend: 'reference', inProcess: true, maxModelLen: 64, maxNumSeqs: 1 } as const;
  await using neutral = await LLM.load(undefined, {
    ...load,
    generationConfig: 'vllm',
    overrideGenerationConfig: { top_k: 3 },
  });
  expect(neutral.engine.defaultSampling).toEqual({ topK: 3 });
  await expect(LLM.load(undefined, { ...load, overrideGenerationConfig: { tempo: 1 } })).rejects.toThrow(
    /tempo is not a sampling default/,
  );
});
