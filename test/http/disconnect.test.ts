/** A client that leaves frees its blocks, whatever it was waiting for. */
import { connect, type Socket } from 'node:net';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { type Bench, bench, until } from './harness.ts';

const ENDLESS = { prompt: 'Once', max_tokens: 1000, ignore_eos: true };

let b: Bench;
let port: number;
beforeEach(async () => {
  b = await bench({ flags: ['--max-num-seqs', '2'] });
  port = Number(new URL(await b.server.listen({ host: '127.0.0.1', port: 0 })).port);
});
afterEach(() => b.close());

/** Slows the engine down so that nothing finishes before the client leaves. */
function slowEngine(): void {
  const step = b.core.step.bind(b.core);
  b.core.step = () => {
    for (const end = performance.now() + 5; performance.now() < end; );
    return step();
  };
}

function rawPost(socket: Socket, path: string, body: object): void {
  const text = JSON.stringify(body);
  socket.write(
    `POST ${path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(text)}\r\n\r\n${text}`,
  );
}

async function open(): Promise<Socket> {
  const socket = connect(port, '127.0.0.1');
  socket.on('error', () => {});
  await new Promise<void>((resolve) => socket.once('connect', () => resolve()));
  return socket;
}

const isIdle = (): boolean =>
  b.blocksInUse() === 0 && b.llm.inFlight === 0 && b.server.context.active.size === 0 && !b.core.hasWork();

it.each([
  ['stream', '/v1/completions', { ...ENDLESS, stream: true }],
  ['whole answer', '/v1/completions', ENDLESS],
  ['several prompts and choices', '/v1/completions', { ...ENDLESS, prompt: ['a', 'b', 'c'], n: 2 }],
  [
    'chat stream',
    '/v1/chat/completions',
    { messages: [{ role: 'user', content: 'x' }], ignore_eos: true, stream: true },
  ],
  ['chat', '/v1/chat/completions', { messages: [{ role: 'user', content: 'x' }], ignore_eos: true }],
])('%s: closing the socket frees everything', async (_name, path, body) => {
  slowEngine();
  const socket = await open();
  rawPost(socket, path, body);
  await until(() => b.blocksInUse() > 0, 'the request runs');
  socket.destroy();
  await until(isIdle, 'everything is freed');
});

it('a queued request leaves the queue', async () => {
  slowEngine();
  const sockets = await Promise.all([open(), open(), open()]);
  for (const socket of sockets) rawPost(socket, '/v1/completions', ENDLESS);
  await until(() => b.core.scheduler.waiting.size === 1 && b.core.scheduler.running.length === 2, 'two run, one waits');
  sockets[2]?.destroy();
  await until(() => b.core.scheduler.waiting.size === 0 || b.llm.inFlight === 2, 'the queue is empty');
  for (const socket of sockets) socket.destroy();
  await until(isIdle, 'everything is freed');
});

it('a pipelined second request is aborted with its socket', async () => {
  slowEngine();
  const socket = await open();
  rawPost(socket, '/v1/completions', ENDLESS);
  rawPost(socket, '/v1/completions', ENDLESS);
  await until(() => b.llm.inFlight === 2, 'both run');
  socket.destroy();
  await until(isIdle, 'both are freed');
});

it('others are untouched', async () => {
  slowEngine();
  const leaver = await open();
  rawPost(leaver, '/v1/completions', { ...ENDLESS, stream: true });
  const stayer = fetch(`http://127.0.0.1:${port}/v1/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ prompt: 'x', max_tokens: 20, ignore_eos: true, return_token_ids: true }),
  });
  await until(() => b.core.scheduler.running.length === 2, 'both run');
  leaver.destroy();
  const answer = (await (await stayer).json()) as { choices: { token_ids: number[]; finish_reason: string }[] };
  expect(answer.choices[0]?.token_ids).toHaveLength(20);
  expect(answer.choices[0]?.finish_reason).toBe('length');
  await until(isIdle, 'everything is freed');
});

it('a client that leaves in the middle of its body leaves nothing behind', async () => {
  const socket = await open();
  socket.write(
    'POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{"prompt":',
  );
  await new Promise((resolve) => setTimeout(resolve, 20));
  socket.destroy();
  await until(isIdle, 'nothing runs');
  expect((await fetch(`http://127.0.0.1:${port}/health`)).status).toBe(200);
});

it('aborted requests are counted as such', async () => {
  slowEngine();
  const socket = await open();
  rawPost(socket, '/v1/completions', ENDLESS);
  await until(() => b.blocksInUse() > 0, 'the request runs');
  socket.destroy();
  await until(isIdle, 'everything is freed');
  const text = await b.server.context.registry.text();
  expect(text).toMatch(/vllm:request_success_total\{[^}]*finished_reason="abort"[^}]*\} 1/);
});
