import { expect, it } from 'vitest';
import { bench } from './harness.ts';

const preflight = {
  origin: 'https://app.example',
  'access-control-request-method': 'POST',
  'access-control-request-headers': 'authorization,content-type',
};

it('is off by default', async () => {
  const b = await bench();
  const response = await b.server.app.inject({ url: '/v1/models', headers: { origin: 'https://app.example' } });
  expect(response.headers['access-control-allow-origin']).toBeUndefined();
  await b.close();
});

it('answers preflights of allowed origins without a key, refuses others', async () => {
  const b = await bench({ allowedOrigins: ['https://app.example'], apiKeys: ['k'] });
  const allowed = await b.server.app.inject({ method: 'OPTIONS', url: '/v1/chat/completions', headers: preflight });
  expect(allowed.statusCode).toBe(204);
  expect(allowed.headers['access-control-allow-origin']).toBe('https://app.example');
  expect(allowed.headers['access-control-allow-headers']).toContain('authorization');
  const other = await b.server.app.inject({ url: '/health', headers: { origin: 'https://evil.example' } });
  expect(other.headers['access-control-allow-origin']).toBeUndefined();
  await b.close();
});

it('streams carry the header too', async () => {
  const b = await bench({ allowedOrigins: ['*'] });
  const response = await b.server.app.inject({
    method: 'POST',
    url: '/v1/completions',
    headers: { origin: 'https://app.example' },
    payload: { prompt: 'x', max_tokens: 2, stream: true },
  });
  expect(response.headers['access-control-allow-origin']).toBe('*');
  await b.close();
});

it('with credentials the origin is echoed, since browsers refuse *', async () => {
  const b = await bench({ allowedOrigins: ['*'], allowCredentials: true });
  const response = await b.server.app.inject({ url: '/v1/models', headers: { origin: 'https://app.example' } });
  expect(response.headers['access-control-allow-origin']).toBe('https://app.example');
  expect(response.headers['access-control-allow-credentials']).toBe('true');
  await b.close();
});
