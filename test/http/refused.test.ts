/** What is not supported is refused by its name, never ignored: a client that asked for JSON must not get prose with a 200. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type Bench, bench } from './harness.ts';

let b: Bench;
beforeAll(async () => {
  b = await bench();
});
afterAll(() => b.close());

const tools = [{ type: 'function', function: { name: 'f', parameters: {} } }];

const REFUSED: readonly (readonly [string, object])[] = [
  ['response_format', { response_format: { type: 'json_object' } }],
  ['response_format', { response_format: { type: 'json_schema', json_schema: { name: 'x', schema: {} } } }],
  ['structured_outputs', { structured_outputs: { regex: 'a+' } }],
  ['guided_json', { guided_json: {} }],
  ['guided_regex', { guided_regex: 'a' }],
  ['guided_choice', { guided_choice: ['a'] }],
  ['guided_grammar', { guided_grammar: 'root ::= "a"' }],
  ['use_beam_search', { use_beam_search: true }],
  ['logprob_token_ids', { logprob_token_ids: [1] }],
  ['thinking_token_budget', { thinking_token_budget: 5 }],
  ['repetition_detection', { repetition_detection: { min_count: 2 } }],
  ['vllm_xargs', { vllm_xargs: { a: 1 } }],
  ['kv_transfer_params', { kv_transfer_params: { a: 1 } }],
  ['tool_choice', { tools }],
  ['tool_choice', { tools, tool_choice: 'auto' }],
  ['tool_choice', { tools, tool_choice: 'required' }],
  ['tool_choice', { tools, tool_choice: { type: 'function', function: { name: 'f' } } }],
  ['functions', { functions: [{ name: 'f' }] }],
  ['chat_template', { chat_template: '{{ messages }}' }],
  ['modalities', { modalities: ['text', 'audio'] }],
];

it.each(REFUSED)('chat: %s %j', async (field, change) => {
  const payload = { messages: [{ role: 'user', content: 'x' }], ...change };
  for (const stream of [false, true]) {
    const response = await b.server.app.inject({
      method: 'POST',
      url: '/v1/chat/completions',
      payload: { ...payload, stream },
    });
    expect(response.statusCode).toBe(400);
    expect(response.json().error).toMatchObject({ param: field, type: 'BadRequestError' });
    expect(response.json().error.message).toContain(field);
  }
});

it.each([
  ['suffix', { suffix: 'end' }],
  ['best_of', { best_of: 3 }],
  ['prompt_embeds', { prompt_embeds: 'AAAA' }],
])('completions: %s', async (field, change) => {
  const response = await b.server.app.inject({
    method: 'POST',
    url: '/v1/completions',
    payload: { prompt: 'x', ...change },
  });
  expect(response.json().error).toMatchObject({ param: field, code: 400 });
});

it.each([
  { response_format: { type: 'text' } },
  { response_format: null, structured_outputs: null, guided_json: null, logprob_token_ids: null },
  { use_beam_search: false, vllm_xargs: {}, kv_transfer_params: {}, thinking_token_budget: -1, stream_interval: 1 },
  { parallel_tool_calls: true, user: 'u', session_id: 's', store: false, service_tier: 'auto', metadata: {} },
  { tools, tool_choice: 'none' },
  { modalities: ['text'] },
])('harmless values pass: %j', async (change) => {
  const payload = { messages: [{ role: 'user', content: 'x' }], max_tokens: 1, ...change };
  const response = await b.server.app.inject({ method: 'POST', url: '/v1/chat/completions', payload });
  expect(response.statusCode, response.body).toBe(200);
});

it('tools with tool_choice none are shown to the model', async () => {
  const payload = {
    messages: [{ role: 'user', content: 'x' }],
    max_tokens: 1,
    tools,
    tool_choice: 'none',
    return_prompt_text: true,
  };
  const response = await b.server.app.inject({ method: 'POST', url: '/v1/chat/completions', payload });
  expect(response.json().prompt_text).toContain('"name": "f"');
});
