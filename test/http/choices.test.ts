import { afterAll, beforeAll, expect, it } from 'vitest';
import { type Bench, bench, chunksOf } from './harness.ts';

let b: Bench;
beforeAll(async () => {
  b = await bench();
});
afterAll(() => b.close());

const post = (url: string, payload: object) => b.server.app.inject({ method: 'POST', url, payload });

it('n choices for each of several prompts, numbered prompt by prompt', async () => {
  const answer = (
    await post('/v1/completions', { prompt: [[3], [4, 4], [5, 6, 7]], n: 2, max_tokens: 3, return_token_ids: true })
  ).json();
  expect(answer.choices.map((choice: { index: number }) => choice.index)).toEqual([0, 1, 2, 3, 4, 5]);
  expect(answer.choices[4].prompt_token_ids).toEqual([5, 6, 7]);
  expect(answer.choices[5].prompt_token_ids).toEqual([5, 6, 7]);
  expect(answer.usage.completion_tokens).toBe(18);
  expect(answer.usage.prompt_tokens).toBe(6);
});

it('streams of n choices hold every choice whole, each opened by its role', async () => {
  const stream = await post('/v1/chat/completions', {
    messages: [{ role: 'user', content: 'Hi' }],
    n: 3,
    stream: true,
  });
  const texts = ['', '', ''];
  const roles: string[] = [];
  const ends: string[] = [];
  for (const chunk of chunksOf(stream.body)) {
    const choice = (
      chunk['choices'] as { index: number; delta: { role?: string; content?: string }; finish_reason: string | null }[]
    )[0];
    if (!choice) continue;
    if (choice.delta.role) roles.push(choice.delta.role);
    texts[choice.index] += choice.delta.content ?? '';
    if (choice.finish_reason) ends.push(choice.finish_reason);
  }
  expect(texts).toEqual(new Array(3).fill('Hello there, this is a test.'));
  expect(roles).toEqual(['assistant', 'assistant', 'assistant']);
  expect(ends).toEqual(['stop', 'stop', 'stop']);
});

it('greedy with n above 1 is refused as in vLLM', async () => {
  const response = await post('/v1/completions', { prompt: 'x', n: 2, temperature: 0 });
  expect(response.statusCode).toBe(400);
  expect(response.json().error.message).toBe('n must be 1 when using greedy sampling, got 2.');
});

it('more than 1024 prompts are refused', async () => {
  const response = await post('/v1/completions', { prompt: new Array(1025).fill('x') });
  expect(response.statusCode).toBe(400);
  expect(response.json().error.param).toBe('prompt');
});
