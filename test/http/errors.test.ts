import { afterAll, beforeAll, expect, it } from 'vitest';
import { type Bench, bench } from './harness.ts';

let b: Bench;
beforeAll(async () => {
  b = await bench();
});
afterAll(() => b.close());

const COMPLETION = { prompt: 'x', max_tokens: 2 };
const messages = [{ role: 'user', content: 'x' }];

/** [changed fields, status, type, param] of /v1/completions. */
const COMPLETIONS: readonly (readonly [object, number, string, string | null])[] = [
  [{ model: 'gpt-4' }, 404, 'NotFoundError', 'model'],
  [{ model: 5 }, 400, 'Bad Request', 'body.model'],
  [{ prompt: null }, 400, 'BadRequestError', 'prompt'],
  [{ prompt: '' }, 400, 'BadRequestError', 'prompt'],
  [{ prompt: [] }, 400, 'BadRequestError', 'prompt'],
  [{ prompt: [[]] }, 400, 'BadRequestError', 'prompt'],
  [{ prompt: {} }, 400, 'Bad Request', 'body.prompt'],
  [{ prompt: [1, 'x'] }, 400, 'Bad Request', 'body.prompt'],
  [{ prompt: [-1] }, 400, 'Bad Request', 'body.prompt'],
  [{ prompt: [1.5] }, 400, 'Bad Request', 'body.prompt'],
  [{ prompt: [4096] }, 400, 'BadRequestError', 'prompt'],
  [{ prompt: [2 ** 32 + 5] }, 400, 'BadRequestError', 'prompt'],
  [{ max_tokens: 1.5 }, 400, 'Bad Request', 'body.max_tokens'],
  [{ max_tokens: -1 }, 400, 'BadRequestError', 'max_tokens'],
  [{ max_tokens: 1e300 }, 400, 'Bad Request', 'body.max_tokens'],
  [{ max_tokens: 1024 }, 400, 'BadRequestError', 'input_tokens'],
  [{ temperature: 'hot' }, 400, 'Bad Request', 'body.temperature'],
  [{ temperature: 'nan' }, 400, 'Bad Request', 'body.temperature'],
  [{ temperature: '1e999' }, 400, 'Bad Request', 'body.temperature'],
  [{ temperature: 2.1 }, 400, 'BadRequestError', 'temperature'],
  [{ top_p: 1.1 }, 400, 'BadRequestError', 'top_p'],
  [{ top_k: -2 }, 400, 'BadRequestError', 'top_k'],
  [{ min_p: 2 }, 400, 'BadRequestError', 'min_p'],
  [{ presence_penalty: 3 }, 400, 'BadRequestError', 'presence_penalty'],
  [{ frequency_penalty: -3 }, 400, 'BadRequestError', 'frequency_penalty'],
  [{ repetition_penalty: 0 }, 400, 'BadRequestError', 'repetition_penalty'],
  [{ n: 16385, temperature: 1 }, 400, 'BadRequestError', 'n'],
  [{ n: 'two' }, 400, 'Bad Request', 'body.n'],
  [{ stop: ['a', 'b', 'c', 'd', 'e'] }, 400, 'BadRequestError', 'stop'],
  [{ stop: [''] }, 400, 'BadRequestError', null],
  [{ stop: 5 }, 400, 'Bad Request', 'body.stop'],
  [{ stop_token_ids: ['x'] }, 400, 'Bad Request', 'body.stop_token_ids.0'],
  [{ stop_token_ids: [4096] }, 400, 'BadRequestError', 'stop_token_ids'],
  [{ logit_bias: { x: 1 } }, 400, 'BadRequestError', 'logit_bias'],
  [{ logit_bias: { 9999: 1 } }, 400, 'BadRequestError', 'logit_bias'],
  [{ logit_bias: [1] }, 400, 'Bad Request', 'body.logit_bias'],
  [{ allowed_token_ids: [] }, 400, 'BadRequestError', 'allowed_token_ids'],
  [{ allowed_token_ids: [5000] }, 400, 'BadRequestError', 'allowed_token_ids'],
  [{ bad_words: [''] }, 400, 'BadRequestError', 'bad_words'],
  [{ min_tokens: 3 }, 400, 'BadRequestError', 'min_tokens'],
  [{ logprobs: 21 }, 400, 'BadRequestError', 'logprobs'],
  [{ logprobs: -2 }, 400, 'BadRequestError', 'logprobs'],
  [{ prompt_logprobs: 21 }, 400, 'BadRequestError', 'prompt_logprobs'],
  [{ seed: 1.5 }, 400, 'Bad Request', 'body.seed'],
  [{ seed: 1e30 }, 400, 'Bad Request', 'body.seed'],
  [{ seed: '9223372036854775808' }, 400, 'Bad Request', 'body.seed'],
  [{ seed: {} }, 400, 'Bad Request', 'body.seed'],
  [{ stream: 'maybe' }, 400, 'Bad Request', 'body.stream'],
  [{ stream_options: { include_usage: true } }, 400, 'BadRequestError', 'stream_options'],
  [{ cache_salt: '' }, 400, 'BadRequestError', 'cache_salt'],
  [{ cache_salt: 'a/b' }, 400, 'BadRequestError', 'cache_salt'],
  [{ truncate_prompt_tokens: 5000 }, 400, 'BadRequestError', 'truncate_prompt_tokens'],
  [{ truncate_prompt_tokens: -2 }, 400, 'BadRequestError', 'truncate_prompt_tokens'],
  [{ truncation_side: 'middle' }, 400, 'Bad Request', 'body.truncation_side'],
  [{ priority: 0.5 }, 400, 'Bad Request', 'body.priority'],
];

