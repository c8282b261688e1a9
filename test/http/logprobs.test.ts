import { afterAll, beforeAll, expect, it } from 'vitest';
import { type Bench, bench, chunksOf } from './harness.ts';

let b: Bench;
beforeAll(async () => {
  b = await bench();
});
afterAll(() => b.close());

const post = async (url: string, payload: object) =>
  (await b.server.app.inject({ method: 'POST', url, payload })).json();
const REPLY = 'Hello there, this is a test.';

it('completion logprobs are parallel lists whose offsets follow the text', async () => {
  const { logprobs, text } = (await post('/v1/completions', { prompt: 'x', max_tokens: 5, logprobs: 3 })).choices[0];
  expect(logprobs.tokens.join('')).toBe(text);
  expect(logprobs.token_logprobs).toEqual(new Array(5).fill(-0.5));
  let offset = 0;
  logprobs.tokens.forEach((token: string, i: number) => {
    expect(logprobs.text_offset[i]).toBe(offset);
    offset += token.length;
    expect(Object.keys(logprobs.top_logprobs[i])[0]).toBe(token);
  });
});

it('logprobs: 0 gives the chosen token alone', async () => {
  const { logprobs } = (await post('/v1/completions', { prompt: 'x', max_tokens: 2, logprobs: 0 })).choices[0];
  for (const top of logprobs.top_logprobs) expect(Object.keys(top)).toHaveLength(1);
});

it('tokens can be written as ids, and streamed lists join to the whole ones', async () => {
  const body = { prompt: 'x', max_tokens: 4, logprobs: 1, return_tokens_as_token_ids: true };
  const whole = (await post('/v1/completions', body)).choices[0].logprobs;
  const ids = [...b.tokenizer.encode(REPLY, { addSpecialTokens: false })].slice(0, 4);
  expect(whole.tokens).toEqual(ids.map((id) => `token_id:${id}`));
  const stream = await b.server.app.inject({
    method: 'POST',
    url: '/v1/completions',
    payload: { ...body, stream: true },
  });
  const pieces = chunksOf(stream.body).map(
    (chunk) => (chunk['choices'] as { logprobs: { tokens: string[] } }[])[0]?.logprobs.tokens,
  );
  expect(pieces.flat()).toEqual(whole.tokens);
});

it('chat logprobs hold bytes that spell the text, and top_logprobs only when asked for', async () => {
  const messages = [{ role: 'user', content: 'Hi' }];
  const { message, logprobs } = (
    await post('/v1/chat/completions', { messages, logprobs: true, top_logprobs: 2, max_tokens: 4 })
  ).choices[0];
  const bytes = logprobs.content.flatMap((entry: { bytes: number[] }) => entry.bytes);
  expect(Buffer.from(bytes).toString()).toBe(message.content);
  for (const entry of logprobs.content) expect(entry.top_logprobs).toHaveLength(2);
  const bare = (await post('/v1/chat/completions', { messages, logprobs: true, max_tokens: 2 })).choices[0].logprobs;
  for (const entry of bare.content) expect(entry.top_logprobs).toEqual([]);
});

it('prompt_logprobs: null for the first token, then id -> {logprob, rank, decoded_token}', async () => {
  const choice = (await post('/v1/completions', { prompt: [10, 20, 30], max_tokens: 1, prompt_logprobs: 1 }))
    .choices[0];
  expect(choice.prompt_logprobs).toHaveLength(3);
  expect(choice.prompt_logprobs[0]).toBeNull();
  expect(choice.prompt_logprobs[1]['20']).toMatchObject({ logprob: -0.5, rank: 1 });
  expect(choice.prompt_logprobs[2]['30'].decoded_token).toEqual(expect.any(String));
});

it('prompt_logprobs are refused with stream, top_logprobs without logprobs', async () => {
  const streamed = await post('/v1/completions', { prompt: 'x', prompt_logprobs: 1, stream: true });
  expect(streamed.error).toMatchObject({ param: 'prompt_logprobs', code: 400 });
  const top = await post('/v1/chat/completions', { messages: [{ role: 'user', content: 'x' }], top_logprobs: 2 });
  expect(top.error).toMatchObject({ param: 'top_logprobs', code: 400 });
});

it('asking for the whole vocabulary works when the server allows it', async () => {
  const open = await bench({ flags: ['--max-logprobs', '-1'] });
  const payload = { messages: [{ role: 'user', content: 'x' }], logprobs: true, top_logprobs: -1, max_tokens: 1 };
  const answer = (await open.server.app.inject({ method: 'POST', url: '/v1/chat/completions', payload })).json();
  expect(answer.choices[0].logprobs.content[0].top_logprobs).toHaveLength(4096);
  await open.close();
});
