/** From what the user calls a model to a folder with its files: embedded, local, or from the hub. */
import { existsSync, statSync } from 'node:fs';
import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { EMBEDDED_MODEL, type EngineConfig } from '../config/flags.ts';

/** `models/` of the package; src/client and dist/client lie equally deep. */
const EMBEDDED_FOLDER = fileURLToPath(new URL('../../models/', import.meta.url));

export interface DownloadProgress {
  readonly file: string;
  readonly doneBytes: number;
  readonly totalBytes: number;
}

export interface SourceOptions {
  readonly revision: string | null;
  readonly onProgress?: (progress: DownloadProgress) => void;
  readonly signal?: AbortSignal;
}

/** Folder of `name`. A path that exists wins over a hub id of the same spelling. */
export async function locateModel(name: string, config: EngineConfig, options: SourceOptions): Promise<string> {
  const local = resolve(name);
  if (statSync(local, { throwIfNoEntry: false })?.isDirectory()) return local;
  const embedded = resolve(EMBEDDED_FOLDER, EMBEDDED_MODEL);
  if (name === EMBEDDED_MODEL && existsSync(embedded)) return embedded;
  const { resolveModel } = await import('../hub/resolve_model.ts');
  return resolveModel(name, config, options);
}