it.each(COMPLETIONS)('completions %j -> %i %s %s', async (change, status, type, param) => {
  const response = await b.server.app.inject({
    method: 'POST',
    url: '/v1/completions',
    payload: { ...COMPLETION, ...change },
  });
  expect(response.statusCode, response.body).toBe(status);
  expect(Object.keys(response.json())).toEqual(['error']);
  const { error } = response.json();
  expect(Object.keys(error)).toEqual(['message', 'type', 'param', 'code']);
  expect([error.type, error.param, error.code]).toEqual([type, param, status]);
  expect(error.message.length).toBeGreaterThan(10);
  const streamed = await b.server.app.inject({
    method: 'POST',
    url: '/v1/completions',
    payload: { ...COMPLETION, ...change, stream: true },
  });
  if (!('stream' in change || 'stream_options' in change)) expect(streamed.statusCode).toBe(status);
});

const CHAT: readonly (readonly [object, number, string, string | null])[] = [
  [{ messages: undefined }, 400, 'Bad Request', 'body.messages'],
  [{ messages: 'hi' }, 400, 'Bad Request', 'body.messages'],
  [{ messages: [] }, 400, 'BadRequestError', null],
  [{ messages: [{ content: 'x' }] }, 400, 'Bad Request', 'body.messages.0.role'],
  [{ messages: [{ role: 'user', content: 5 }] }, 400, 'Bad Request', 'body.messages.0.content'],
  [
    { messages: [{ role: 'user', content: [{ type: 'image_url', image_url: { url: 'x' } }] }] },
    400,
    'BadRequestError',
    'messages',
  ],
  [{ messages: [{ role: 'user', content: [{ type: 'text' }] }] }, 400, 'BadRequestError', 'messages'],
  [{ tools: [] }, 400, 'BadRequestError', 'tools'],
  [{ tool_choice: 'auto' }, 400, 'BadRequestError', 'tool_choice'],
  [
    { tools: [{ type: 'function', function: { name: 'f' } }], tool_choice: 'sometimes' },
    400,
    'BadRequestError',
    'tool_choice',
  ],
  [{ reasoning_effort: 'huge' }, 400, 'Bad Request', 'body.reasoning_effort'],
  [{ continue_final_message: true, add_generation_prompt: true }, 400, 'BadRequestError', null],
  [{ max_completion_tokens: 0 }, 400, 'BadRequestError', 'max_tokens'],
  [{ top_logprobs: -2, logprobs: true }, 400, 'BadRequestError', 'top_logprobs'],
  [{ logprobs: 5 }, 400, 'Bad Request', 'body.logprobs'],
  [{ chat_template_kwargs: 'x' }, 400, 'Bad Request', 'body.chat_template_kwargs'],
];

it.each(CHAT)('chat %j -> %i %s %s', async (change, status, type, param) => {
  const response = await b.server.app.inject({
    method: 'POST',
    url: '/v1/chat/completions',
    payload: { messages, ...change },
  });
  expect(response.statusCode, response.body).toBe(status);
  const { error } = response.json();
  expect([error.type, error.param, error.code]).toEqual([type, param, status]);
});

