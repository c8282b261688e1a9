import { afterAll, beforeAll, expect, it } from 'vitest';
import { type Bench, bench } from './harness.ts';

let b: Bench;
beforeAll(async () => {
  b = await bench({ apiKeys: ['first-key', 'second key'], devMode: true });
});
afterAll(() => b.close());

const get = (url: string, authorization?: string) =>
  b.server.app.inject({ url, ...(authorization === undefined ? {} : { headers: { authorization } }) });

it.each(['Bearer first-key', 'Bearer second key', 'bearer first-key'])('%s is let in', async (header) => {
  expect((await get('/v1/models', header)).statusCode).toBe(200);
});

it.each([
  undefined,
  '',
  'Bearer',
  'Bearer ',
  'Bearer first-ke',
  'Bearer first-key ',
  'Basic first-key',
  'first-key',
  'Bearer FIRST-KEY',
])('%j is 401 in the shape of vLLM', async (header) => {
  const response = await get('/v1/models', header);
  expect(response.statusCode).toBe(401);
  expect(response.json()).toEqual({ error: 'Unauthorized' });
});

it('guards everything but probes, metrics and docs', async () => {
  const open: string[] = [];
  for (const path of Object.keys((await get('/openapi.json')).json().paths)) {
    for (const method of ['GET', 'POST'] as const) {
      const response = await b.server.app.inject({ method, url: path.replace('{id}', 'm') });
      if (response.statusCode !== 401 && !open.includes(path)) open.push(path);
    }
  }
  expect(open.sort()).toEqual(['/health', '/livez', '/metrics', '/ping', '/ready', '/readyz', '/version']);
  expect((await get('/docs')).statusCode).toBe(200);
  expect((await get('/unknown')).statusCode).toBe(401);
});

it('is not fooled by queries, slashes, dots or encodings', async () => {
  for (const url of [
    '/v1/models?x=/health',
    '/health/../v1/models',
    '/%76%31/models',
    '//v1/models',
    '/v1/models/',
    '/metrics/../plan',
  ]) {
    const response = await get(url);
    expect([401, 404], url).toContain(response.statusCode);
  }
});

it('the body of an unauthorized request is not even parsed', async () => {
  const response = await b.server.app.inject({
    method: 'POST',
    url: '/v1/completions',
    payload: '{broken',
    headers: { 'content-type': 'application/json' },
  });
  expect(response.statusCode).toBe(401);
});

it('the plan does not show keys', async () => {
  const keyed = await bench({ flags: ['--api-key', 'top-secret-key'] });
  const response = await keyed.server.app.inject('/plan');
  expect(response.statusCode).toBe(200);
  expect(response.body).not.toContain('top-secret-key');
  expect(response.json().reasons).toEqual(expect.any(Object));
  await keyed.close();
});
