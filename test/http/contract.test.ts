/** Recorded answers of vLLM: status, content type, fields and their order, nulls, error objects, chunk sequence. */
import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Bench, bench, events } from './harness.ts';

interface Recorded {
  readonly request: { readonly method: 'GET' | 'POST'; readonly path: string; readonly body: unknown };
  readonly status: number;
  readonly content_type: string | null;
  readonly answer: unknown;
}

const PATH = fileURLToPath(new URL('../../../shared/contract/requests.json', import.meta.url));
const present = existsSync(PATH);
if (!present) console.warn(`skipped: recorded answers of vLLM are not at ${PATH}`);
const recorded = present ? (JSON.parse(readFileSync(PATH, 'utf8')) as Record<string, Recorded>) : {};

/** Whose values depend on model, time or host, not on the protocol. */
const FREE_VALUES = new Set([
  'id',
  'created',
  'model',
  'text',
  'content',
  'prompt',
  'root',
  'owned_by',
  'version',
  'system_fingerprint',
  'token',
  'logprob',
  'bytes',
]);
const FREE_LISTS = new Set(['tokens', 'text_offset', 'token_logprobs', 'bytes']);
/** Counts that depend on the tokenizer. */
const FREE_NUMBERS = new Set(['prompt_tokens', 'total_tokens', 'count']);

/** The shape of a value: keys in order, nulls, types, and the values that the protocol fixes. */
function shape(value: unknown, key = ''): unknown {
  if (value === null) return null;
  if (Array.isArray(value)) {
    if (FREE_LISTS.has(key)) return [...new Set(value.map((item) => (item === null ? 'null' : typeof item)))].sort();
    if (key === 'prompt_logprobs') return value.map((item) => (item === null ? null : 'logprobs')).slice(0, 1);
    return value.map((item) => shape(item, key));
  }
  if (typeof value === 'object') {
    if (key === 'top_logprobs' && !('token' in value)) return Object.values(value).map((item) => typeof item);
    return Object.entries(value).map(([name, item]) => [name, shape(item, name)]);
  }
  if (FREE_VALUES.has(key) || FREE_NUMBERS.has(key)) return typeof value;
  return value;
}

let b: Bench;
beforeAll(async () => {
  b = await bench({
    script: {
      reply:
        'In a small town by a big hill, a boy and a dog go up, down, up, down, and round and round. It was a long, long day!',
    },
    flags: ['--max-logprobs', '20'],
  });
});
afterAll(() => b.close());

async function ask({ method, path, body }: Recorded['request']) {
  const payload = typeof body === 'string' ? body : body === null ? undefined : JSON.stringify(body);
  return b.server.app.inject({
    method,
    url: path,
    ...(payload === undefined ? {} : { payload, headers: { 'content-type': 'application/json' } }),
  });
}

describe.skipIf(!present)('answers as vLLM gives them', () => {
  for (const [name, { request, status, content_type: contentType, answer }] of Object.entries(recorded)) {
    it(name, async () => {
      const response = await ask(request);
      expect(response.statusCode, response.body).toBe(status);
      if (contentType !== null) expect(response.headers['content-type']).toBe(contentType);
      if (contentType?.startsWith('text/event-stream')) {
        const ours = events(response.body).map((event) => (event === '[DONE]' ? event : shape(JSON.parse(event))));
        const theirs = events(answer as string).map((event) => (event === '[DONE]' ? event : shape(JSON.parse(event))));
        expect(ours).toEqual(theirs);
      } else if (contentType === null) {
        expect(response.body).toBe('');
      } else {
        expect(shape(response.json())).toEqual(shape(answer));
      }
    });
  }
});
