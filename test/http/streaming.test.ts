import { afterAll, beforeAll, expect, it } from 'vitest';
import { type Bench, bench, chunksOf, events } from './harness.ts';

const REPLY = 'Ein Bär 🐻 frißt Honig — 蜂蜜 — und "Zitate"\nmit\tTabs.';
let b: Bench;
beforeAll(async () => {
  b = await bench({ script: { reply: REPLY } });
});
afterAll(() => b.close());

const post = (url: string, payload: object) => b.server.app.inject({ method: 'POST', url, payload });

it('chat pieces joined are the whole answer, with characters of many bytes unbroken', async () => {
  const body = { messages: [{ role: 'user', content: 'Hi' }], temperature: 0 };
  const whole = (await post('/v1/chat/completions', body)).json();
  const stream = await post('/v1/chat/completions', { ...body, stream: true });
  const chunks = chunksOf(stream.body) as {
    choices: { delta: { role?: string; content: string }; finish_reason: string | null }[];
  }[];
  expect(chunks[0]?.choices[0]?.delta).toEqual({ role: 'assistant', content: '' });
  expect(chunks.map((chunk) => chunk.choices[0]?.delta.content).join('')).toBe(REPLY);
  expect(whole.choices[0].message.content).toBe(REPLY);
  expect(chunks.at(-1)?.choices[0]?.finish_reason).toBe('stop');
  expect(events(stream.body).at(-1)).toBe('[DONE]');
  expect(stream.headers['content-type']).toBe('text/event-stream; charset=utf-8');
  expect(stream.headers['cache-control']).toBe('no-cache');
});

it('completion pieces joined are the whole answer', async () => {
  const stream = await post('/v1/completions', { prompt: 'x', max_tokens: 100, stream: true });
  const chunks = chunksOf(stream.body) as { choices: { text: string }[] }[];
  expect(chunks.map((chunk) => chunk.choices[0]?.text).join('')).toBe(REPLY);
});

it('all events are single lines of JSON with the same id', async () => {
  const stream = await post('/v1/completions', { prompt: 'x', max_tokens: 100, stream: true });
  for (const line of stream.body.split('\n')) expect(line === '' || line.startsWith('data: ')).toBe(true);
  expect(new Set(chunksOf(stream.body).map((chunk) => chunk['id'])).size).toBe(1);
});

it('usage comes as a last chunk when asked for, or always with the server flag', async () => {
  const asked = await post('/v1/completions', {
    prompt: 'one two',
    max_tokens: 3,
    stream: true,
    stream_options: { include_usage: true },
  });
  const last = chunksOf(asked.body).at(-1) as { choices: unknown[]; usage: Record<string, number> };
  expect(last.choices).toEqual([]);
  expect(last.usage['completion_tokens']).toBe(3);
  expect(last.usage['total_tokens']).toBe((last.usage['prompt_tokens'] ?? 0) + 3);

  const forced = await bench({ enableForceIncludeUsage: true, enablePromptTokensDetails: true });
  const stream = await forced.server.app.inject({
    method: 'POST',
    url: '/v1/completions',
    payload: { prompt: 'x', max_tokens: 2, stream: true },
  });
  expect(chunksOf(stream.body).at(-1)?.['usage']).toEqual({
    prompt_tokens: 1,
    total_tokens: 3,
    completion_tokens: 2,
    prompt_tokens_details: { cached_tokens: 0 },
  });
  await forced.close();
});

it('continuous usage grows by the tokens of each chunk', async () => {
  const stream = await post('/v1/completions', {
    prompt: 'x',
    max_tokens: 3,
    stream: true,
    stream_options: { include_usage: true, continuous_usage_stats: true },
  });
  const counts = chunksOf(stream.body).map(
    (chunk) => (chunk['usage'] as { completion_tokens: number }).completion_tokens,
  );
  expect(counts).toEqual([1, 2, 3, 3]);
});

it('token ids come with the chunks when asked for, the prompt ids once', async () => {
  const stream = await post('/v1/completions', {
    prompt: [10, 11],
    max_tokens: 3,
    stream: true,
    return_token_ids: true,
  });
  const choices = chunksOf(stream.body).map(
    (chunk) => (chunk['choices'] as { prompt_token_ids: number[] | null; token_ids: number[] }[])[0],
  );
  expect(choices.map((choice) => choice?.prompt_token_ids)).toEqual([[10, 11], null, null]);
  const ids = [...b.tokenizer.encode(REPLY, { addSpecialTokens: false })].slice(0, 3);
  expect(choices.flatMap((choice) => choice?.token_ids ?? [])).toEqual(ids);
});
