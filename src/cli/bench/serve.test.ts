import { createServer, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { parseFlags } from '../../config/parse.ts';
import { eventData } from './openai_stream.ts';
import { measureServe, SERVE_FLAGS, type ServeFlags } from './serve.ts';
import { formatServe, parseGoodput, toJson } from './serve_report.ts';

interface Seen {
  readonly path: string;
  readonly body: Record<string, unknown>;
  readonly authorization: string | undefined;
}

let server: Server | undefined;
afterEach(() => {
  server?.closeAllConnections();
  server?.close();
});

/** A server that answers each request by `answer` and remembers what it was asked. */
async function serve(
  answer: (response: ServerResponse, body: Record<string, unknown>) => void,
): Promise<{ url: string; seen: Seen[] }> {
  const seen: Seen[] = [];
  server = createServer((request, response) => {
    if (request.url === '/v1/models') {
      response.end(JSON.stringify({ data: [{ id: 'mill' }] }));
      return;
    }
    let text = '';
    request.on('data', (chunk: Buffer) => {
      text += chunk.toString();
    });
    request.on('end', () => {
      const body = JSON.parse(text) as Record<string, unknown>;
      seen.push({ path: request.url ?? '', body, authorization: request.headers.authorization });
      answer(response, body);
    });
  });
  await new Promise<void>((resolve) => server?.listen(0, '127.0.0.1', resolve));
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, seen };
}

const event = (value: unknown) => `data: ${typeof value === 'string' ? value : JSON.stringify(value)}\n\n`;

/** As many one-token chunks as asked for, a usage chunk, `[DONE]`. */
function complete(response: ServerResponse, body: Record<string, unknown>): void {
  const count = Number(body['max_tokens'] ?? body['max_completion_tokens']);
  const chat = 'messages' in body;
  response.setHeader('content-type', 'text/event-stream');
  if (chat) response.write(event({ choices: [{ delta: { role: 'assistant', content: '' } }] }));
  for (let i = 0; i < count; i++)
    response.write(event({ choices: [chat ? { delta: { content: 'x' } } : { text: 'x' }] }));
  const promptTokens = Array.isArray(body['prompt']) ? body['prompt'].length : 10;
  response.write(event({ choices: [], usage: { prompt_tokens: promptTokens, completion_tokens: count } }));
  response.end(event('[DONE]'));
}

function flags(url: string, ...args: string[]): ServeFlags {
  return parseFlags(['--base-url', url, ...args], SERVE_FLAGS, { env: {}, file: null }).values;
}

const quiet = () => {};

