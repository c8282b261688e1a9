import { setTimeout as sleep } from 'node:timers/promises';
import { Agent, type Dispatcher, EnvHttpProxyAgent, request } from 'undici';
import { TokenmillError } from '../base/errors.ts';
import type { HubSettings } from './hub_settings.ts';
import { isSafePath } from './names.ts';

/** One file of a repository at one commit. */
export interface RepoFile {
  readonly path: string;
  readonly size: number;
  /** Name of the blob in the cache: sha256 of large files, the git blob hash of others. */
  readonly etag: string;
}

export interface RepoSnapshot {
  readonly commit: string;
  readonly files: readonly RepoFile[];
}

/** The hub did not answer, or broke off; the caller may go on with what the cache has. */
export class HubUnreachable extends Error {}

const MAX_API_BYTES = 64 * 1024 * 1024;
const MAX_FILES = 20_000;
const MAX_FILE_BYTES = 4 * 2 ** 40;
const MAX_REDIRECTS = 5;
const MAX_TRIES = 5;
const MAX_RETRY_AFTER_S = 120;
const TIMEOUT_MS = 30_000;

type Response = Dispatcher.ResponseData;

/** Speaks the hub's HTTP API: retries, redirects without the token, limits on what comes back. */
export class HubClient {
  private readonly settings: HubSettings;
  private readonly dispatcher: Dispatcher;
  private readonly retryBaseMs: number;
  private readonly signal: AbortSignal | undefined;

  constructor(settings: HubSettings, signal?: AbortSignal, retryBaseMs = 500) {
    this.settings = settings;
    this.signal = signal;
    this.retryBaseMs = retryBaseMs;
    const proxied = Object.keys(process.env).some((name) => /^https?_proxy$/i.test(name));
    const timeouts = { connectTimeout: 10_000, headersTimeout: TIMEOUT_MS, bodyTimeout: TIMEOUT_MS };
    this.dispatcher = proxied ? new EnvHttpProxyAgent(timeouts) : new Agent(timeouts);
  }

  close(): Promise<void> {
    return this.dispatcher.destroy();
  }

  /** Commit and files of a repository. @throws HubUnreachable, TokenmillError `download_failed`, `model_files_missing`. */
  async snapshot(id: string, revision: string): Promise<RepoSnapshot> {
    const url = this.url(`api/models/${id}/revision/${encodeURIComponent(revision)}?blobs=true`);
    const response = await this.get(url, {});
    if (response.statusCode !== 200) throw await refusal(response, id, revision, this.settings);
    const body = parseJson(await readLimited(response, MAX_API_BYTES), id);
    const { sha, siblings } = body as { sha?: unknown; siblings?: unknown };
    if (typeof sha !== 'string' || !/^[0-9a-f]{40,64}$/.test(sha) || !Array.isArray(siblings)) {
      throw new TokenmillError(
        'download_failed',
        `The answer of ${url.origin} about ${id} is not that of a model hub.`,
      );
    }
    if (siblings.length > MAX_FILES) {
      throw new TokenmillError(
        'download_failed',
        `${id} has ${siblings.length} files, more than the limit of ${MAX_FILES}.`,
      );
    }
    return { commit: sha, files: siblings.map((sibling) => repoFile(sibling, id)) };
  }

  /** The file's bytes from `offset` on: status 206, or 200 when the server starts over. */
  async open(id: string, commit: string, path: string, offset: number): Promise<Response> {
    const name = path.split('/').map(encodeURIComponent).join('/');
    const headers: Record<string, string> = offset > 0 ? { range: `bytes=${offset}-` } : {};
    const response = await this.get(this.url(`${id}/resolve/${commit}/${name}`), headers);
    if ([200, 206, 416].includes(response.statusCode)) return response;
    throw await refusal(response, `${id}/${path}`, commit, this.settings);
  }

  /** Waits before try number `attempt` (from 0), longer each time. */
  async backOff(attempt: number, retryAfterS?: number): Promise<void> {
    const backoffMs = this.retryBaseMs * 2 ** attempt;
    const askedMs = Math.min(retryAfterS ?? 0, MAX_RETRY_AFTER_S) * 1000;
    await sleep(Math.max(backoffMs, askedMs), undefined, this.signal ? { signal: this.signal } : {});
  }

  private url(path: string): URL {
    const { endpoint } = this.settings;
    return new URL(path, endpoint.href.endsWith('/') ? endpoint : `${endpoint.href}/`);
  }

  /** GET with retries on lost connections, 429 and 5xx. */
  private async get(url: URL, headers: Record<string, string>): Promise<Response> {
    for (let attempt = 0; ; attempt++) {
      try {
        const response = await this.follow(url, headers);
        if (response.statusCode !== 429 && response.statusCode < 500) return response;
        if (attempt + 1 >= MAX_TRIES) throw await refusal(response, url.pathname, '', this.settings);
        await response.body.dump();
        await this.backOff(attempt, retryAfter(response));
      } catch (error) {
        if (error instanceof TokenmillError || this.signal?.aborted) throw error;
        if (attempt + 1 >= MAX_TRIES) {
          throw new HubUnreachable(`${url.origin} cannot be reached: ${(error as Error).message}`, { cause: error });
        }
        await this.backOff(attempt);
      }
    }
  }