it('a prompt longer than the model is refused with its length, never cut', async () => {
  const prompt = new Array(1100).fill(5);
  const response = await b.server.app.inject({ method: 'POST', url: '/v1/completions', payload: { prompt } });
  expect(response.statusCode).toBe(400);
  expect(response.json().error.message).toContain('maximum context length is 1024 tokens');
  const cut = await b.server.app.inject({
    method: 'POST',
    url: '/v1/completions',
    payload: { prompt, truncate_prompt_tokens: -1, max_tokens: 4 },
  });
  expect(cut.json().usage.prompt_tokens).toBe(1020);
});

it('truncate_prompt_tokens keeps the end, or the beginning when told', async () => {
  const prompt = [1, 2, 3, 4, 5, 6].map((id) => id + 100);
  const ask = async (body: object) =>
    (
      await b.server.app.inject({
        method: 'POST',
        url: '/v1/completions',
        payload: { prompt, return_token_ids: true, max_tokens: 1, ...body },
      })
    ).json();
  expect((await ask({ truncate_prompt_tokens: 2 })).choices[0].prompt_token_ids).toEqual([105, 106]);
  expect((await ask({ truncate_prompt_tokens: 2, truncation_side: 'right' })).choices[0].prompt_token_ids).toEqual([
    101, 102,
  ]);
});

it('nothing that was refused left a block or a sequence behind', () => {
  expect(b.blocksInUse()).toBe(0);
  expect(b.llm.inFlight).toBe(0);
  expect(b.server.context.active.size).toBe(0);
});

it('a template that refuses or loops is a 400', async () => {
  const templates = [
    "{{ raise_exception('roles must alternate') }}",
    '{% for i in range(99999999) %}{{ i }}{% endfor %}',
  ];
  for (const chatTemplate of templates) {
    const refusing = await bench({ chatTemplate });
    const response = await refusing.server.app.inject({
      method: 'POST',
      url: '/v1/chat/completions',
      payload: { messages },
    });
    expect(response.statusCode, response.body).toBe(400);
    expect(response.json().error.type).toBe('BadRequestError');
    await refusing.close();
  }
});

it('unknown paths are 404, known paths with another method 405 with Allow', async () => {
  const unknown = await b.server.app.inject({ method: 'POST', url: '/v2/x', payload: {} });
  expect([unknown.statusCode, unknown.json()]).toEqual([404, { detail: 'Not Found' }]);
  const wrong = await b.server.app.inject({ method: 'DELETE', url: '/v1/models/m' });
  expect([wrong.statusCode, wrong.json()]).toEqual([405, { detail: 'Method Not Allowed' }]);
  expect(wrong.headers['allow']).toContain('GET');
});

it('a bug answers 500 without its message, and the server lives on', async () => {
  const broken = await bench();
  broken.llm.renderChat = () => {
    throw new Error('secret detail');
  };
  const response = await broken.server.app.inject({
    method: 'POST',
    url: '/v1/chat/completions',
    payload: { messages },
  });
  expect(response.statusCode).toBe(500);
  expect(response.body).not.toContain('secret detail');
  expect((await broken.server.app.inject('/v1/models')).statusCode).toBe(200);
  await broken.close();
});

it('an engine that dies mid-stream ends the stream with an error event and turns health red', async () => {
  let steps = 0;
  const dying = await bench({ script: { reply: 'one two three four', fail: () => ++steps > 3 } });
  const ask = (stream: boolean) =>
    dying.server.app.inject({
      method: 'POST',
      url: '/v1/completions',
      payload: { prompt: 'x', max_tokens: 50, stream },
    });
  const stream = await ask(true);
  expect(stream.statusCode).toBe(200);
  const parts = stream.body.trim().split('\n\n');
  expect(JSON.parse(parts.at(-2)?.slice(6) ?? '{}').error).toMatchObject({ type: 'InternalServerError', code: 500 });
  expect(parts.at(-1)).toBe('data: [DONE]');
  expect((await ask(false)).statusCode).toBe(500);
  expect((await dying.server.app.inject('/health')).statusCode).toBe(503);
  expect((await dying.server.app.inject('/ready')).statusCode).toBe(503);
  await dying.close();
});
