/** Golden model folders: a few beside this file, the whole collection beside the repository where it is present. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';

const HERE = new URL('models/', import.meta.url).pathname;
const SHARED = new URL('../../../shared/golden/models/', import.meta.url).pathname;

/** Every folder whose architecture Tokenmill implements. */
export const GOLDEN_MODELS = [
  'llama',
  'llama_rope_dynamic',
  'llama_rope_linear',
  'llama_rope_llama3',
  'llama_rope_longrope',
  'llama_rope_yarn',
  'llama_tied',
  'mistral',
  'qwen2',
  'qwen2_window',
  'qwen3',
] as const;

/** Path of a golden folder, or null when it is in neither place. */
export function goldenFolder(name: string): string | null {
  return [HERE, SHARED].map((root) => join(root, name)).find((path) => existsSync(join(path, 'golden.json'))) ?? null;
}
