import { execFileSync, spawnSync } from 'node:child_process';
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { get, type RequestOptions } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect } from 'node:tls';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { FLAGS } from '../../src/config/flags.ts';
import { parseFlags } from '../../src/config/parse.ts';
import { serverConfigOf } from '../../src/server/config.ts';
import type { TlsConfig } from '../../src/server/tls.ts';
import { type Bench, bench, until } from './harness.ts';

const hasOpenssl = spawnSync('openssl', ['version']).status === 0;
const folder = mkdtempSync(join(tmpdir(), 'tokenmill-tls-'));
const at = (name: string): string => join(folder, name);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Writes NAME.pem and NAME.key, self-signed, for localhost. */
function makeCertificate(name: string): void {
  const kind = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2'];
  const subject = ['-subj', `/CN=${name}`, '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1'];
  execFileSync('openssl', [...kind, ...subject, '-keyout', at(`${name}.key`), '-out', at(`${name}.pem`)], {
    stdio: 'ignore',
  });
}

const tls = (more: Partial<TlsConfig> = {}): TlsConfig => ({
  certfile: at('server.pem'),
  keyfile: at('server.key'),
  caCerts: null,
  certReqs: 'none',
  ciphers: null,
  refreshIntervalMs: null,
  ...more,
});

async function withServer(config: TlsConfig, act: (url: string, b: Bench) => Promise<void>): Promise<void> {
  const b = await bench({ tls: config });
  try {
    await act(await b.server.listen({ host: '127.0.0.1', port: 0 }), b);
  } finally {
    await b.close();
  }
}

/** Status, or the code of the failure. */
function ask(url: string, options: RequestOptions = {}): Promise<number | string> {
  return new Promise((resolve) => {
    const request = get(`${url}/v1/models`, { agent: false, rejectUnauthorized: false, ...options }, (response) => {
      response.resume();
      resolve(response.statusCode ?? 0);
    });
    request.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
  });
}

function subjectOf(url: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const { hostname, port } = new URL(url);
    const socket = connect({ host: hostname, port: Number(port), rejectUnauthorized: false }, () => {
      resolve(String(socket.getPeerCertificate().subject.CN));
      socket.destroy();
    });
    socket.once('error', reject);
  });
}

