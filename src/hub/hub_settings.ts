import { readFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { TokenmillError } from '../base/errors.ts';

export interface HubOptions {
  /** Branch, tag or commit; `main` by default. */
  readonly revision?: string;
  readonly cacheDir?: string;
  readonly endpoint?: string;
  readonly token?: string;
  readonly offline?: boolean;
  /** Shell patterns of files to take and to leave; they replace the default choice. */
  readonly allow?: readonly string[];
  readonly ignore?: readonly string[];
  readonly onProgress?: (progress: DownloadProgress) => void;
  readonly signal?: AbortSignal;
  readonly env?: Readonly<Record<string, string | undefined>>;
}

export interface DownloadProgress {
  /** File that moved last. */
  readonly file: string;
  /** Bytes of all files that are on disk now, those of earlier tries included, and their sum at the end. */
  readonly bytes: number;
  readonly totalBytes: number;
  /** Received from the network since the start, per second. */
  readonly bytesPerS: number;
}

export interface HubSettings {
  readonly cacheDir: string;
  readonly endpoint: URL;
  readonly token: string | null;
  readonly offline: boolean;
}

/** Options, then the environment variables of the Python tools, then their defaults. */
export async function hubSettings(options: HubOptions): Promise<HubSettings> {
  const env = options.env ?? process.env;
  const home = env['HF_HOME'] ?? join(env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'huggingface');
  return {
    cacheDir: options.cacheDir ?? env['HF_HUB_CACHE'] ?? env['HUGGINGFACE_HUB_CACHE'] ?? join(home, 'hub'),
    endpoint: parseEndpoint(options.endpoint ?? (env['HF_ENDPOINT'] || 'https://huggingface.co')),
    token: options.token ?? (await tokenFrom(env, home)),
    offline: options.offline ?? (isSet(env['HF_HUB_OFFLINE']) || isSet(env['TRANSFORMERS_OFFLINE'])),
  };
}

function isSet(value: string | undefined): boolean {
  return ['1', 'on', 'yes', 'true'].includes((value ?? '').toLowerCase());
}

async function tokenFrom(env: Readonly<Record<string, string | undefined>>, home: string): Promise<string | null> {
  if (isSet(env['HF_HUB_DISABLE_IMPLICIT_TOKEN'])) return null;
  const inEnv = env['HF_TOKEN'] ?? env['HUGGING_FACE_HUB_TOKEN'];
  if (inEnv !== undefined) return cleanToken(inEnv);
  try {
    return cleanToken(await readFile(env['HF_TOKEN_PATH'] ?? join(home, 'token'), 'utf8'));
  } catch {
    return null;
  }
}

/** A token with a newline or other control character would end up as a second header. */
function cleanToken(text: string): string | null {
  const token = text.trim();
  return token === '' || !/^[\x21-\x7e]+$/.test(token) ? null : token;
}

function parseEndpoint(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : null;
  if (url && (url.protocol === 'https:' || url.protocol === 'http:')) return url;
  throw new TokenmillError('flag_invalid', `HF_ENDPOINT ${JSON.stringify(text)} is not an http or https URL.`, {
    param: 'HF_ENDPOINT',
  });
}
