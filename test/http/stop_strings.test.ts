import { afterAll, beforeAll, expect, it } from 'vitest';
import { type Bench, bench, chunksOf } from './harness.ts';

const REPLY = 'The quick brown fox jumps over the lazy dog.';
let b: Bench;
beforeAll(async () => {
  b = await bench({ script: { reply: REPLY } });
});
afterAll(() => b.close());

async function both(body: object): Promise<{ text: string; reason: string; stop: unknown; streamed: string }> {
  const url = '/v1/completions';
  const payload = { prompt: 'x', max_tokens: 60, ...body };
  const whole = (await b.server.app.inject({ method: 'POST', url, payload })).json().choices[0];
  const stream = await b.server.app.inject({ method: 'POST', url, payload: { ...payload, stream: true } });
  const choices = chunksOf(stream.body).map(
    (chunk) => (chunk['choices'] as { text: string; stop_reason: unknown }[])[0],
  );
  expect(choices.at(-1)?.stop_reason).toBe(whole.stop_reason);
  return {
    text: whole.text,
    reason: whole.finish_reason,
    stop: whole.stop_reason,
    streamed: choices.map((choice) => choice?.text).join(''),
  };
}

it.each(['brown fox', 'n fo', 'o', ' jumps', 'dog.'])(
  'cuts before %j, streamed or not, across token borders',
  async (stop) => {
    const { text, streamed, reason, stop: why } = await both({ stop });
    expect(text).toBe(REPLY.slice(0, REPLY.indexOf(stop)));
    expect(streamed).toBe(text);
    expect([reason, why]).toEqual(['stop', stop]);
  },
);

it('keeps the stop string when asked to', async () => {
  const { text, streamed } = await both({ stop: ['fox'], include_stop_str_in_output: true });
  expect(text).toBe('The quick brown fox');
  expect(streamed).toBe(text);
});

it('a beginning of a stop string that does not go on is not lost', async () => {
  const { text, streamed } = await both({ stop: ['dog!', 'brown cat'] });
  expect(text).toBe(REPLY);
  expect(streamed).toBe(REPLY);
});

it('a stop token id ends the answer and is its stop_reason', async () => {
  const ids = [...b.tokenizer.encode(REPLY, { addSpecialTokens: false })];
  const { reason, stop, text } = await both({ stop_token_ids: [ids[3]] });
  expect([reason, stop]).toEqual(['stop', ids[3]]);
  expect(REPLY.startsWith(text)).toBe(true);
  expect(text).toBe(b.tokenizer.decode(ids.slice(0, 3), { skipSpecialTokens: true }));
});

it('frees the blocks of an answer that a stop string ended', async () => {
  await both({ stop: 'quick' });
  expect(b.blocksInUse()).toBe(0);
});
