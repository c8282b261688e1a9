import { afterAll, beforeAll, expect, it } from 'vitest';
import { type Bench, bench } from './harness.ts';

let b: Bench;
beforeAll(async () => {
  b = await bench();
});
afterAll(() => b.close());

const post = async (url: string, payload: object) =>
  (await b.server.app.inject({ method: 'POST', url, payload })).json();

it('tokenize and detokenize are inverse', async () => {
  const prompt = 'Grüße, 世界! <|im_end|> 🐻';
  const { tokens, count } = await post('/tokenize', { prompt });
  expect(count).toBe(tokens.length);
  expect((await post('/detokenize', { tokens })).prompt).toBe(prompt);
});

it('token strings come when asked for', async () => {
  const { tokens, token_strs: strings } = await post('/tokenize', { prompt: 'Hello world', return_token_strs: true });
  expect(strings).toHaveLength(tokens.length);
  expect(strings.every((text: unknown) => typeof text === 'string' && text !== '')).toBe(true);
});

it('a conversation is tokenized as chat completions see it', async () => {
  const messages = [{ role: 'user', content: [{ type: 'text', text: 'Hi' }] }];
  const { tokens } = await post('/tokenize', { messages });
  const chat = await post('/v1/chat/completions', {
    messages: [{ role: 'user', content: 'Hi' }],
    max_tokens: 1,
    return_token_ids: true,
  });
  expect(tokens).toEqual(chat.prompt_token_ids);
  const bare = await post('/tokenize', { messages, add_generation_prompt: false });
  expect(bare.count).toBeLessThan(tokens.length);
});

it('empty text has no tokens, ids beyond the vocabulary are refused', async () => {
  expect(await post('/tokenize', { prompt: '' })).toMatchObject({ count: 0, tokens: [] });
  expect((await post('/detokenize', { tokens: [] })).prompt).toBe('');
  expect((await post('/detokenize', { tokens: [4096] })).error).toMatchObject({ code: 400, param: 'tokens' });
  expect((await post('/detokenize', { tokens: 'x' })).error).toMatchObject({ code: 400 });
  expect((await post('/tokenize', {})).error).toMatchObject({ code: 400 });
  expect((await post('/tokenize', { prompt: 'x', model: 'other' })).error).toMatchObject({ code: 404 });
});
