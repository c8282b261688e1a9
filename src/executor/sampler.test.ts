/** The sampling pipeline against golden cases, on every implementation of LogitRows, and what golden cases do not say. */
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import type { LogitRows } from '../backends/backend.ts';
import { drawRows, ReferenceLogitRows } from '../backends/reference/logit_rows.ts';
import { TokenmillError } from '../base/errors.ts';
import { Sequence } from '../engine/sequence.ts';
import { makeRequest } from '../engine/testdata/fake_executor.ts';
import type { EngineSampling, TokenLogprobs } from '../engine/types.ts';
import { PlainRows } from './plain_rows.ts';
import { Sampler } from './sampler.ts';
import { cpuLogitRows } from './testdata/cpu_logit_rows.ts';

interface GoldenCase {
  readonly name: string;
  readonly logits: readonly number[];
  readonly prompt_ids: readonly number[];
  readonly output_ids: readonly number[];
  readonly params: Readonly<Record<string, never>> & {
    readonly temperature: number;
    readonly top_k: number;
    readonly top_p: number;
    readonly min_p: number;
    readonly repetition_penalty: number;
    readonly frequency_penalty: number;
    readonly presence_penalty: number;
    readonly logit_bias: Readonly<Record<string, number>>;
    readonly min_tokens: number;
    readonly stop_token_ids: readonly number[];
    readonly bad_words: readonly (readonly number[])[];
    readonly allowed_token_ids: readonly number[] | null;
  };
  readonly greedy_token: number;
  readonly raw_logprobs: readonly (number | null)[];
  readonly logprobs: readonly (number | null)[];
}

const GOLDEN = JSON.parse(readFileSync(new URL('../../test/golden/sampling/cases.json', import.meta.url), 'utf8')) as {
  readonly vocab: number;
  readonly cases: readonly GoldenCase[];
};

const IMPLEMENTATIONS: readonly (readonly [string, LogitRows])[] = [
  ['reference', new ReferenceLogitRows(new Float32Array(GOLDEN.vocab), GOLDEN.vocab)],
  ...cpuLogitRows(),
];

function makeSequence(
  prompt: readonly number[],
  output: readonly number[],
  sampling: Partial<EngineSampling>,
): Sequence {
  const sequence = new Sequence(makeRequest('x', Int32Array.from(prompt), { maxTokens: 99, ...sampling }), 0);
  for (const id of output) sequence.append(id);
  return sequence;
}

function goldenSampling(c: GoldenCase): Partial<EngineSampling> & Pick<EngineSampling, 'temperature'> {
  const { params: p } = c;
  return {
    // The client raises small temperatures and spells "off" as 0.
    temperature: p.temperature === 0 ? 0 : Math.max(p.temperature, 0.01),
    topK: Math.max(0, p.top_k),
    topP: p.top_p,
    minP: p.min_p,
    repetitionPenalty: p.repetition_penalty,
    frequencyPenalty: p.frequency_penalty,
    presencePenalty: p.presence_penalty,
    logitBias: new Map(Object.entries(p.logit_bias).map(([id, bias]) => [Number(id), bias])),
    minTokens: p.min_tokens,
    stopTokenIds: p.stop_token_ids,
    badWords: p.bad_words,
    allowedTokenIds: p.allowed_token_ids,
    logprobs: -1,
  };
}

/** Fills row 0; ids beyond the case's vocabulary do not exist. */
function setRow(rows: LogitRows, logits: readonly number[]): void {
  rows.row(0).fill(Number.NEGATIVE_INFINITY);
  rows.row(0).set(logits);
}

/** By id; null where the list has none. */
function byId(list: TokenLogprobs | null, vocab: number): (number | null)[] {
  const result = new Array<number | null>(vocab).fill(null);
  for (const [i, id] of (list?.tokenIds ?? []).entries()) {
    const logprob = list?.logprobs[i] as number;
    if (logprob > Number.NEGATIVE_INFINITY) result[id] = logprob;
  }
  return result;
}

