/** generation_config.json: the sampling defaults a checkpoint ships. Keys beyond these are ignored, as vLLM does. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { ConfigFields } from './fields.ts';
import { readJsonFile } from './json_file.ts';

export interface GenerationConfig {
  /** Added to those of config.json. */
  readonly eosTokenIds: readonly number[];
  readonly temperature?: number;
  readonly topK?: number;
  readonly topP?: number;
  readonly minP?: number;
  readonly repetitionPenalty?: number;
  readonly maxTokens?: number;
}

/** Reads the file of a model folder; empty when it has none. Throws `model_files_invalid`. */
export function readGenerationConfig(folder: string, vocabSize: number): GenerationConfig {
  const path = join(folder, 'generation_config.json');
  if (!existsSync(path)) return { eosTokenIds: [] };
  const fields = new ConfigFields(readJsonFile(path), 'generation_config.json');
  const float = (key: string, min: number, max: number) => (fields.has(key) ? fields.float(key, min, max) : undefined);
  const int = (key: string, min: number, max: number) => (fields.has(key) ? fields.int(key, min, max) : undefined);
  const all = {
    temperature: float('temperature', 0, 100),
    topK: int('top_k', -1, 2 ** 24),
    topP: float('top_p', 1e-9, 1),
    minP: float('min_p', 0, 1),
    repetitionPenalty: float('repetition_penalty', 1e-6, 1e6),
    maxTokens: int('max_new_tokens', 1, 2 ** 24),
  };
  const present = Object.entries(all).filter(([, value]) => value !== undefined);
  return { eosTokenIds: fields.tokenIds('eos_token_id', vocabSize), ...Object.fromEntries(present) };
}
