import { createHash } from 'node:crypto';
import { cp, lstat, mkdir, mkdtemp, readFile, readlink, rm, writeFile } from 'node:fs/promises';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { realDisk } from './download.ts';
import { type DownloadProgress, type HubOptions, resolveModel } from './resolve_model.ts';

const COMMIT = 'a'.repeat(40);
const TOKEN = 'hf_test_token';
const WEIGHTS = Buffer.from(Uint8Array.from({ length: 300_000 }, (_, i) => (i * 31) ^ (i >> 8)));

/** A hub that speaks as much of the API as the downloader uses, and can be told to misbehave. */
interface Hub {
  readonly files: Map<string, Buffer>;
  readonly requests: { method: string; path: string; range: string | undefined; token: string | undefined }[];
  /** Looked at before the usual answer; true when it answered. */
  misbehave: (request: IncomingMessage, response: ServerResponse) => boolean;
  needsToken: boolean;
  /** Where large files are redirected to, when set. */
  storage: string | null;
  /** File names that the API lists as they are, whatever they are. */
  extraNames: string[];
}

const hub: Hub = {
  files: new Map(),
  requests: [],
  misbehave: () => false,
  needsToken: false,
  storage: null,
  extraNames: [],
};
let server: Server;
let storage: Server;
let folder: string;
const url = (of: Server): string => `http://127.0.0.1:${(of.address() as AddressInfo).port}`;

function listing(): unknown {
  const siblings = [...hub.files].map(([rfilename, data]) => {
    const blobId = createHash('sha1').update(`blob ${data.length}\0`).update(data).digest('hex');
    if (!rfilename.endsWith('.safetensors')) return { rfilename, size: data.length, blobId };
    return {
      rfilename,
      size: data.length,
      blobId,
      lfs: { sha256: createHash('sha256').update(data).digest('hex'), size: data.length },
    };
  });
  const extra = hub.extraNames.map((rfilename) => ({ rfilename, size: 1, blobId: 'b'.repeat(40) }));
  return { id: 'org/model', sha: COMMIT, siblings: [...siblings, ...extra] };
}

function sendFile(request: IncomingMessage, response: ServerResponse, data: Buffer): void {
  const start = Number(/bytes=(\d+)-/.exec(request.headers.range ?? '')?.[1] ?? 0);
  response.writeHead(start > 0 ? 206 : 200, {
    'content-length': data.length - start,
    ...(start > 0 ? { 'content-range': `bytes ${start}-${data.length - 1}/${data.length}` } : {}),
  });
  response.end(data.subarray(start));
}

function answer(request: IncomingMessage, response: ServerResponse): void {
  const path = decodeURIComponent(new URL(request.url as string, 'http://x').pathname);
  hub.requests.push({
    method: request.method as string,
    path,
    range: request.headers.range,
    token: request.headers.authorization,
  });
  if (hub.misbehave(request, response)) return;
  const authorized = !hub.needsToken || request.headers.authorization === `Bearer ${TOKEN}`;
  if (!authorized) response.writeHead(401, { 'x-error-code': 'RepoNotFound' }).end();
  else if (path === '/api/models/org/model/revision/main' || path === `/api/models/org/model/revision/v1`) {
    response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(listing()));
  } else if (path.startsWith('/api/models/org/model/'))
    response.writeHead(404, { 'x-error-code': 'RevisionNotFound' }).end();
  else if (path.startsWith(`/org/model/resolve/${COMMIT}/`)) {
    const name = path.slice(`/org/model/resolve/${COMMIT}/`.length);
    const data = hub.files.get(name);
    if (!data) response.writeHead(404, { 'x-error-code': 'EntryNotFound' }).end();
    else if (hub.storage && name.endsWith('.safetensors'))
      response.writeHead(302, { location: `${hub.storage}/${name}` }).end();
    else sendFile(request, response, data);
  } else response.writeHead(404, { 'x-error-code': 'RepoNotFound' }).end();
}

async function listen(handler: (request: IncomingMessage, response: ServerResponse) => void): Promise<Server> {
  const made = createServer(handler);
  await new Promise<void>((done) => made.listen(0, '127.0.0.1', done));
  return made;
}

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'hub-'));
  server = await listen(answer);
  storage = await listen((request, response) => {
    hub.requests.push({
      method: 'GET',
      path: `storage${request.url}`,
      range: request.headers.range,
      token: request.headers.authorization,
    });
    sendFile(request, response, hub.files.get((request.url as string).slice(1)) as Buffer);
  });
  Object.assign(hub, { misbehave: () => false, needsToken: false, storage: null, extraNames: [] });
  hub.requests.length = 0;
  hub.files.clear();
  hub.files.set('config.json', Buffer.from('{"model_type": "llama"}'));
  hub.files.set('tokenizer.json', Buffer.from('{}'));
  hub.files.set('model.safetensors', WEIGHTS);
  hub.files.set('pytorch_model.bin', Buffer.from('pickle'));
  hub.files.set('original/consolidated.safetensors', Buffer.from('copy'));
});

