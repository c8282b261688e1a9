/** From what the user calls a model to a folder with its files, by the flags. */
import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { packageRoot } from '../base/package_root.ts';
import { EMBEDDED_MODEL, type EngineConfig } from '../config/flags.ts';
import type { DownloadProgress } from '../hub/hub_settings.ts';
import type { ResolvedModel } from '../hub/resolve_model.ts';

export type { DownloadProgress, ResolvedModel };

export interface SourceOptions {
  readonly revision: string | null;
  readonly onProgress?: (progress: DownloadProgress) => void;
  readonly signal?: AbortSignal;
}

type SourceFlags = Pick<EngineConfig, 'downloadDir' | 'hfToken' | 'offline' | 'ignorePatterns'>;

/** Throws `model_files_missing`, `download_failed`, `offline`, `disk_full`. */
export async function locateModel(name: string, flags: SourceFlags, options: SourceOptions): Promise<ResolvedModel> {
  // What is on disk needs no hub, and importing its HTTP client takes longer than loading the embedded model.
  const folder = name === EMBEDDED_MODEL && !existsSync(name) ? join(packageRoot(), 'models', name) : resolve(name);
  if (existsSync(join(folder, 'config.json'))) return { path: folder, revision: null, source: 'folder' };
  const { resolveModel } = await import('../hub/resolve_model.ts');
  return resolveModel(name, {
    ...(options.revision === null ? {} : { revision: options.revision }),
    ...(flags.downloadDir === null ? {} : { cacheDir: flags.downloadDir }),
    ...(flags.hfToken === null ? {} : { token: flags.hfToken }),
    ...(flags.offline ? { offline: true } : {}),
    ...(flags.ignorePatterns.length === 0 ? {} : { ignore: flags.ignorePatterns }),
    ...(options.onProgress ? { onProgress: options.onProgress } : {}),
    ...(options.signal ? { signal: options.signal } : {}),
  });
}