  private async follow(start: URL, headers: Record<string, string>): Promise<Response> {
    let url = start;
    for (let hop = 0; hop <= MAX_REDIRECTS; hop++) {
      const { token, endpoint } = this.settings;
      const auth = token !== null && url.origin === endpoint.origin ? { authorization: `Bearer ${token}` } : {};
      const response = await request(url, {
        dispatcher: this.dispatcher,
        headers: { 'user-agent': 'tokenmill', 'accept-encoding': 'identity', ...headers, ...auth },
        ...(this.signal ? { signal: this.signal } : {}),
      });
      const { location } = response.headers;
      if (![301, 302, 303, 307, 308].includes(response.statusCode) || typeof location !== 'string') return response;
      await response.body.dump();
      url = new URL(location, url);
      if (url.protocol !== 'https:' && url.protocol !== endpoint.protocol) {
        throw new TokenmillError('download_failed', `${start.origin} redirects to ${url.protocol} which is refused.`);
      }
    }
    throw new TokenmillError('download_failed', `${start.href} redirects more than ${MAX_REDIRECTS} times.`);
  }
}

function repoFile(sibling: unknown, id: string): RepoFile {
  const { rfilename, size, blobId, lfs } = (sibling ?? {}) as Record<string, unknown>;
  const large = (lfs ?? {}) as Record<string, unknown>;
  const bytes = large['size'] ?? size;
  const etag = large['sha256'] ?? large['oid'] ?? blobId;
  if (typeof rfilename !== 'string' || !isSafePath(rfilename)) {
    throw new TokenmillError(
      'download_failed',
      `${id} has a file with the dangerous name ${JSON.stringify(rfilename)}.`,
      {
        remedy: 'Nothing was written; do not use this repository.',
      },
    );
  }
  if (typeof bytes !== 'number' || !Number.isSafeInteger(bytes) || bytes < 0 || bytes > MAX_FILE_BYTES) {
    throw new TokenmillError('download_failed', `${id}/${rfilename} has the impossible size ${String(bytes)}.`);
  }
  if (typeof etag !== 'string' || !/^(?:[0-9a-f]{40}|[0-9a-f]{64})$/.test(etag)) {
    throw new TokenmillError('download_failed', `${id}/${rfilename} comes without a checksum.`);
  }
  return { path: rfilename, size: bytes, etag };
}

function retryAfter(response: Response): number | undefined {
  const value = Number(response.headers['retry-after']);
  return Number.isFinite(value) && value >= 0 ? value : undefined;
}

async function readLimited(response: Response, limit: number): Promise<string> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of response.body) {
    length += (chunk as Buffer).length;
    if (length > limit) throw new TokenmillError('download_failed', `The hub's answer has more than ${limit} bytes.`);
    chunks.push(chunk as Buffer);
  }
  return Buffer.concat(chunks).toString('utf8');
}

function parseJson(text: string, id: string): unknown {
  try {
    return JSON.parse(text) ?? {};
  } catch (cause) {
    throw new TokenmillError('download_failed', `The hub's answer about ${id} is not JSON.`, { cause });
  }
}

async function refusal(
  response: Response,
  what: string,
  revision: string,
  settings: HubSettings,
): Promise<TokenmillError> {
  const { statusCode, headers } = response;
  const code = headers['x-error-code'];
  await response.body.dump();
  const page = `${settings.endpoint.origin}/${what}`;
  if (code === 'GatedRepo' || statusCode === 403) {
    return new TokenmillError('download_failed', `${what} is gated or closed to this token.`, {
      remedy: `Accept its terms at ${page} and set HF_TOKEN to a token of that account.`,
    });
  }
  if (code === 'RevisionNotFound') {
    return new TokenmillError('model_files_missing', `${what} has no revision ${JSON.stringify(revision)}.`, {
      param: 'revision',
    });
  }
  if (statusCode === 401 && settings.token !== null && code !== 'RepoNotFound') {
    return new TokenmillError('download_failed', `The hub refuses the token for ${what}.`, {
      remedy: 'Check HF_TOKEN: it may have expired or lack the right to read this repository.',
    });
  }
  if (statusCode === 401 || statusCode === 404) {
    const cure = settings.token === null ? ' If it is private, set HF_TOKEN.' : '';
    return new TokenmillError('model_files_missing', `${what} is not on ${settings.endpoint.origin}.${cure}`);
  }
  const wait = retryAfter(response);
  return new TokenmillError(
    'download_failed',
    `${settings.endpoint.origin} answered ${statusCode} for ${what}, ${MAX_TRIES} times.`,
    {
      remedy: 'Try again later; what was downloaded is kept and continued.',
      ...(wait === undefined ? {} : { retryAfterS: wait }),
    },
  );
}
