import { join } from 'node:path';

/** Golden model folders beside this file: one for each architecture and variant that Tokenmill implements. */
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

export function goldenFolder(name: (typeof GOLDEN_MODELS)[number]): string {
  return join(new URL('models/', import.meta.url).pathname, name);
}
