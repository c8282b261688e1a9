import { afterAll, beforeAll, expect, it } from 'vitest';
import { type Bench, bench, chunksOf } from './harness.ts';

let b: Bench;
beforeAll(async () => {
  b = await bench({ script: { reply: 'abc def' } });
});
afterAll(() => b.close());

const inject = (payload: object, url = '/v1/completions') => b.server.app.inject({ method: 'POST', url, payload });

it('echo puts the prompt first, streamed or not', async () => {
  const whole = (await inject({ prompt: 'Once upon', echo: true, max_tokens: 20 })).json();
  expect(whole.choices[0].text).toBe('Once uponabc def');
  const stream = await inject({ prompt: 'Once upon', echo: true, max_tokens: 20, stream: true });
  const text = chunksOf(stream.body).map((chunk) => (chunk['choices'] as { text: string }[])[0]?.text);
  expect(text.join('')).toBe('Once uponabc def');
});

it('echo with max_tokens 0 gives the prompt alone, with its logprobs', async () => {
  const answer = (await inject({ prompt: [10, 20, 30], echo: true, max_tokens: 0, logprobs: 1 })).json();
  const [choice] = answer.choices;
  expect(choice.text).toBe(b.tokenizer.decode([10, 20, 30], { skipSpecialTokens: false }));
  expect(choice.logprobs.token_logprobs).toEqual([null, -0.5, -0.5]);
  expect(choice.logprobs.top_logprobs[0]).toBeNull();
  expect(choice.finish_reason).toBe('length');
});

it('max_tokens 0 without echo is refused', async () => {
  const response = await inject({ prompt: 'x', max_tokens: 0 });
  expect(response.json().error).toMatchObject({ param: 'max_tokens', code: 400 });
});

it('chat echo repeats a last message of the answer’s role', async () => {
  const body = {
    messages: [
      { role: 'user', content: 'Write' },
      { role: 'assistant', content: 'I begin: ' },
    ],
    continue_final_message: true,
    echo: true,
  };
  const whole = (await inject(body, '/v1/chat/completions')).json();
  expect(whole.choices[0].message.content).toBe('I begin: abc def');
  const stream = await inject({ ...body, stream: true }, '/v1/chat/completions');
  const parts = chunksOf(stream.body).map(
    (chunk) => (chunk['choices'] as { delta: { content: string } }[])[0]?.delta.content,
  );
  expect(parts.join('')).toBe('I begin: abc def');
});