describe('bench serve', () => {
  it('sends the asked work and counts every token', async () => {
    const { url, seen } = await serve(complete);
    const args = [
      '--num-prompts',
      '12',
      '--input-len',
      '20',
      '--prefix-len',
      '8',
      '--output-len',
      '5',
      '--api-key',
      'k',
    ];
    const { report, model } = await measureServe(flags(`${url}/v1/`, ...args), quiet);
    expect(model).toBe('mill');
    expect(report).toMatchObject({
      completed: 12,
      failed: 0,
      inputTokens: 12 * 28,
      outputTokens: 60,
      outputTokensAreChunks: false,
    });
    expect(report.metrics.ttft?.count).toBe(12);
    expect(report.metrics.itl?.count).toBe(12 * 4);
    expect(report.metrics.tpot?.count).toBe(12);
    expect(seen).toHaveLength(13);
    const prompts = seen.map(({ body }) => body['prompt'] as number[]);
    for (const prompt of prompts) expect(prompt.slice(0, 8)).toEqual(prompts[0]?.slice(0, 8));
    expect(new Set(prompts.map((prompt) => prompt.slice(8).join())).size).toBe(13);
    expect(seen[1]).toMatchObject({
      path: '/v1/completions',
      authorization: 'Bearer k',
      body: { model: 'mill', stream: true, ignore_eos: true, max_tokens: 5, temperature: 0 },
    });
  });

  it('keeps to the concurrency limit and says how late that made requests', async () => {
    let open = 0;
    let most = 0;
    const { url } = await serve((response, body) => {
      most = Math.max(most, ++open);
      setTimeout(() => {
        open--;
        complete(response, body);
      }, 20);
    });
    const { report } = await measureServe(
      flags(url, '--num-prompts', '9', '--max-concurrency', '3', '--output-len', '2'),
      quiet,
    );
    expect(most).toBe(3);
    expect(report.mostInFlight).toBe(3);
    expect(report.late?.max).toBeGreaterThan(0);
  });

  it('chats in text, and the role chunk is no token', async () => {
    const { url, seen } = await serve(complete);
    const { report } = await measureServe(
      flags(url, '--endpoint', 'chat', '--num-prompts', '2', '--output-len', '3', '--no-ignore-eos'),
      quiet,
    );
    expect(seen[0]?.path).toBe('/v1/chat/completions');
    expect(seen[0]?.body).not.toHaveProperty('ignore_eos');
    expect(seen[0]?.body['messages']).toMatchObject([{ role: 'user' }]);
    expect(report.metrics.itl?.count).toBe(2 * 2);
  });

  it('counts refused, broken and cut answers as failures and measures the rest', async () => {
    let turn = 0;
    const { url } = await serve((response, body) => {
      turn++;
      if (turn % 4 === 1) complete(response, body);
      else if (turn % 4 === 2) response.writeHead(503).end('busy');
      else if (turn % 4 === 3) response.end(event({ choices: [{ text: 'x' }] }));
      else response.end(event({ error: { message: 'engine died' } }));
    });
    const { report, result } = await measureServe(
      flags(url, '--num-prompts', '8', '--num-warmups', '0', '--max-concurrency', '1'),
      quiet,
    );
    expect(report).toMatchObject({ completed: 2, failed: 6 });
    expect(Object.keys(report.errors)).toEqual([
      'HTTP 503: busy',
      'the stream ended without [DONE]',
      '{"message":"engine died"}',
    ]);
    expect(formatServe(report, result.records).join('\n')).toContain('2 failed: HTTP 503: busy');
  });

  it('names the cause when no server is there', async () => {
    await expect(measureServe(flags('http://127.0.0.1:9'), quiet)).rejects.toThrow(/--base-url http:\/\/127.0.0.1:9/);
  });

  it('writes the keys of the field', async () => {
    const { url } = await serve(complete);
    const { report } = await measureServe(
      flags(url, '--num-prompts', '3', '--output-len', '4', '--goodput', 'ttft:60000', 'e2e:60000'),
      quiet,
    );
    const json = toJson(report, {});
    for (const key of [
      'request_throughput',
      'output_throughput',
      'mean_ttft_ms',
      'p99_itl_ms',
      'median_tpot_ms',
      'p95_e2el_ms',
    ]) {
      expect(json[key], key).toBeGreaterThan(0);
    }
    expect(json['request_goodput']).toBe(json['request_throughput']);
  });
});

describe('goodput', () => {
  it('refuses what is no limit', () => {
    for (const term of ['ttft', 'ttft:0', 'speed:9', 'itl:5', 'tpot:fast'])
      expect(() => parseGoodput([term]), term).toThrow(/--goodput/);
    expect(parseGoodput([])).toBeNull();
  });
});

describe('eventData', () => {
  it('does not care where chunks are cut', async () => {
    const bytes = new TextEncoder().encode(': comment\r\ndata: {"a":"\u00e9"}\r\n\r\ndata:[DONE]\n\n');
    for (let cut = 1; cut < bytes.length; cut++) {
      const found: string[] = [];
      const parts = (async function* () {
        yield bytes.subarray(0, cut);
        yield bytes.subarray(cut);
      })();
      for await (const data of eventData(parts)) found.push(data);
      expect(found, `cut at ${cut}`).toEqual(['{"a":"\u00e9"}', '[DONE]']);
    }
  });
});
