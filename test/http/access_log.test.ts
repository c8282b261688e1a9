import { Writable } from 'node:stream';
import { pino } from 'pino';
import { expect, it } from 'vitest';
import { bench, until } from './harness.ts';

function capture() {
  const lines: Record<string, unknown>[] = [];
  const sink = new Writable({
    write(chunk, _encoding, done) {
      lines.push(JSON.parse(String(chunk)) as Record<string, unknown>);
      done();
    },
  });
  return { lines, logger: pino({}, sink) };
}

const requests = (lines: Record<string, unknown>[]) => lines.filter((line) => line['msg'] === 'request');

it('one JSON line a request with tokens and id, never a prompt', async () => {
  const { lines, logger } = capture();
  const b = await bench({ logger });
  for (const stream of [false, true]) {
    await b.server.app.inject({
      method: 'POST',
      url: '/v1/completions?secret=1',
      headers: { 'x-request-id': `given-${stream}` },
      payload: { prompt: 'very private prompt', max_tokens: 3, stream },
    });
  }
  await until(() => requests(lines).length === 2, 'both lines are written');
  expect(requests(lines)[0]).toMatchObject({
    method: 'POST',
    path: '/v1/completions',
    status: 200,
    completionTokens: 3,
    requestId: 'given-false',
  });
  expect(requests(lines)[1]).toMatchObject({ status: 200, completionTokens: 3, requestId: 'given-true' });
  expect(JSON.stringify(lines)).not.toContain('private');
  expect(JSON.stringify(lines)).not.toContain('secret');
  await b.close();
});

it('prompts are logged only when asked for, and clipped', async () => {
  const { lines, logger } = capture();
  const b = await bench({ logger, enableLogRequests: true, maxLogLen: 10 });
  await b.server.app.inject({
    method: 'POST',
    url: '/v1/completions',
    payload: { prompt: 'abcdefghijKLMNOP', max_tokens: 3 },
  });
  expect(JSON.stringify(lines)).toContain('abcdefghij');
  expect(JSON.stringify(lines)).not.toContain('KLMNOP');
  await b.close();
});

it('can be turned off, for all or for some paths', async () => {
  const quiet = capture();
  const b = await bench({ logger: quiet.logger, disableAccessLogForEndpoints: ['/health'] });
  await b.server.app.inject('/health');
  await b.server.app.inject('/version');
  await until(() => requests(quiet.lines).length > 0, 'the line is written');
  expect(requests(quiet.lines).map((line) => line['path'])).toEqual(['/version']);
  await b.close();
  const off = capture();
  const silent = await bench({ logger: off.logger, disableAccessLog: true });
  await silent.server.app.inject('/version');
  await silent.close();
  expect(requests(off.lines)).toEqual([]);
});

it('an unknown field is named once', async () => {
  const { lines, logger } = capture();
  const b = await bench({ logger });
  for (let i = 0; i < 3; i++)
    await b.server.app.inject({
      method: 'POST',
      url: '/v1/completions',
      payload: { prompt: 'x', max_tokens: 1, frobnicate: i },
    });
  expect(lines.filter((line) => line['field'] === 'frobnicate')).toHaveLength(1);
  await b.close();
});

it('request ids go out when enabled, and bad ones are replaced', async () => {
  const b = await bench({ enableRequestIdHeaders: true });
  const ask = async (id: string) =>
    await b.server.app.inject({
      method: 'POST',
      url: '/v1/completions',
      headers: { 'x-request-id': id },
      payload: { prompt: 'x', max_tokens: 1 },
    });
  const kept = await ask('abc-1');
  expect(kept.headers['x-request-id']).toBe('abc-1');
  expect(kept.json().id).toBe('cmpl-abc-1');
  const twice = await Promise.all([ask('same'), ask('same')]);
  expect(twice.map((response) => response.statusCode)).toEqual([200, 200]);
  const replaced = await ask('x'.repeat(500));
  expect(String(replaced.headers['x-request-id']).length).toBeLessThan(130);
  await b.close();
});
