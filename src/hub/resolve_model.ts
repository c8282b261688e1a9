import { readFile, stat } from 'node:fs/promises';
import { homedir } from 'node:os';
import { dirname, isAbsolute, join, resolve } from 'node:path';
import { TokenmillError } from '../base/errors.ts';
import { nearestName } from '../base/nearest.ts';
import { packageRoot } from '../base/package_root.ts';
import { cachedModels, exists, RepoCache, sizeOf } from './cache.ts';
import { type DiskAccess, downloadFiles, realDisk } from './download.ts';
import { HubClient, HubUnreachable, type RepoFile } from './hub_client.ts';
import { type HubOptions, type HubSettings, hubSettings } from './hub_settings.ts';
import { checkRevision, isRepoId, isSafePath, matchesPattern } from './names.ts';

export type { DownloadProgress, HubOptions } from './hub_settings.ts';

/** The models that ship with the package, under `models/`. */
export const EMBEDDED_MODELS = ['tokenmill-tiny', 'tokenmill-tiny-draft', 'pirate'] as const;
export const DEFAULT_MODEL = 'tokenmill-tiny';

export interface ResolvedModel {
  readonly path: string;
  /** Commit of the files; null for a folder. */
  readonly revision: string | null;
  readonly source: 'folder' | 'cache' | 'download';
}

/** Seams for tests: a disk that fills up, retries that do not wait. */
export interface HubInternals {
  readonly disk?: DiskAccess;
  readonly retryBaseMs?: number;
}

/**
 * Model id -> local folder with verified files. `id` is a folder, the name of an embedded model, or a Hugging Face id
 * `org/name`, which is downloaded into the cache that the Python tools share.
 * @throws TokenmillError `model_files_missing`, `download_failed`, `offline`, `disk_full`.
 */
export async function resolveModel(
  id: string = DEFAULT_MODEL,
  options: HubOptions = {},
  internals: HubInternals = {},
): Promise<ResolvedModel> {
  const folder = await localFolder(id);
  if (folder !== null) return { path: await checkFolder(folder, id), revision: null, source: 'folder' };
  const settings = await hubSettings(options);
  if (!isRepoId(id))
    throw notFound(id, `${JSON.stringify(id)} is neither a folder nor a model id.`, await hints(settings));
  const revision = options.revision ?? 'main';
  checkRevision(revision);
  const cache = new RepoCache(settings.cacheDir, id);
  if (settings.offline) return offlineModel(id, revision, cache);
  try {
    return await download(id, revision, cache, settings, options, internals);
  } catch (error) {
    if (error instanceof HubUnreachable) return withoutHub(id, revision, cache, error);
    if (error instanceof TokenmillError && error.code === 'model_files_missing' && error.param === null) {
      throw notFound(id, error.message, await hints(settings));
    }
    throw error;
  }
}

function notFound(id: string, message: string, names: readonly string[]): TokenmillError {
  const near = nearestName(id, names);
  return new TokenmillError('model_files_missing', message, {
    remedy: near
      ? `Did you mean ${near}?`
      : 'Give a folder with config.json, an id such as Qwen/Qwen3-0.6B, or nothing for the embedded model.',
  });
}

async function hints(settings: HubSettings): Promise<string[]> {
  return [...EMBEDDED_MODELS, ...(await cachedModels(settings.cacheDir))];
}

async function localFolder(id: string): Promise<string | null> {
  const path = id === '~' || id.startsWith('~/') ? join(homedir(), id.slice(1)) : id;
  const found = await stat(path).catch(() => null);
  if (found?.isDirectory()) return resolve(path);
  if (found) {
    throw new TokenmillError('model_files_missing', `${path} is a file; a model is a folder with config.json.`, {
      remedy: `Give ${dirname(path)} if the model lies there.`,
    });
  }
  if ((EMBEDDED_MODELS as readonly string[]).includes(id)) return join(packageRoot(), 'models', id);
  if (!isAbsolute(path) && !/^\.{1,2}(?:$|[/\\])/.test(path)) return null;
  throw new TokenmillError('model_files_missing', `The folder ${path} does not exist.`);
}

async function checkFolder(folder: string, id: string): Promise<string> {
  for (const name of ['config.json', 'adapter_config.json']) if (await exists(join(folder, name))) return folder;
  throw new TokenmillError('model_files_missing', `${id} has no config.json.`, {
    remedy: 'Give the folder that holds config.json, tokenizer.json and the safetensors files.',
  });
}

