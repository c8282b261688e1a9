import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
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

describe('the embedded model on the reference backend', () => {
  let llm: LLM;
  beforeAll(async () => {
    llm = await LLM.load(undefined, { backend: 'reference', inProcess: true, maxNumSeqs: 8, maxNumBatchedTokens: 256 });
  });
  afterAll(() => llm.close());

  test('templates render the golden prompts', () => {
    for (const golden of goldens) {
      const rendered = llm.renderChat(golden.messages, golden.tools ? { tools: golden.tools } : {});
      expect(rendered).toBe(golden.prompt);
      expect([...llm.tokenize(rendered, { addSpecialTokens: false })]).toEqual(golden.prompt_token_ids);
    }
  });

  test('greedy chat answers are those of transformers', async () => {
    const safe = goldens.filter((golden) => golden.smallest_top2_gap >= SAFE_GAP);
    expect(safe.length).toBeGreaterThan(5);
    const params = safe.map(
      (golden) => new SamplingParams({ temperature: 0, maxTokens: golden.output_token_ids.length }),
    );
    const answers = await llm.generate(
      safe.map((golden) => golden.prompt),
      params,
    );
    expect(answers.map((answer) => [...answer.outputs[0]!.tokenIds])).toEqual(
      safe.map((golden) => golden.output_token_ids),
    );
    for (const [i, answer] of answers.entries()) expect(answer.text).toBe(safe[i]!.text);
  });
});