afterEach(async () => {
  for (const made of [server, storage]) {
    made.closeAllConnections();
    await new Promise((done) => made.close(done));
  }
  await rm(folder, { recursive: true, force: true });
});

function pull(options: HubOptions = {}, internals: Parameters<typeof resolveModel>[2] = {}) {
  const env = { HF_HUB_CACHE: folder, HF_ENDPOINT: url(server), HF_TOKEN_PATH: '/nonexistent' };
  return resolveModel('org/model', { env, ...options }, { retryBaseMs: 1, ...internals });
}

const repo = (...parts: string[]): string => join(folder, 'models--org--model', ...parts);
const sha256 = createHash('sha256').update(WEIGHTS).digest('hex');

test('a fresh download has the layout of the Python tools and only the files that are read', async () => {
  const seen: DownloadProgress[] = [];
  const result = await pull({ onProgress: (progress) => seen.push(progress) });
  expect(result).toEqual({ path: repo('snapshots', COMMIT), revision: COMMIT, source: 'download' });
  expect(WEIGHTS.equals(await readFile(join(result.path, 'model.safetensors')))).toBe(true);
  expect(await readFile(repo('refs', 'main'), 'utf8')).toBe(COMMIT);
  expect(await readlink(join(result.path, 'model.safetensors'))).toBe(`../../blobs/${sha256}`);
  expect(hub.requests.map(({ path }) => path)).not.toContain(`/org/model/resolve/${COMMIT}/pytorch_model.bin`);
  await expect(lstat(join(result.path, 'original'))).rejects.toThrow();
  expect(seen.at(-1)).toMatchObject({ bytes: seen.at(-1)?.totalBytes, totalBytes: WEIGHTS.length + 25 });
});

test('what is in the cache is not fetched again', async () => {
  await pull();
  hub.requests.length = 0;
  expect((await pull()).source).toBe('cache');
  expect(hub.requests).toHaveLength(1);
});

test('a broken connection is continued where it stopped', async () => {
  let breaks = 2;
  hub.misbehave = (request, response) => {
    if (!request.url?.endsWith('model.safetensors') || breaks-- <= 0) return false;
    const start = Number(/bytes=(\d+)-/.exec(request.headers.range ?? '')?.[1] ?? 0);
    response.writeHead(start ? 206 : 200, {
      'content-length': WEIGHTS.length - start,
      ...(start ? { 'content-range': `bytes ${start}-${WEIGHTS.length - 1}/${WEIGHTS.length}` } : {}),
    });
    response.write(WEIGHTS.subarray(start, start + 100_000), () => setTimeout(() => response.destroy(), 50));
    return true;
  };
  const { path } = await pull();
  expect(WEIGHTS.equals(await readFile(join(path, 'model.safetensors')))).toBe(true);
  const ranges = hub.requests.filter((r) => r.path.endsWith('model.safetensors')).map((r) => r.range);
  expect(ranges).toEqual([undefined, 'bytes=100000-', 'bytes=200000-']);
});

test('a download of an earlier process is continued', async () => {
  await mkdir(repo('blobs'), { recursive: true });
  await writeFile(repo('blobs', `${sha256}.incomplete`), WEIGHTS.subarray(0, 123_456));
  const { path } = await pull();
  expect(WEIGHTS.equals(await readFile(join(path, 'model.safetensors')))).toBe(true);
  expect(hub.requests.find((r) => r.path.endsWith('model.safetensors'))?.range).toBe('bytes=123456-');
});

test('a server without ranges starts over', async () => {
  await mkdir(repo('blobs'), { recursive: true });
  await writeFile(repo('blobs', `${sha256}.incomplete`), Buffer.alloc(1000));
  hub.misbehave = (request, response) => {
    if (!request.url?.endsWith('model.safetensors')) return false;
    response.end(WEIGHTS);
    return true;
  };
  expect(WEIGHTS.equals(await readFile(join((await pull()).path, 'model.safetensors')))).toBe(true);
});

test('a leftover that does not belong to the file is noticed by its checksum and fetched anew', async () => {
  await mkdir(repo('blobs'), { recursive: true });
  await writeFile(repo('blobs', `${sha256}.incomplete`), Buffer.alloc(5000, 1));
  expect(WEIGHTS.equals(await readFile(join((await pull()).path, 'model.safetensors')))).toBe(true);
});

