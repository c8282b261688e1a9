/** Where the server listens: a TCP port or a Unix socket; every reason why it cannot is named. */
import { lstatSync, unlinkSync } from 'node:fs';
import { connect, createServer as createSocket } from 'node:net';
import type { FastifyInstance } from 'fastify';
import { TokenmillError } from '../base/errors.ts';

export type ListenAddress = { readonly host: string; readonly port: number } | { readonly uds: string };

/** The least `sun_path` of the supported systems, without its NUL; longer paths would be cut in silence. */
const MAX_UDS_BYTES = 103;

function portError(error: NodeJS.ErrnoException, host: string, port: number): TokenmillError | NodeJS.ErrnoException {
  if (error.code === 'EADDRINUSE') {
    return new TokenmillError('port_in_use', `Port ${port} on ${host} is in use by another process.`, {
      param: '--port',
      remedy: `Stop it, or choose another with --port ${port === 65_535 ? port - 1 : port + 1}.`,
      cause: error,
    });
  }
  const remedy =
    error.code === 'EACCES' ? 'Ports below 1024 need privileges; choose a higher --port.' : 'Check --host and --port.';
  if (error.syscall === undefined) return error;
  return new TokenmillError('flag_invalid', `Cannot listen on ${host}:${port}: ${error.message}.`, {
    param: '--host',
    remedy,
    cause: error,
  });
}

function udsError(path: string, why: string, remedy: string, cause?: unknown): TokenmillError {
  return new TokenmillError('flag_invalid', `Cannot listen on ${path}: ${why}.`, { param: '--uds', remedy, cause });
}

function isAnswered(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
    socket.once('connect', () => socket.destroy());
  });
}

/** Removes the socket file of a server that died. Throws when the path is in use, is something else or cannot be made. */
async function clearUds(path: string): Promise<void> {
  if (Buffer.byteLength(path) > MAX_UDS_BYTES) {
    throw udsError(path, `the path is longer than ${MAX_UDS_BYTES} bytes`, 'Choose a shorter one.');
  }
  const stat = lstatSync(path, { throwIfNoEntry: false });
  if (stat === undefined) return;
  if (!stat.isSocket()) throw udsError(path, 'the file exists and is no socket', 'Choose another path or remove it.');
  if (await isAnswered(path)) {
    throw new TokenmillError('port_in_use', `Another process listens on ${path}.`, {
      param: '--uds',
      remedy: 'Stop it, or choose another --uds.',
    });
  }
  unlinkSync(path);
}

function bindOnce(address: ListenAddress): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = createSocket();
    const options = 'uds' in address ? { path: address.uds } : { ...address, exclusive: true };
    socket.once('error', reject).listen(options, () => socket.close(() => resolve()));
  });
}

async function binding<T>(address: ListenAddress, bind: () => Promise<T>): Promise<T> {
  if ('uds' in address) await clearUds(address.uds);
  try {
    return await bind();
  } catch (error) {
    const cause = error as NodeJS.ErrnoException;
    if (!('uds' in address)) throw portError(cause, address.host, address.port);
    throw udsError(address.uds, cause.message, 'The folder must exist and be writable.', cause);
  }
}

/** Binds and lets go, because an address in use is better told before a minute of loading than after it. */
export function checkAddress(address: ListenAddress): Promise<void> {
  return binding(address, () => bindOnce(address));
}

/** The URL of the server, or `unix:PATH`. Throws `port_in_use` or `flag_invalid`. */
export function listen(app: FastifyInstance, address: ListenAddress): Promise<string> {
  return binding(address, async () => {
    if (!('uds' in address)) return app.listen(address);
    await app.listen({ path: address.uds });
    return `unix:${address.uds}`;
  });
}
