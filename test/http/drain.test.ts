import { EventEmitter } from 'node:events';
import { pino } from 'pino';
import { afterEach, expect, it } from 'vitest';
import { onTermination } from '../../src/server/drain.ts';
import { type Bench, bench, chunksOf, until } from './harness.ts';

let b: Bench;
afterEach(() => b.close());
const silent = pino({ enabled: false });

function slowEngine(ms: number): void {
  const step = b.core.step.bind(b.core);
  b.core.step = () => {
    for (const end = performance.now() + ms; performance.now() < end; );
    return step();
  };
}

async function start(body: object): Promise<{ url: string; answer: Promise<Response> }> {
  const url = await b.server.listen({ host: '127.0.0.1', port: 0 });
  const answer = fetch(`${url}/v1/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ prompt: 'x', ignore_eos: true, ...body }),
  });
  await until(() => b.llm.inFlight === 1, 'the request runs');
  return { url, answer };
}

it('finishes what runs, refuses what comes, then closes', async () => {
  b = await bench({ shutdownTimeoutS: 20 });
  slowEngine(5);
  const { url, answer } = await start({ max_tokens: 50 });
  const done = b.server.shutdown();
  const ready = await fetch(`${url}/ready`);
  expect(ready.status).toBe(503);
  expect(ready.headers.get('retry-after')).toBe('20');
  expect((await fetch(`${url}/health`)).status).toBe(200);
  const refused = await fetch(`${url}/v1/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: '{"prompt":"x"}',
  });
  expect(refused.status).toBe(503);
  expect(refused.headers.get('retry-after')).toBeTruthy();
  const body = (await (await answer).json()) as { usage: { completion_tokens: number } };
  expect(body.usage.completion_tokens).toBe(50);
  await done;
  await expect(fetch(`${url}/health`)).rejects.toThrow();
});

it('after the deadline streams end with an error event, whole answers with 503', async () => {
  b = await bench({ shutdownTimeoutS: 0.05 });
  slowEngine(5);
  const { url, answer } = await start({ max_tokens: 1000, stream: true });
  const whole = fetch(`${url}/v1/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ prompt: 'y', ignore_eos: true, max_tokens: 1000 }),
  });
  await until(() => b.llm.inFlight === 2, 'both run');
  const text = (await answer).text();
  await b.server.shutdown();
  const chunks = chunksOf(await text);
  expect(chunks.length).toBeGreaterThan(1);
  expect(chunks.at(-1)?.['error']).toMatchObject({ code: 503, type: 'ServiceUnavailableError' });
  expect((await text).endsWith('data: [DONE]\n\n')).toBe(true);
  expect((await whole).status).toBe(503);
  await until(() => b.blocksInUse() === 0, 'everything is freed');
});

it('a first signal shuts down and exits 0, a second one ends at once', async () => {
  b = await bench();
  const signals = new EventEmitter();
  const exits: number[] = [];
  let finish: () => void = () => {};
  const shutdown = (): Promise<void> => new Promise((resolve) => (finish = resolve));
  const remove = onTermination({ shutdown, exit: (code) => exits.push(code), log: silent, signals });
  signals.emit('SIGTERM', 'SIGTERM');
  expect(exits).toEqual([]);
  signals.emit('SIGTERM', 'SIGTERM');
  expect(exits).toEqual([143]);
  signals.emit('SIGINT', 'SIGINT');
  expect(exits).toEqual([143, 130]);
  finish();
  await until(() => exits.length === 3, 'the graceful end');
  expect(exits[2]).toBe(0);
  remove();
  expect(signals.listenerCount('SIGTERM')).toBe(0);
});