test('bytes that are wrong twice are an error and leave no file', async () => {
  hub.misbehave = (request, response) => {
    if (!request.url?.endsWith('model.safetensors')) return false;
    response.end(Buffer.alloc(WEIGHTS.length));
    return true;
  };
  await expect(pull()).rejects.toMatchObject({
    code: 'download_failed',
    message: expect.stringContaining('wrong checksum'),
  });
  await expect(lstat(repo('blobs', sha256))).rejects.toThrow();
  await expect(lstat(repo('blobs', `${sha256}.incomplete`))).rejects.toThrow();
  expect(hub.requests.filter((r) => r.path.endsWith('model.safetensors'))).toHaveLength(2);
});

test('a wrong small file is noticed too', async () => {
  hub.misbehave = (request, response) => {
    if (!request.url?.endsWith('config.json')) return false;
    response.end(Buffer.from('{"model_type": "llamb"}'));
    return true;
  };
  await expect(pull()).rejects.toMatchObject({ code: 'download_failed' });
});

test('429 and 503 are waited out, Retry-After is obeyed', async () => {
  const codes = [429, 503, 500];
  hub.misbehave = (_request, response) => {
    const code = codes.shift();
    if (!code) return false;
    response.writeHead(code, code === 429 ? { 'retry-after': '1' } : {}).end();
    return true;
  };
  const started = performance.now();
  expect((await pull()).source).toBe('download');
  expect(performance.now() - started).toBeGreaterThan(900);
});

test('a hub that stays broken is an error with the status', async () => {
  hub.misbehave = (_request, response) => {
    response.writeHead(503).end();
    return true;
  };
  await expect(pull()).rejects.toMatchObject({ code: 'download_failed', message: expect.stringContaining('503') });
});

test('the token goes to the hub and not to the host it redirects to', async () => {
  hub.needsToken = true;
  hub.storage = url(storage);
  await pull({ token: TOKEN });
  const stored = hub.requests.filter((r) => r.path.startsWith('storage'));
  expect(stored.map((r) => r.token)).toEqual([undefined]);
  expect(hub.requests.filter((r) => r.path.startsWith('/')).every((r) => r.token === `Bearer ${TOKEN}`)).toBe(true);
});

test('the token is read from the environment and from the token file', async () => {
  hub.needsToken = true;
  await writeFile(join(folder, 'token'), `${TOKEN}\n`);
  const env = { HF_HUB_CACHE: folder, HF_ENDPOINT: url(server), HF_TOKEN_PATH: join(folder, 'token') };
  expect((await pull({ env })).source).toBe('download');
  expect((await pull({ env: { ...env, HF_TOKEN: TOKEN } })).source).toBe('cache');
});

test('a private repository without a token names the cure', async () => {
  hub.needsToken = true;
  await expect(pull()).rejects.toMatchObject({
    code: 'model_files_missing',
    message: expect.stringContaining('HF_TOKEN'),
  });
});

test('a gated repository says where to ask', async () => {
  hub.misbehave = (_request, response) => {
    response.writeHead(403, { 'x-error-code': 'GatedRepo' }).end();
    return true;
  };
  await expect(pull()).rejects.toMatchObject({
    code: 'download_failed',
    message: expect.stringContaining('Accept its terms'),
  });
});

test('revisions: a tag gets its own ref, an unknown one is named', async () => {
  await pull({ revision: 'v1' });
  expect(await readFile(repo('refs', 'v1'), 'utf8')).toBe(COMMIT);
  await expect(pull({ revision: 'v2' })).rejects.toMatchObject({
    code: 'model_files_missing',
    message: expect.stringContaining('"v2"'),
  });
  await expect(pull({ revision: '../../x' })).rejects.toMatchObject({ code: 'invalid_request' });
});

test('offline: a complete model is used, anything else is refused without a request', async () => {
  await expect(pull({ offline: true })).rejects.toMatchObject({ code: 'offline' });
  await pull();
  hub.requests.length = 0;
  const env = { HF_HUB_CACHE: folder, HF_ENDPOINT: url(server), HF_HUB_OFFLINE: '1' };
  expect((await pull({ env })).source).toBe('cache');
  await rm(repo('blobs', sha256));
  await expect(pull({ offline: true })).rejects.toMatchObject({ code: 'offline' });
  expect(hub.requests).toHaveLength(0);
});

