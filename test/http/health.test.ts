import { afterEach, expect, it } from 'vitest';
import { type Bench, bench } from './harness.ts';

let b: Bench;
afterEach(() => b.close());

it('every probe answers on a healthy engine', async () => {
  b = await bench();
  for (const url of ['/health', '/livez', '/ping']) {
    const response = await b.server.app.inject(url);
    expect([response.statusCode, response.body]).toEqual([200, '']);
  }
  for (const url of ['/ready', '/readyz']) expect((await b.server.app.inject(url)).json()).toEqual({ ready: true });
  expect((await b.server.app.inject({ method: 'POST', url: '/ping' })).statusCode).toBe(200);
  expect((await b.server.app.inject('/version')).json()).toEqual({ version: '1.2.3' });
});

it('a stuck engine is 503 with the reason', async () => {
  b = await bench();
  b.llm.health = () => ({ healthy: false, reason: 'no step for 61 s', heartbeatMs: 0, lastStepMs: 0 });
  for (const url of ['/health', '/livez', '/ready', '/readyz', '/ping']) {
    const response = await b.server.app.inject(url);
    expect(response.statusCode).toBe(503);
    expect(response.json().error.message).toContain('no step for 61 s');
  }
  expect(await (await b.server.app.inject('/metrics')).body).toMatch(/tokenmill:engine_healthy\{[^}]*\} 0/);
});

it('the deep probe makes a real token; probes that overlap share one', async () => {
  b = await bench();
  let probes = 0;
  const probe = b.llm.probe.bind(b.llm);
  b.llm.probe = (signal) => {
    probes++;
    return probe(signal);
  };
  const answers = await Promise.all(Array.from({ length: 5 }, () => b.server.app.inject('/health?deep=1')));
  expect(answers.map((answer) => answer.statusCode)).toEqual([200, 200, 200, 200, 200]);
  expect(probes).toBe(1);
  expect(await b.server.context.registry.text()).toMatch(/vllm:generation_tokens_total\{[^}]*\} 1\n/);
});

it('a deep probe that fails is 503', async () => {
  b = await bench({ script: { reply: 'x', fail: () => true } });
  expect((await b.server.app.inject('/health')).statusCode).toBe(200);
  const response = await b.server.app.inject('/health?deep=1');
  expect(response.statusCode).toBe(503);
  expect(response.json().error.message).toContain('deep probe failed');
});
