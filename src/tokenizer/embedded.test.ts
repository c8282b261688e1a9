import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { loadChatTemplate, loadTokenizer } from './load_tokenizer.ts';
import type { ChatMessage } from './tokenizer.ts';

interface Answer {
  readonly messages: ChatMessage[];
  readonly tools: unknown[] | null;
  readonly prompt: string;
  readonly prompt_token_ids: number[];
  readonly output_token_ids: number[];
  readonly text: string;
}

const MODEL = new URL('../../models/tokenmill-tiny/', import.meta.url).pathname;
const answers = JSON.parse(
  readFileSync(new URL('./testdata/embedded_answers.json', import.meta.url), 'utf8'),
) as Answer[];

test('the embedded model: prompts, prompt ids and decoded answers are those of transformers', async () => {
  const tokenizer = await loadTokenizer(MODEL);
  const template = await loadChatTemplate(MODEL);
  expect(tokenizer.vocabSize).toBe(4096);
  expect(tokenizer.eosTokenId).toBe(2);
  expect(answers.length).toBeGreaterThan(5);
  for (const answer of answers) {
    const prompt = template?.render(answer.messages, {
      addGenerationPrompt: true,
      ...(answer.tools ? { tools: answer.tools } : {}),
    });
    expect(prompt).toBe(answer.prompt);
    expect([...tokenizer.encode(answer.prompt, { addSpecialTokens: true })]).toEqual(answer.prompt_token_ids);
    expect(tokenizer.decode(answer.output_token_ids, { skipSpecialTokens: true })).toBe(answer.text);
  }
});