async function download(
  id: string,
  revision: string,
  cache: RepoCache,
  settings: HubSettings,
  options: HubOptions,
  internals: HubInternals,
): Promise<ResolvedModel> {
  const client = new HubClient(settings, options.signal, internals.retryBaseMs);
  try {
    const { commit, files } = await client.snapshot(id, revision);
    const wanted = chooseFiles(id, files, options);
    const path = cache.snapshot(commit);
    const present = await Promise.all(wanted.map(async (file) => (await sizeOf(join(path, file.path))) === file.size));
    const complete = present.every(Boolean);
    if (!complete) {
      await downloadFiles({
        id,
        commit,
        files: wanted,
        cache,
        client,
        disk: internals.disk ?? realDisk,
        ...(options.onProgress ? { onProgress: options.onProgress } : {}),
        ...(options.signal ? { signal: options.signal } : {}),
      });
    }
    await cache.writeRef(revision, commit);
    return { path, revision: commit, source: complete ? 'cache' : 'download' };
  } finally {
    await client.close();
  }
}

/** What Tokenmill reads: weights as safetensors, configuration, tokenizer, templates. All at the top of the repository. */
const DEFAULT_ALLOW = ['*.safetensors', '*.json', '*.jinja', 'tokenizer.model', 'vocab.txt', 'merges.txt'];
const DEFAULT_IGNORE = ['*/*', 'consolidated*', 'training_args*', '*.onnx*'];

function chooseFiles(id: string, files: readonly RepoFile[], options: HubOptions): RepoFile[] {
  const allow = options.allow ?? DEFAULT_ALLOW;
  const ignore = options.ignore ?? (options.allow ? [] : DEFAULT_IGNORE);
  const chosen = files.filter(
    ({ path }) => allow.some((p) => matchesPattern(path, p)) && !ignore.some((p) => matchesPattern(path, p)),
  );
  if (options.allow || options.ignore) return chosen;
  if (!chosen.some(({ path }) => path === 'config.json' || path === 'adapter_config.json')) {
    throw new TokenmillError(
      'model_files_missing',
      `${id} has no config.json, so it is not a model in Hugging Face form.`,
      {
        param: 'model',
      },
    );
  }
  if (!chosen.some(({ path }) => path.endsWith('.safetensors'))) {
    throw new TokenmillError('model_files_missing', `${id} has no safetensors files.`, {
      param: 'model',
      remedy:
        'Pickled .bin and .pth weights can run code and are not read; use a repository or revision with safetensors.',
    });
  }
  return chosen;
}

async function offlineModel(id: string, revision: string, cache: RepoCache): Promise<ResolvedModel> {
  const cached = await cachedSnapshot(revision, cache);
  if (cached) return cached;
  throw new TokenmillError(
    'offline',
    `${id} (${revision}) is not complete in ${cache.folder}, and offline mode is on.`,
    {
      remedy: `Run tokenmill pull ${id} with a connection, or unset HF_HUB_OFFLINE and --offline.`,
    },
  );
}

/** When the hub does not answer, a complete snapshot in the cache is as good. */
async function withoutHub(
  id: string,
  revision: string,
  cache: RepoCache,
  error: HubUnreachable,
): Promise<ResolvedModel> {
  const cached = await cachedSnapshot(revision, cache);
  if (cached) return cached;
  throw new TokenmillError('download_failed', `${id} cannot be downloaded: ${error.message}.`, {
    remedy: 'Check the connection, HTTPS_PROXY and HF_ENDPOINT; what was downloaded is kept and continued.',
    cause: error,
  });
}

async function cachedSnapshot(revision: string, cache: RepoCache): Promise<ResolvedModel | null> {
  const commit = await cache.commitOf(revision);
  if (commit === null) return null;
  const path = cache.snapshot(commit);
  return (await isComplete(path)) ? { path, revision: commit, source: 'cache' } : null;
}

/** Has a configuration and every weight file: those of the index, else the single one. */
async function isComplete(path: string): Promise<boolean> {
  if (await exists(join(path, 'adapter_model.safetensors'))) return true;
  if (!(await exists(join(path, 'config.json')))) return false;
  const shards = await indexedShards(join(path, 'model.safetensors.index.json'));
  const files = shards ?? ['model.safetensors'];
  return (await Promise.all(files.map((file) => exists(join(path, file))))).every(Boolean);
}

async function indexedShards(path: string): Promise<string[] | null> {
  const text = await readFile(path, 'utf8').catch(() => null);
  if (text === null) return null;
  try {
    const { weight_map } = JSON.parse(text) as { weight_map?: Record<string, unknown> };
    const names = [...new Set(Object.values(weight_map ?? {}))];
    return names.every((name) => typeof name === 'string' && isSafePath(name)) ? (names as string[]) : null;
  } catch {
    return null;
  }
}
