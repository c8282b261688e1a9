import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Bench, bench } from './harness.ts';

type Json = Record<string, unknown>;
const TYPES = new Set(['string', 'number', 'integer', 'boolean', 'array', 'object', 'null']);

let b: Bench;
let document: {
  openapi: string;
  info: Json;
  paths: Record<string, Record<string, Json>>;
  components: { schemas: Record<string, Json> };
};
beforeAll(async () => {
  b = await bench({ devMode: true });
  document = (await b.server.app.inject('/openapi.json')).json();
});
afterAll(() => b.close());

/** Walks a JSON Schema of OpenAPI 3.1: known types, references that lead somewhere, lists where lists belong. */
function checkSchema(schema: unknown, at: string): void {
  expect(typeof schema, at).toBe('object');
  const node = schema as Json;
  if (typeof node['$ref'] === 'string') {
    expect(node['$ref'], at).toMatch(/^#\/components\/schemas\//);
    expect(document.components.schemas, `${at} ${node['$ref']}`).toHaveProperty(
      String(node['$ref']).split('/').pop() ?? '',
    );
    return;
  }
  if (node['type'] !== undefined)
    for (const type of [node['type']].flat()) expect(TYPES, `${at}: ${String(type)}`).toContain(type);
  expect(node, `${at}: nullable is OpenAPI 3.0`).not.toHaveProperty('nullable');
  for (const key of ['anyOf', 'oneOf', 'allOf']) {
    if (node[key] === undefined) continue;
    expect(Array.isArray(node[key]), at).toBe(true);
    for (const [i, part] of (node[key] as unknown[]).entries()) checkSchema(part, `${at}.${key}[${i}]`);
  }
  if (node['items'] !== undefined) checkSchema(node['items'], `${at}[]`);
  for (const [name, field] of Object.entries((node['properties'] as Json | undefined) ?? {}))
    checkSchema(field, `${at}.${name}`);
  for (const name of (node['required'] as string[] | undefined) ?? [])
    expect(node['properties'], at).toHaveProperty(name);
}

it('is OpenAPI 3.1 with a title, a version and servers', () => {
  expect(document.openapi).toMatch(/^3\.1\./);
  expect(document.info).toMatchObject({ title: 'Tokenmill', version: '1.2.3' });
});

it('has every route that the server answers', () => {
  const expected = [
    ['post', '/v1/chat/completions'],
    ['post', '/v1/completions'],
    ['get', '/v1/models'],
    ['get', '/v1/models/{id}'],
    ['post', '/tokenize'],
    ['post', '/detokenize'],
    ['get', '/health'],
    ['get', '/livez'],
    ['get', '/ready'],
    ['get', '/readyz'],
    ['get', '/ping'],
    ['post', '/ping'],
    ['get', '/metrics'],
    ['get', '/version'],
    ['get', '/load'],
    ['get', '/plan'],
    ['post', '/reset_prefix_cache'],
  ];
  const found = Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.keys(methods).map((method) => `${method} ${path}`),
  );
  expect(found.sort()).toEqual(expected.map(([method, path]) => `${method} ${path}`).sort());
});

it('every operation has a summary, answers with descriptions, and valid schemas', () => {
  for (const [path, methods] of Object.entries(document.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      const at = `${method} ${path}`;
      expect(operation['summary'], at).toBeTruthy();
      const responses = operation['responses'] as Record<
        string,
        { description?: string; content?: Record<string, { schema: unknown }> }
      >;
      expect(Object.keys(responses), at).toContain('200');
      for (const [status, response] of Object.entries(responses)) {
        expect(response.description, `${at} ${status}`).toBeTruthy();
        for (const media of Object.values(response.content ?? {})) checkSchema(media.schema, `${at} ${status}`);
      }
      const body = operation['requestBody'] as { content: Record<string, { schema: unknown }> } | undefined;
      expect(body !== undefined, at).toBe(method === 'post' && /completions|tokenize/.test(path));
      for (const media of Object.values(body?.content ?? {})) checkSchema(media.schema, at);
    }
  }
  for (const [name, schema] of Object.entries(document.components.schemas)) checkSchema(schema, name);
});

it('routes of development are absent without the flag', async () => {
  const plain = await bench();
  expect((await plain.server.app.inject({ method: 'POST', url: '/reset_prefix_cache', payload: {} })).statusCode).toBe(
    404,
  );
  expect((await plain.server.app.inject('/openapi.json')).json().paths).not.toHaveProperty('/reset_prefix_cache');
  const reset = await b.server.app.inject({ method: 'POST', url: '/reset_prefix_cache' });
  expect(reset.json()).toEqual({ success: true });
  await plain.close();
});

it('/docs shows every path and needs nothing from outside; / leads there', async () => {
  const page = await b.server.app.inject({ url: '/docs', headers: { host: 'llm.example:8000' } });
  expect(page.headers['content-type']).toBe('text/html; charset=utf-8');
  for (const path of Object.keys(document.paths)) expect(page.body).toContain(path);
  expect(page.body).toContain('http://llm.example:8000/v1/chat/completions');
  expect(page.body).not.toMatch(/<script|src=|@import|url\(/);
  const hostile = await b.server.app.inject({ url: '/docs', headers: { host: '"><script>alert(1)</script>' } });
  expect(hostile.body).not.toContain('<script>');
  expect((await b.server.app.inject('/')).headers['location']).toBe('docs');
});

it('can be turned off', async () => {
  const off = await bench({ disableDocs: true });
  for (const url of ['/docs', '/openapi.json', '/']) expect((await off.server.app.inject(url)).statusCode).toBe(404);
  await off.close();
});

const THEIRS = fileURLToPath(new URL('../../../shared/contract/openapi.json', import.meta.url));
if (!existsSync(THEIRS)) console.warn(`skipped: vLLM's OpenAPI document is not at ${THEIRS}`);

describe.skipIf(!existsSync(THEIRS))('against the document of vLLM', () => {
  it.each([
    'CompletionRequest',
    'ChatCompletionRequest',
    'TokenizeCompletionRequest',
    'TokenizeChatRequest',
    'DetokenizeRequest',
  ])('every field of %s is known here: taken, or refused by name', (name) => {
    const theirs = JSON.parse(readFileSync(THEIRS, 'utf8')).components.schemas[name].properties as Json;
    const ours = Object.entries(document.components.schemas).find(
      ([key]) => key === name || key === `${name}Input`,
    )?.[1];
    const fields = Object.keys((ours?.['properties'] as Json | undefined) ?? {});
    expect(Object.keys(theirs).filter((field) => !fields.includes(field))).toEqual([]);
  });
});
