import { afterEach, expect, it } from 'vitest';
import { type Bench, bench, until } from './harness.ts';

let b: Bench;
afterEach(() => b.close());

const ENDLESS = { prompt: [5, 6, 7], max_tokens: 1000, ignore_eos: true };

async function occupy(count: number): Promise<AbortController> {
  const leave = new AbortController();
  const url = await b.server.listen({ host: '127.0.0.1', port: 0 });
  for (let i = 0; i < count; i++) {
    void fetch(`${url}/v1/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ ...ENDLESS, stream: true }),
      signal: leave.signal,
    }).catch(() => {});
  }
  const step = b.core.step.bind(b.core);
  b.core.step = () => {
    for (const end = performance.now() + 3; performance.now() < end; );
    return step();
  };
  await until(() => b.llm.inFlight === count, 'the queue is full');
  return leave;
}

it.each([false, true])('a full queue answers 429 with Retry-After (stream: %s)', async (stream) => {
  b = await bench({ flags: ['--max-num-queued-reqs', '2'] });
  const leave = await occupy(2);
  const response = await b.server.app.inject({
    method: 'POST',
    url: '/v1/completions',
    payload: { ...ENDLESS, stream },
  });
  expect(response.statusCode).toBe(429);
  expect(Number(response.headers['retry-after'])).toBeGreaterThanOrEqual(1);
  expect(response.json().error).toMatchObject({ type: 'TooManyRequestsError', code: 429 });
  expect(await b.server.context.registry.text()).toMatch(
    /vllm:admission_rejections_total\{[^}]*reason="max_num_queued_reqs"[^}]*\} 1/,
  );
  expect((await b.server.app.inject('/health')).statusCode).toBe(200);
  expect((await b.server.app.inject('/ready')).statusCode).toBe(200);
  leave.abort();
  await until(() => b.llm.inFlight === 0, 'the queue is empty');
  const next = await b.server.app.inject({
    method: 'POST',
    url: '/v1/completions',
    payload: { prompt: 'x', max_tokens: 2 },
  });
  expect(next.statusCode).toBe(200);
});

it('one prompt of several that does not fit refuses them all and frees them all', async () => {
  b = await bench({ flags: ['--max-num-queued-reqs', '3'] });
  const response = await b.server.app.inject({
    method: 'POST',
    url: '/v1/completions',
    payload: { ...ENDLESS, prompt: ['a', 'b', 'c', 'd'] },
  });
  expect(response.statusCode).toBe(429);
  await until(() => b.llm.inFlight === 0 && b.blocksInUse() === 0, 'everything is freed');
});

it('too many waiting prompt tokens answer 503 with Retry-After', async () => {
  b = await bench({ flags: ['--max-num-queued-tokens', '100'] });
  const prompts = new Array(3).fill(new Array(60).fill(5));
  const response = await b.server.app.inject({
    method: 'POST',
    url: '/v1/completions',
    payload: { ...ENDLESS, prompt: prompts, max_tokens: 900 },
  });
  expect(response.statusCode).toBe(503);
  expect(response.headers['retry-after']).toBeDefined();
  expect(await b.server.context.registry.text()).toMatch(
    /vllm:admission_rejections_total\{[^}]*reason="max_num_queued_tokens"[^}]*\} [12]/,
  );
});