describe.skipIf(!hasOpenssl)('HTTPS (needs the openssl command)', () => {
  beforeAll(() => {
    for (const name of ['server', 'client', 'stranger']) makeCertificate(name);
  });

  it('answers over HTTPS, with a certificate that clients can check', async () => {
    await withServer(tls(), async (url) => {
      expect(url).toMatch(/^https:/);
      const ca = readFileSync(at('server.pem'));
      expect(await ask(url, { ca, rejectUnauthorized: true })).toBe(200);
      expect(await ask(url, { rejectUnauthorized: true })).toMatch(/SELF_SIGNED/);
    });
  });

  it('takes a key that lies in the certificate file', async () => {
    const both = readFileSync(at('server.pem'), 'utf8') + readFileSync(at('server.key'), 'utf8');
    writeFileSync(at('both.pem'), both);
    await withServer(tls({ certfile: at('both.pem'), keyfile: null }), async (url) => {
      expect(await ask(url)).toBe(200);
    });
  });

  it('required: only clients that a believed authority vouches for', async () => {
    await withServer(tls({ caCerts: at('client.pem'), certReqs: 'required' }), async (url) => {
      expect(await ask(url)).not.toBe(200);
      expect(await ask(url, pair('stranger'))).not.toBe(200);
      expect(await ask(url, pair('client'))).toBe(200);
    });
  });

  it('optional: none is fine, a wrong one is not', async () => {
    await withServer(tls({ caCerts: at('client.pem'), certReqs: 'optional' }), async (url) => {
      expect(await ask(url)).toBe(200);
      expect(await ask(url, pair('stranger'))).not.toBe(200);
      expect(await ask(url, pair('client'))).toBe(200);
    });
  });

  it('a renewed certificate is taken while running; half of one is not', async () => {
    for (const end of ['pem', 'key']) copyFileSync(at(`server.${end}`), at(`live.${end}`));
    const live = tls({ certfile: at('live.pem'), keyfile: at('live.key'), refreshIntervalMs: 10 });
    await withServer(live, async (url, b) => {
      const told: string[] = [];
      b.server.context.log.error = (_fields: unknown, text?: string) => void told.push(text ?? '');
      expect(await subjectOf(url)).toBe('server');
      copyFileSync(at('client.pem'), at('live.pem'));
      await until(() => told.length > 0, 'the mismatch is told');
      expect(told[0]).toMatch(/the old one stays/);
      expect(await subjectOf(url)).toBe('server');
      copyFileSync(at('client.key'), at('live.key'));
      let subject = '';
      const poll = setInterval(
        () =>
          void subjectOf(url).then((cn) => {
            subject = cn;
          }),
        20,
      );
      await until(() => subject === 'client', 'the new certificate is served').finally(() => clearInterval(poll));
    });
  });

  it('plain HTTP on the HTTPS port does not disturb it', async () => {
    await withServer(tls(), async (url) => {
      await expect(fetch(url.replace('https', 'http'))).rejects.toThrow();
      expect(await ask(url)).toBe(200);
    });
  });

  it.each([
    ['a key of another certificate', { keyfile: '@client.key' }, /the key is not that of the certificate/],
    ['a file that is no PEM', { certfile: '@garbage' }, /garbage/],
    ['a cipher nobody knows', { ciphers: 'NOSUCHCIPHER' }, /HTTPS cannot be set up/],
    ['a missing file', { keyfile: '@nowhere' }, /--ssl-keyfile: .*nowhere cannot be read \(ENOENT\)/],
    ['a folder', { certfile: '@.' }, /cannot be read \(EISDIR\)/],
  ])('refuses %s before it listens', async (_name, more, message) => {
    writeFileSync(at('garbage'), 'no pem');
    const real = Object.fromEntries(
      Object.entries(more).map(([key, value]) => [key, value.replace('@', `${folder}/`)]),
    );
    await expect(bench({ tls: tls(real) })).rejects.toMatchObject({
      code: 'flag_invalid',
      message: expect.stringMatching(message),
    });
  });
});

function pair(name: string): RequestOptions {
  return { cert: readFileSync(at(`${name}.pem`)), key: readFileSync(at(`${name}.key`)) };
}

const configOf = (line: string) =>
  serverConfigOf(parseFlags(line.split(' '), FLAGS, { env: {}, file: null }).values, { version: '1', logger: null });

it('the flags become the configuration', () => {
  expect(configOf('--port 1').tls).toBeNull();
  expect(
    configOf('--ssl-certfile c --ssl-keyfile k --ssl-ca-certs a --ssl-cert-reqs 2 --ssl-ciphers x --enable-ssl-refresh')
      .tls,
  ).toEqual({
    certfile: 'c',
    keyfile: 'k',
    caCerts: 'a',
    certReqs: 'required',
    ciphers: 'x',
    refreshIntervalMs: 5000,
  });
});

it.each([
  ['--ssl-keyfile k', /--ssl-keyfile does nothing without a certificate/],
  ['--ssl-ca-certs a', /--ssl-ca-certs does nothing/],
  ['--ssl-cert-reqs 1', /--ssl-cert-reqs does nothing/],
  ['--ssl-ciphers x', /--ssl-ciphers does nothing/],
  ['--enable-ssl-refresh', /--enable-ssl-refresh does nothing/],
  ['--ssl-certfile c --ssl-cert-reqs 1', /without saying whose are believed/],
])('flags that make no sense alone: %s', (line, message) => {
  expect(() => configOf(line)).toThrow(message);
});
