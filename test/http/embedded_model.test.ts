/** The server over the whole real engine, with the model that ships: the answers transformers gave, however they are asked for. */
import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { loadEngine } from '../../src/client/load_engine.ts';
import { FLAGS } from '../../src/config/flags.ts';
import { parseFlags } from '../../src/config/parse.ts';
import { cpuIsaLevels } from '../../src/executor/backends.ts';
import { createServer, type Server } from '../../src/server/server.ts';
import { chunksOf, MODEL_FOLDER } from './harness.ts';

interface Answer {
  readonly messages: readonly { readonly role: string; readonly content: string }[];
  readonly tools: readonly object[] | null;
  readonly prompt_token_ids: readonly number[];
  readonly output_token_ids: readonly number[];
  readonly text: string;
}

const answers = JSON.parse(readFileSync(new URL('../golden/answers.json', import.meta.url), 'utf8')) as Answer[];
// The reference backend, where there is no native one, is slow: short answers only, and some that call a tool.
const asked = answers.filter((answer) => answer.output_token_ids.length <= 40 || answer.tools).slice(0, 8);

let server: Server;
let close: () => Promise<void>;
beforeAll(async () => {
  const args = [
    '--model',
    MODEL_FOLDER,
    '--backend',
    cpuIsaLevels().length > 0 ? 'cpu' : 'reference',
    '--dtype',
    'float32',
    '--served-model-name',
    'tokenmill-tiny',
  ];
  const config = parseFlags([...args, '--max-model-len', '1024', '--num-gpu-blocks-override', '512'], FLAGS, {
    env: {},
    file: null,
  });
  const llm = await loadEngine(config.values, { inProcess: true });
  server = await createServer(llm, { version: '0.0.0', enablePromptTokensDetails: true });
  close = async () => {
    await server.app.close();
    await llm.close();
  };
});
afterAll(() => close());

const inject = (url: string, payload: object) => server.app.inject({ method: 'POST', url, payload });
const body = ({ messages, tools }: Answer) => ({
  messages,
  temperature: 0,
  return_token_ids: true,
  ...(tools ? { tools, tool_choice: 'none' } : {}),
});

describe('all at once', () => {
  it('gives each conversation the answer of transformers, whole and streamed', async () => {
    expect(asked.length).toBeGreaterThan(4);
    const [whole, streams] = await Promise.all([
      Promise.all(asked.map(async (answer) => (await inject('/v1/chat/completions', body(answer))).json())),
      Promise.all(asked.map((answer) => inject('/v1/chat/completions', { ...body(answer), stream: true }))),
    ]);
    asked.forEach((answer, i) => {
      const { choices, usage, prompt_token_ids: promptIds } = whole[i];
      expect(promptIds).toEqual(answer.prompt_token_ids);
      expect(choices[0].token_ids).toEqual(answer.output_token_ids);
      expect(choices[0].message.content).toBe(answer.text);
      expect(choices[0].finish_reason).toBe('stop');
      expect(usage).toMatchObject({
        prompt_tokens: answer.prompt_token_ids.length,
        completion_tokens: answer.output_token_ids.length,
      });
      const pieces = chunksOf(streams[i]?.body ?? '').map(
        (chunk) => (chunk['choices'] as { delta: { content?: string } }[])[0]?.delta.content,
      );
      expect(pieces.join('')).toBe(answer.text);
    });
  });
});

it('logprobs are bit-equal alone and beside others', async () => {
  const payload = { prompt: 'The capital of France is', temperature: 0, max_tokens: 6, logprobs: 3 };
  const alone = (await inject('/v1/completions', payload)).json().choices[0].logprobs;
  const crowd = await Promise.all([
    inject('/v1/completions', payload),
    ...Array.from({ length: 6 }, (_, i) =>
      inject('/v1/completions', { prompt: `Once upon a time ${i}`, temperature: 1, seed: i, max_tokens: 8 }),
    ),
  ]);
  expect(crowd[0]?.json().choices[0].logprobs).toEqual(alone);
});

it('a seed repeats its answer; n choices differ', async () => {
  const payload = { prompt: 'Once upon a time', temperature: 1.5, seed: 7, max_tokens: 12, n: 3 };
  const texts = async () =>
    (await inject('/v1/completions', payload)).json().choices.map((choice: { text: string }) => choice.text);
  const first = await texts();
  expect(await texts()).toEqual(first);
  expect(new Set(first).size).toBeGreaterThan(1);
});

it('a shared beginning comes from the prefix cache', async () => {
  const shared = Array.from({ length: 64 }, (_, i) => 300 + i);
  const ask = async (last: number) =>
    (await inject('/v1/completions', { prompt: [...shared, last], max_tokens: 1, temperature: 0 })).json();
  expect((await ask(400)).usage.prompt_tokens_details.cached_tokens).toBe(0);
  expect((await ask(401)).usage.prompt_tokens_details.cached_tokens).toBe(64);
  const salted = (
    await inject('/v1/completions', { prompt: [...shared, 402], max_tokens: 1, cache_salt: 'other' })
  ).json();
  expect(salted.usage.prompt_tokens_details.cached_tokens).toBe(0);
});

it('logit_bias, allowed ids and bad words reach the sampler', async () => {
  const base = { prompt: 'The capital of France is', temperature: 0, max_tokens: 3, return_token_ids: true };
  const ids = async (change: object) =>
    (await inject('/v1/completions', { ...base, ...change })).json().choices[0].token_ids as number[];
  const plain = await ids({});
  expect((await ids({ logit_bias: { '700': 100 } }))[0]).toBe(700);
  expect(new Set(await ids({ allowed_token_ids: [701, 702], ignore_eos: true }))).not.toContain(plain[0]);
  const word = (await inject('/detokenize', { tokens: [plain[0]] })).json().prompt as string;
  expect((await ids({ bad_words: [word] }))[0]).not.toBe(plain[0]);
});

it('the deep probe makes a token', async () => {
  expect((await server.app.inject('/health?deep=1')).statusCode).toBe(200);
});
