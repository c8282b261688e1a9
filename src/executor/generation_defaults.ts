/** What a model's folder says about ending and sampling answers; the client gets it through the engine thread. */
import { type GenerationConfig, type JsonObject, loadModelConfig, readGenerationConfig } from '../models/index.ts';

export type GenerationDefaults = Omit<GenerationConfig, 'eosTokenIds'>;

export interface ModelGeneration {
  /** Of config.json first, then those that only generation_config.json names. */
  readonly eosTokenIds: readonly number[];
  readonly defaults: GenerationDefaults;
}

/** @param generationFolder where generation_config.json is; null = neutral defaults (`--generation-config vllm`). */
export function inspectGeneration(
  folder: string,
  overrides: JsonObject,
  generationFolder: string | null,
): ModelGeneration {
  const config = loadModelConfig(folder, overrides);
  const { eosTokenIds } = readGenerationConfig(folder, config.vocabSize);
  const all = [...new Set([...config.eosTokenIds, ...eosTokenIds])];
  if (generationFolder === null) return { eosTokenIds: all, defaults: {} };
  const { eosTokenIds: _, ...defaults } = readGenerationConfig(generationFolder, config.vocabSize);
  return { eosTokenIds: all, defaults };
}
