import { afterEach, expect, it } from 'vitest';
import { type Bench, bench, until } from './harness.ts';

let b: Bench;
afterEach(() => b.close());

/** Holds every step back until released. */
function holdEngine(): () => void {
  const { core } = b;
  const hasWork = core.hasWork.bind(core);
  core.hasWork = () => false;
  return () => {
    core.hasWork = hasWork;
    // A command wakes the loop; an abort of nobody changes nothing.
    b.llm.resetPrefixCache().catch(() => {});
  };
}

const body = JSON.stringify({ prompt: 'x', max_tokens: 3, stream: true });
const post = async (): Promise<Response> => {
  const url = await b.server.listen({ host: '127.0.0.1', port: 0 });
  return fetch(`${url}/v1/completions`, { method: 'POST', headers: { 'content-type': 'application/json' }, body });
};

it('headers do not wait for a first token that is late', async () => {
  b = await bench({ streamHeaderDelayMs: 20 });
  const release = holdEngine();
  const response = await post();
  expect(response.status).toBe(200);
  expect(b.core.scheduler.running.length).toBe(0);
  release();
  const text = await response.text();
  expect(text.match(/data: \{/g)).toHaveLength(3);
  expect(text.endsWith('data: [DONE]\n\n')).toBe(true);
});

it('an idle stream gets comment lines when asked for, which are no events', async () => {
  b = await bench({ streamHeaderDelayMs: 5, sseKeepAliveIntervalS: 0.02 });
  const release = holdEngine();
  const response = await post();
  const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
  let text = '';
  while (text.split(': keep-alive\n\n').length < 4) text += (await reader?.read())?.value ?? '';
  release();
  for (let part = await reader?.read(); part && !part.done; part = await reader?.read()) text += part.value;
  expect(text.replaceAll(': keep-alive\n\n', '').match(/^data: /gm)).toHaveLength(4);
  await until(() => b.server.context.active.size === 0, 'the stream has ended');
});

it('without the flag nothing is sent while idle', async () => {
  b = await bench({ streamHeaderDelayMs: 5 });
  const release = holdEngine();
  const response = await post();
  await new Promise((resolve) => setTimeout(resolve, 50));
  release();
  expect(await response.text()).not.toContain('keep-alive');
});
