import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Agent, request } from 'undici';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { checkAddress } from '../../src/server/listen.ts';
import { type Bench, bench } from './harness.ts';

let folder: string;
let uds: string;
let b: Bench;
beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'tokenmill-uds-'));
  uds = join(folder, 's.sock');
  b = await bench();
});
afterEach(async () => {
  await b.close();
  rmSync(folder, { recursive: true, force: true });
});

async function status(): Promise<number> {
  const dispatcher = new Agent({ connect: { socketPath: uds } });
  const { statusCode, body } = await request('http://localhost/health', { dispatcher });
  await body.dump();
  await dispatcher.close();
  return statusCode;
}

it('answers on the socket and takes it away at the end', async () => {
  expect(await b.server.listen({ uds })).toBe(`unix:${uds}`);
  expect(await status()).toBe(200);
  await b.server.app.close();
  expect(existsSync(uds)).toBe(false);
});

it('the socket of a killed server is replaced', async () => {
  const dies = `require('net').createServer().listen(${JSON.stringify(uds)}, () => process.kill(process.pid, 'SIGKILL'))`;
  spawnSync(process.execPath, ['-e', dies]);
  expect(existsSync(uds)).toBe(true);
  await b.server.listen({ uds });
  expect(await status()).toBe(200);
});

it('the socket of a living server is not', async () => {
  await b.server.listen({ uds });
  await expect(checkAddress({ uds })).rejects.toMatchObject({ code: 'port_in_use' });
  expect(await status()).toBe(200);
});

it('checking leaves nothing behind', async () => {
  await checkAddress({ uds });
  expect(existsSync(uds)).toBe(false);
});

it('refuses what is no socket, a folder that is not there and a path that would be cut', async () => {
  writeFileSync(uds, 'precious');
  await expect(b.server.listen({ uds })).rejects.toThrow(/exists and is no socket/);
  await expect(b.server.listen({ uds: join(folder, 'no', 's') })).rejects.toThrow(/folder must exist/);
  await expect(b.server.listen({ uds: join(folder, 'x'.repeat(100)) })).rejects.toThrow(/longer than 103 bytes/);
});
