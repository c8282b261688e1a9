/** HTTPS: reads and checks the files of the `--ssl-*` flags, and reads them again when they change. */
import { readFileSync, unwatchFile, watchFile } from 'node:fs';
import type { Server as HttpsServer, ServerOptions } from 'node:https';
import { createSecureContext, type TLSSocket } from 'node:tls';
import type { Logger } from 'pino';
import { TokenmillError } from '../base/errors.ts';

export interface TlsConfig {
  /** PEM with the certificate chain, and with the private key when `keyfile` is null. */
  readonly certfile: string;
  readonly keyfile: string | null;
  /** PEM with the authorities whose client certificates are believed. */
  readonly caCerts: string | null;
  /** What clients must show: nothing, a certificate only if they like, always one. */
  readonly certReqs: 'none' | 'optional' | 'required';
  /** OpenSSL cipher list for TLS 1.2. */
  readonly ciphers: string | null;
  /** Load the files again when they change; null = never. */
  readonly refreshIntervalMs: number | null;
}

export interface TlsFlags {
  readonly sslKeyfile: string | null;
  readonly sslCertfile: string | null;
  readonly sslCaCerts: string | null;
  readonly sslCertReqs: '0' | '1' | '2';
  readonly sslCiphers: string | null;
  readonly enableSslRefresh: boolean;
}

const REFRESH_INTERVAL_MS = 5000;
const CERT_REQS = { 0: 'none', 1: 'optional', 2: 'required' } as const;

function refuse(param: string, message: string, remedy: string, cause?: unknown): TokenmillError {
  return new TokenmillError('flag_invalid', message, { param, remedy, cause });
}

/** Null = plain HTTP. Throws `flag_invalid` for flags that make no sense together. */
export function tlsConfigOf(flags: TlsFlags): TlsConfig | null {
  const certReqs = CERT_REQS[flags.sslCertReqs];
  if (flags.sslCertfile === null) {
    const orphan =
      flags.sslKeyfile !== null
        ? '--ssl-keyfile'
        : flags.sslCaCerts !== null
          ? '--ssl-ca-certs'
          : certReqs !== 'none'
            ? '--ssl-cert-reqs'
            : flags.sslCiphers !== null
              ? '--ssl-ciphers'
              : flags.enableSslRefresh
                ? '--enable-ssl-refresh'
                : null;
    if (orphan === null) return null;
    throw refuse(orphan, `${orphan} does nothing without a certificate.`, 'Give --ssl-certfile.');
  }
  if (certReqs !== 'none' && flags.sslCaCerts === null) {
    const message = `--ssl-cert-reqs ${flags.sslCertReqs} asks clients for certificates without saying whose are believed.`;
    throw refuse('--ssl-cert-reqs', message, 'Give --ssl-ca-certs.');
  }
  return {
    certfile: flags.sslCertfile,
    keyfile: flags.sslKeyfile,
    caCerts: flags.sslCaCerts,
    certReqs,
    ciphers: flags.sslCiphers,
    refreshIntervalMs: flags.enableSslRefresh ? REFRESH_INTERVAL_MS : null,
  };
}

function readPem(param: string, path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw refuse(param, `${param}: ${path} cannot be read (${code}).`, 'Check the path and its permissions.', error);
  }
}

/** Options for `https.createServer`. Throws `flag_invalid` when a file is missing, is no PEM, or key and certificate differ. */
export function readTls(tls: TlsConfig): ServerOptions {
  const cert = readPem('--ssl-certfile', tls.certfile);
  const options: ServerOptions = {
    cert,
    key: tls.keyfile === null ? cert : readPem('--ssl-keyfile', tls.keyfile),
    ...(tls.caCerts === null ? {} : { ca: readPem('--ssl-ca-certs', tls.caCerts) }),
    ...(tls.ciphers === null ? {} : { ciphers: tls.ciphers }),
    minVersion: 'TLSv1.2',
    requestCert: tls.certReqs !== 'none',
    rejectUnauthorized: tls.certReqs === 'required',
  };
  try {
    createSecureContext(options);
  } catch (error) {
    const { message, code } = error as NodeJS.ErrnoException;
    const files = [tls.certfile, tls.keyfile, tls.caCerts].filter((path) => path !== null).join(', ');
    const why = code === 'ERR_OSSL_X509_KEY_VALUES_MISMATCH' ? 'the key is not that of the certificate' : message;
    throw refuse(
      '--ssl-certfile',
      `HTTPS cannot be set up with ${files}: ${why}.`,
      'Give an unencrypted PEM key, its certificate chain, and ciphers that OpenSSL knows.',
      error,
    );
  }
  return options;
}

/** With `optional` a client may come without a certificate, but not with one that nobody vouches for. */
export function refuseBadCertificates(server: HttpsServer): void {
  server.on('secureConnection', (socket: TLSSocket) => {
    if (!socket.authorized && Object.keys(socket.getPeerCertificate()).length > 0) socket.destroy();
  });
}

/** New connections get the new files; files that do not fit together (half of a renewal) are named and not taken. Returns the end of it. */
export function watchTls(server: HttpsServer, tls: TlsConfig, log: Logger): () => void {
  if (tls.refreshIntervalMs === null) return () => {};
  const paths = [tls.certfile, tls.keyfile, tls.caCerts].filter((path) => path !== null);
  const onChange = (): void => {
    try {
      server.setSecureContext(readTls(tls));
      log.info({ certfile: tls.certfile }, 'certificate read again');
    } catch (error) {
      log.error({ err: error }, 'the new certificate cannot be used; the old one stays');
    }
  };
  // Polling follows the symbolic links that orchestrators swap; a change event of the file system does not.
  for (const path of paths) watchFile(path, { interval: tls.refreshIntervalMs, persistent: false }, onChange);
  return () => {
    for (const path of paths) unwatchFile(path, onChange);
  };
}