test('a hub that cannot be reached: the cache serves, and without it the cause is named', async () => {
  const dead = { HF_HUB_CACHE: folder, HF_ENDPOINT: 'http://127.0.0.1:9' };
  await expect(pull({ env: dead })).rejects.toMatchObject({
    code: 'download_failed',
    message: expect.stringContaining('127.0.0.1:9'),
  });
  await pull();
  expect((await pull({ env: dead })).source).toBe('cache');
});

test('two downloads of one model at once fetch every file once', async () => {
  const results = await Promise.all([pull(), pull(), pull()]);
  for (const { path } of results) expect(WEIGHTS.equals(await readFile(join(path, 'model.safetensors')))).toBe(true);
  expect(hub.requests.filter((r) => r.path.endsWith('model.safetensors'))).toHaveLength(1);
});

test('the lock of a process that is gone does not hold anyone up', async () => {
  const locks = join(folder, '.locks', 'models--org--model');
  await mkdir(locks, { recursive: true });
  const { hostname } = await import('node:os');
  await writeFile(join(locks, `${sha256}.tokenmill.lock`), JSON.stringify({ pid: 2 ** 30, host: hostname() }));
  expect((await pull()).source).toBe('download');
});

test('too little space is refused before the first byte', async () => {
  const disk = { ...realDisk, freeBytes: async () => 1000 };
  await expect(pull({}, { disk })).rejects.toMatchObject({
    code: 'disk_full',
    message: expect.stringContaining('HF_HUB_CACHE'),
  });
  expect(hub.requests).toHaveLength(1);
});

test('a disk that fills up during the download is an error; with space the rest is fetched', async () => {
  const disk = {
    ...realDisk,
    openSink: async (path: string, offset: number) => {
      const sink = await realDisk.openSink(path, offset);
      let written = offset;
      const write = async (chunk: Uint8Array): Promise<void> => {
        const fits = chunk.subarray(0, 150_000 - written);
        await sink.write(fits);
        written += fits.length;
        if (fits.length < chunk.length) throw Object.assign(new Error('no space left'), { code: 'ENOSPC' });
      };
      return { write, close: () => sink.close() };
    },
  };
  await expect(pull({}, { disk })).rejects.toMatchObject({ code: 'disk_full' });
  hub.requests.length = 0;
  expect(WEIGHTS.equals(await readFile(join((await pull()).path, 'model.safetensors')))).toBe(true);
  expect(hub.requests.find((r) => r.path.endsWith('model.safetensors'))?.range).toBe('bytes=150000-');
});

test.each([
  '../../evil.json',
  '/etc/passwd.json',
  'a/../../b.json',
  'nul\0.json',
  'back\\slash.json',
  '',
  'x'.repeat(300),
])('the file name %j is refused and nothing is written', async (name) => {
  hub.extraNames = [name];
  await expect(pull()).rejects.toMatchObject({
    code: 'download_failed',
    message: expect.stringContaining('dangerous name'),
  });
  await expect(lstat(repo())).rejects.toThrow();
});

test('a file longer than announced is cut off', async () => {
  hub.misbehave = (request, response) => {
    if (!request.url?.endsWith('model.safetensors')) return false;
    response.end(Buffer.concat([WEIGHTS, WEIGHTS]));
    return true;
  };
  await expect(pull()).rejects.toMatchObject({
    code: 'download_failed',
    message: expect.stringContaining('more than its'),
  });
});

test('a repository of pickles is refused by name', async () => {
  hub.files.delete('model.safetensors');
  await expect(pull()).rejects.toMatchObject({
    code: 'model_files_missing',
    message: expect.stringContaining('no safetensors'),
  });
});

test('folders, the embedded model, and names that are close', async () => {
  const embedded = await resolveModel();
  expect(embedded.source).toBe('folder');
  expect(JSON.parse(await readFile(join(embedded.path, 'config.json'), 'utf8'))).toHaveProperty('vocab_size', 4096);
  await cp(join(embedded.path, 'config.json'), join(folder, 'mine', 'config.json'));
  expect(await resolveModel(join(folder, 'mine'))).toEqual({
    path: join(folder, 'mine'),
    revision: null,
    source: 'folder',
  });
  await mkdir(join(folder, 'empty'));
  await expect(resolveModel(join(folder, 'empty'))).rejects.toMatchObject({
    code: 'model_files_missing',
    message: expect.stringContaining('config.json'),
  });
  await expect(resolveModel('./nowhere')).rejects.toMatchObject({ code: 'model_files_missing' });
  const env = { HF_HUB_CACHE: folder, HF_ENDPOINT: url(server) };
  await expect(resolveModel('tokenmil-tiny', { env })).rejects.toThrow('Did you mean tokenmill-tiny?');
  await expect(resolveModel('not a model', { env })).rejects.toMatchObject({ code: 'model_files_missing' });
});
