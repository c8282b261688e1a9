/** The clients that people use, over a real socket. */
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { ChatOpenAI, OpenAI as CompletionOpenAI } from '@langchain/openai';
import { generateText, streamText } from 'ai';
import OpenAI from 'openai';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Bench, bench, until } from './harness.ts';

const REPLY = 'Hello there, this is a test.';
const KEY = 'sk-test';
let b: Bench;
let baseURL: string;
beforeAll(async () => {
  b = await bench({ apiKeys: [KEY], script: { reply: REPLY } });
  baseURL = `${await b.server.listen({ host: '127.0.0.1', port: 0 })}/v1`;
});
afterAll(() => b.close());

const messages = [{ role: 'user' as const, content: 'Say hello.' }];

describe('openai', () => {
  const client = () => new OpenAI({ baseURL, apiKey: KEY, maxRetries: 0 });

  it('lists and retrieves models', async () => {
    const models = [];
    for await (const model of client().models.list()) models.push(model.id);
    expect(models).toEqual(['m']);
    expect((await client().models.retrieve('m')).object).toBe('model');
  });

  it('chats', async () => {
    const answer = await client().chat.completions.create({
      model: 'm',
      messages,
      logprobs: true,
      top_logprobs: 1,
      n: 2,
    });
    expect(answer.choices.map((choice) => choice.message.content)).toEqual([REPLY, REPLY]);
    expect(answer.choices[0]?.logprobs?.content?.[0]?.token).toBeTruthy();
    expect(answer.usage?.total_tokens).toBe(
      (answer.usage?.prompt_tokens ?? 0) + (answer.usage?.completion_tokens ?? 0),
    );
  });

  it('streams, with usage', async () => {
    const stream = await client().chat.completions.create({
      model: 'm',
      messages,
      stream: true,
      stream_options: { include_usage: true },
    });
    let text = '';
    let tokens = 0;
    for await (const chunk of stream) {
      text += chunk.choices[0]?.delta.content ?? '';
      tokens = chunk.usage?.completion_tokens ?? tokens;
    }
    expect(text).toBe(REPLY);
    expect(tokens).toBeGreaterThan(3);
  });

  it('its stream helper ends with the whole message', async () => {
    const runner = client().chat.completions.stream({ model: 'm', messages });
    expect((await runner.finalChatCompletion()).choices[0]?.message.content).toBe(REPLY);
  });

  it('completes text, streamed or not', async () => {
    const answer = await client().completions.create({ model: 'm', prompt: ['a', 'b'], max_tokens: 50 });
    expect(answer.choices.map((choice) => choice.text)).toEqual([REPLY, REPLY]);
    let text = '';
    for await (const chunk of await client().completions.create({
      model: 'm',
      prompt: 'a',
      max_tokens: 50,
      stream: true,
    })) {
      text += chunk.choices[0]?.text ?? '';
    }
    expect(text).toBe(REPLY);
  });

  it('gets typed errors', async () => {
    await expect(client().chat.completions.create({ model: 'gpt-4', messages })).rejects.toBeInstanceOf(
      OpenAI.NotFoundError,
    );
    await expect(client().chat.completions.create({ model: 'm', messages, temperature: 5 })).rejects.toBeInstanceOf(
      OpenAI.BadRequestError,
    );
    const wrong = new OpenAI({ baseURL, apiKey: 'wrong', maxRetries: 0 });
    await expect(wrong.models.list()).rejects.toBeInstanceOf(OpenAI.AuthenticationError);
    const error = await client()
      .chat.completions.create({ model: 'm', messages, max_tokens: 5000 })
      .catch((e: unknown) => e as InstanceType<typeof OpenAI.BadRequestError>);
    expect(error).toMatchObject({ status: 400, param: 'max_tokens', type: 'BadRequestError' });
  });

  it('aborts a stream, which frees the engine', async () => {
    const stream = await client().chat.completions.create({
      model: 'm',
      messages,
      stream: true,
      ...{ ignore_eos: true },
    });
    for await (const _ of stream) break;
    await until(() => b.llm.inFlight === 0 && b.blocksInUse() === 0, 'everything is freed');
  });
});

describe('Vercel AI SDK', () => {
  const model = () => createOpenAICompatible({ name: 'tokenmill', baseURL, apiKey: KEY, includeUsage: true })('m');

  it('generates text with usage', async () => {
    const { text, usage, finishReason } = await generateText({ model: model(), prompt: 'Say hello.' });
    expect(text).toBe(REPLY);
    expect(finishReason).toBe('stop');
    expect(usage.outputTokens).toBeGreaterThan(3);
  });

  it('streams text', async () => {
    const result = streamText({ model: model(), messages });
    let text = '';
    for await (const piece of result.textStream) text += piece;
    expect(text).toBe(REPLY);
    expect((await result.usage).outputTokens).toBeGreaterThan(3);
  });

  it('completes', async () => {
    const provider = createOpenAICompatible({ name: 'tokenmill', baseURL, apiKey: KEY });
    const { text } = await generateText({ model: provider.completionModel('m'), prompt: 'Once', maxOutputTokens: 50 });
    expect(text).toBe(REPLY);
  });

  it('reports errors with their status', async () => {
    await expect(generateText({ model: model(), prompt: 'x', temperature: 9, maxRetries: 0 })).rejects.toMatchObject({
      statusCode: 400,
    });
  });
});

describe('LangChain', () => {
  const options = () => ({ model: 'm', apiKey: KEY, configuration: { baseURL }, maxRetries: 0 });

  it('invokes a chat model', async () => {
    const answer = await new ChatOpenAI(options()).invoke('Say hello.');
    expect(answer.content).toBe(REPLY);
    expect(answer).toMatchObject({ usage_metadata: { output_tokens: expect.any(Number) } });
  });

  it('streams a chat model', async () => {
    let text = '';
    for await (const chunk of await new ChatOpenAI(options()).stream('Say hello.')) text += chunk.content as string;
    expect(text).toBe(REPLY);
  });

  it('runs a batch', async () => {
    const answers = await new ChatOpenAI(options()).batch(['a', 'b', 'c']);
    expect(answers.map((answer) => answer.content)).toEqual([REPLY, REPLY, REPLY]);
  });

  it('completes with the completion class', async () => {
    expect(await new CompletionOpenAI({ ...options(), maxTokens: 50 }).invoke('Once')).toBe(REPLY);
  });
});
