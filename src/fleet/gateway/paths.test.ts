import { expect, it } from 'vitest';
import { classifyPath } from './paths.ts';

it.each([
  ['GET', '/health', { kind: 'local', route: 'health' }],
  ['POST', '/ping', { kind: 'local', route: 'health' }],
  ['GET', '/v1/models', { kind: 'local', route: 'models' }],
  ['GET', '/openai/v1/models', { kind: 'local', route: 'models' }],
  ['POST', '/v1/models', { kind: 'proxy', dialect: 'openai', model: null }],
  ['GET', '/v1/models/org/name', { kind: 'modelInfo', model: 'org/name' }],
  ['POST', '/v1/models/m:predict', { kind: 'proxy', dialect: 'v2', model: 'm' }],
  [
    'POST',
    '/openai/v1/chat/completions',
    { kind: 'proxy', dialect: 'openai', path: '/v1/chat/completions', model: null },
  ],
  ['POST', '/tokenize', { kind: 'proxy', dialect: 'openai', path: '/tokenize', model: null }],
  ['GET', '/v2/health/ready', { kind: 'local', route: 'v2Ready', dialect: 'v2' }],
  ['GET', '/v2/models/a%2Fb/ready', { kind: 'proxy', dialect: 'v2', model: 'a/b' }],
  ['POST', '/v2/models/m%ZZ/infer', { kind: 'proxy', model: 'm%ZZ' }],
  ['POST', '/', { kind: 'proxy', dialect: 'tgi' }],
  ['POST', '/generate_stream', { kind: 'proxy', dialect: 'tgi' }],
  ['POST', '/graphs/ns/g', { kind: 'graph', graph: 'ns/g', path: '/v1/chat/completions' }],
  ['POST', '/graphs/ns/g/v1/completions', { kind: 'graph', graph: 'ns/g', path: '/v1/completions' }],
  ['POST', '/key/generate', { kind: 'local', route: 'keys' }],
])('%s %s', (method, path, kind) => {
  expect(classifyPath(method, path)).toMatchObject(kind);
});
