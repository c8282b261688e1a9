import { afterEach, expect, it } from 'vitest';
import { normalRootPath } from '../../src/server/root_path.ts';
import { type Bench, bench } from './harness.ts';

let b: Bench;
afterEach(() => b.close());

const get = async (url: string, headers: Record<string, string> = {}) => b.server.app.inject({ url, headers });

it('routes match with the prefix and without it', async () => {
  b = await bench({ rootPath: 'llm/', apiKeys: ['k'] });
  const authorization = 'Bearer k';
  for (const url of ['/v1/models', '/llm/v1/models', '/llm/v1/models?x=1']) {
    expect((await get(url, { authorization })).statusCode).toBe(200);
    expect((await get(url)).statusCode).toBe(401);
  }
  expect((await get('/llmx/v1/models', { authorization })).statusCode).toBe(404);
  expect((await get('/llm/llm/v1/models', { authorization })).statusCode).toBe(404);
});

it('links and the document carry the prefix', async () => {
  b = await bench({ rootPath: '/llm' });
  for (const url of ['/', '/llm', '/llm/', '/llm?x=1']) expect((await get(url)).headers.location).toBe('/llm/docs');
  expect((await get('/llm/openapi.json')).json().servers).toEqual([{ url: '/llm' }]);
  expect((await get('/docs', { host: 'h.example' })).body).toContain('http://h.example/llm/v1');
});

it('without a prefix the way to the docs is relative, for proxies that take a prefix off unasked', async () => {
  b = await bench();
  expect((await get('/')).headers.location).toBe('docs');
  expect(['', '/', 'a', '/a/', '//a/b//'].map(normalRootPath)).toEqual(['', '', '/a', '/a', '/a/b']);
});
