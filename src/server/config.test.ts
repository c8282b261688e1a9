import { expect, it } from 'vitest';
import { FLAGS } from '../config/flags.ts';
import { parseFlags } from '../config/parse.ts';
import { DEFAULT_SERVER_CONFIG, openBindingWarning, serverConfigOf } from './config.ts';

const flags = (...args: string[]) => parseFlags(args, FLAGS, { env: {}, file: null }).values;
const more = { version: '1.0.0', logger: null };

it('the defaults of the flags are those of the server', () => {
  expect(serverConfigOf(flags(), more)).toEqual({ ...DEFAULT_SERVER_CONFIG, version: '1.0.0' });
});

it('flags reach the server', () => {
  const config = serverConfigOf(
    flags(
      '--api-key',
      'a',
      'b',
      '--max-body-bytes',
      '2M',
      '--disable-access-log-for-endpoints',
      '/health, /metrics',
      '--shutdown-timeout',
      '5',
    ),
    more,
  );
  expect(config).toMatchObject({
    apiKeys: ['a', 'b'],
    disableAccessLogForEndpoints: ['/health', '/metrics'],
    shutdownTimeoutS: 5,
  });
  expect(config.maxBodyBytes).toBeGreaterThanOrEqual(2_000_000);
});

it('wrong custom buckets are refused at start', () => {
  expect(() => serverConfigOf(flags('--custom-histogram-buckets', '{"nope": [1]}'), more)).toThrow(/unknown family/);
});

it.each(['127.0.0.1', 'localhost', '::1', '127.1.2.3'])('%s without a key is nobody else’s business', (host) => {
  expect(openBindingWarning(host, [])).toBeNull();
});

it.each(['0.0.0.0', '::', '192.168.1.5', 'gpu-box'])(
  '%s without a key is warned of, loudly; with a key it is fine',
  (host) => {
    const warning = openBindingWarning(host, []) ?? '';
    expect(warning).toContain('OPEN TO THE NETWORK');
    expect(warning).toContain('--api-key');
    expect(new Set(warning.split('\n').map((line) => line.length)).size).toBe(1);
    expect(openBindingWarning(host, ['key'])).toBeNull();
  },
);