/**
 * 1e-5 in fp64. A row is fp32: `scale`, the largest logit over the temperature, is known to 24 bits before the sampler sees it.
 */
function expectClose(actual: readonly (number | null)[], expected: readonly (number | null)[], scale: number): void {
  expect(actual.map((v) => v === null)).toEqual(expected.map((v) => v === null));
  const worst = Math.max(...actual.map((v, i) => (v === null ? 0 : Math.abs(v - (expected[i] as number)))));
  expect(worst).toBeLessThan(1e-5 + scale * 2 ** -24);
}

describe.each(IMPLEMENTATIONS)('sampler on %s', (_name, rows) => {
  const sampler = new Sampler(rows);
  const run = (logits: readonly number[], sequence: Sequence) => {
    setRow(rows, logits);
    return sampler.sample(0, sequence);
  };

  test.each(GOLDEN.cases.map((c) => [c.name, c] as const))('golden: %s', (_case, c) => {
    const sampling = goldenSampling(c);
    const largest = Math.max(...c.logits.map(Math.abs));
    const greedy = run(c.logits, makeSequence(c.prompt_ids, c.output_ids, { ...sampling, temperature: 0 }));
    expect(greedy.tokenId).toBe(c.greedy_token);
    const raw = run(c.logits, makeSequence(c.prompt_ids, c.output_ids, sampling));
    expectClose(byId(raw.logprobs, GOLDEN.vocab), c.raw_logprobs, largest);
    const mode = { logprobsMode: 'processed_logprobs' } as const;
    const processed = run(c.logits, makeSequence(c.prompt_ids, c.output_ids, { ...sampling, ...mode }));
    expectClose(byId(processed.logprobs, GOLDEN.vocab), c.logprobs, largest / (sampling.temperature || 1));
    expect(c.logprobs[raw.tokenId]).not.toBeNull();
  });

  test('draws follow the processed distribution and depend on seed and position alone', () => {
    const logits = [2, 1, 0, -1];
    const counts = [0, 0, 0, 0];
    for (let seed = 0; seed < 4000; seed++) {
      const { tokenId } = run(logits, makeSequence([1, 2], [], { temperature: 1, seed: BigInt(seed) }));
      counts[tokenId] = (counts[tokenId] as number) + 1;
    }
    const total = logits.reduce((sum, z) => sum + Math.exp(z), 0);
    let chiSquare = 0;
    for (const [id, count] of counts.entries()) {
      const expected = (4000 * Math.exp(logits[id] as number)) / total;
      chiSquare += (count - expected) ** 2 / expected;
    }
    // 3 degrees of freedom; the draws are a fixed function of the seeds, so this is no flaky bound.
    expect(chiSquare).toBeLessThan(11.3);
    const one = () => run(logits, makeSequence([1, 2], [3], { temperature: 1, seed: 5n })).tokenId;
    expect(one()).toBe(one());
  });

  test('the list: chosen first, then the top by rank; the row seen is the one before any edit', () => {
    const sampling = { logprobs: 2, badWords: [[0]], logitBias: new Map([[3, 50]]), repetitionPenalty: 2 };
    const { tokenId, logprobs } = run([4, 3, 2, 1], makeSequence([1], [2], sampling));
    expect(tokenId).toBe(3);
    expect(logprobs?.tokenIds).toEqual([3, 0, 1]);
    expect(logprobs?.ranks).toEqual([4, 1, 2]);
    const lse = Math.log(Math.exp(4) + Math.exp(3) + Math.exp(2) + Math.exp(1));
    for (const [i, z] of [1, 4, 3].entries()) expect(logprobs?.logprobs[i]).toBeCloseTo(z - lse, 6);
  });

  test.each([
    ['raw_logits', [1, 4, 3]],
    ['processed_logits', [51 / 0.5, 51 / 0.5, 3 / 2 / 0.5]],
  ] as const)('%s', (logprobsMode, expected) => {
    const sampling = { logprobs: 2, badWords: [[0]], logitBias: new Map([[3, 50]]), repetitionPenalty: 2 };
    const sequence = makeSequence([1], [2], { ...sampling, temperature: 0.5, logprobsMode });
    const { logprobs } = run([4, 3, 2, 1], sequence);
    for (const [i, z] of expected.entries()) expect(logprobs?.logprobs[i]).toBeCloseTo(z, 5);
  });

  test('prompt logprobs are those of the model, whatever the parameters do to sampling', () => {
    setRow(rows, [4, 3, 2, 1]);
    const { sampling } = makeSequence([1], [], { promptLogprobs: 1, badWords: [[0]], temperature: 0.3 });
    const list = sampler.prompt(0, 2, sampling);
    expect([list.tokenIds, list.ranks]).toEqual([
      [2, 0],
      [3, 1],
    ]);
  });

  test('logit_bias is clamped to 100', () => {
    const sampling = {
      temperature: 0,
      logprobs: 0,
      logitBias: new Map([[1, 1e6]]),
      logprobsMode: 'processed_logits',
    } as const;
    expect(run([0, 1], makeSequence([1], [], sampling)).logprobs?.logprobs[0]).toBe(101);
  });

  test('rows that are not numbers, and masks that leave nothing, end the request with a coded error', () => {
    const code = (logits: readonly number[], sampling: Partial<EngineSampling>): string => {
      try {
        run(logits, makeSequence([1], [], sampling));
      } catch (error) {
        if (error instanceof TokenmillError) return error.code;
        throw error;
      }
      return 'none';
    };
    const nan = new Array<number>(rows.vocabSize).fill(Number.NaN);
    for (const temperature of [0, 1]) {
      expect(code(nan, { temperature })).toBe('internal');
      expect(code([1, Number.POSITIVE_INFINITY], { temperature })).toBe('internal');
      const masked = { temperature, allowedTokenIds: [0], badWords: [[0]] };
      expect(code([1, 2], masked)).toBe('invalid_request');
      expect(code([1, 2], { temperature })).toBe('none');
    }
  });

  test('a plain row is drawn as the sampler draws it', () => {
    const logits = Array.from({ length: rows.vocabSize }, (_, id) => Math.sin(id * 12.9898) * 3);
    const settings: Partial<EngineSampling>[] = [
      { temperature: 0 },
      { temperature: 1e-6, topK: 3 },
      { temperature: 1 },
      { temperature: 0.7, topP: 0.9, topK: 20 },
      { temperature: 1.5, minP: 0.1, seed: 77n },
      { temperature: 2, topP: 0.3, seed: -5n },
    ];
    for (const [index, sampling] of settings.entries()) {
      const sequence = makeSequence([1, 2], [3], sampling);
      const alone = run(logits, sequence).tokenId;
      const plain = new PlainRows(2);
      for (const round of [1, 2]) {
        plain.clear();
        plain.offer(index, 0, sequence);
        drawRows(rows, plain.draws);
        const { count, tokenIds } = plain.draws;
        expect([plain.indices[0], tokenIds[0], count], `round ${round}`).toEqual([index, alone, 1]);
      }
    }
  });

  test('a plain row that is not numbers gives no token; what asks for more than a token is not plain', () => {
    const plain = new PlainRows(1);
    for (const bad of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
      for (const temperature of [0, 1]) {
        setRow(rows, new Array<number>(rows.vocabSize).fill(bad));
        plain.clear();
        plain.offer(0, 0, makeSequence([1], [], { temperature }));
        drawRows(rows, plain.draws);
        expect(plain.draws.tokenIds[0], `${bad} at ${temperature}`).toBe(-1);
      }
    }
    for (const sampling of [{ logprobs: 0 }, { logitBias: new Map([[1, 1]]) }, { frequencyPenalty: 1 }]) {
      plain.clear();
      plain.offer(0, 0, makeSequence([1], [], sampling));
      expect(plain.draws.count).toBe(0);
    }
  });
});
