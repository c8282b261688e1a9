/** The architectures Tokenmill knows, and what the rest of the house may ask of a model folder's configuration. */
import { join } from 'node:path';
import { assert } from '../base/assert.ts';
import { TokenmillError } from '../base/errors.ts';
import { nearestName } from '../base/nearest.ts';
import { makesLogits, type Program } from '../program/program.ts';
import type { ModelConfig } from './config.ts';
import type { ModelFamily } from './family.ts';
import { ConfigFields, type JsonObject } from './fields.ts';
import { readJsonFile } from './json_file.ts';
import { llama } from './llama.ts';
import { mistral } from './mistral.ts';
import type { RecordOptions } from './parts.ts';
import { qwen2 } from './qwen2.ts';
import { qwen3 } from './qwen3.ts';
import { mergeRopeOverride } from './rope.ts';

export type { CheckpointType, ModelConfig } from './config.ts';
export type { JsonObject } from './fields.ts';
export { type GenerationConfig, readGenerationConfig } from './generation_config.ts';

const FAMILIES: readonly ModelFamily[] = [llama, mistral, qwen2, qwen3];

/** Names in `architectures` of config.json that load. */
export const ARCHITECTURES: readonly string[] = FAMILIES.flatMap((family) => family.architectures);

/**
 * Reads and checks a model's configuration. `source` is a folder with config.json, or the parsed file; `overrides` patch its
 * top-level keys (`--hf-overrides`). Throws `model_files_missing`, `model_files_invalid`, `architecture_unknown` or
 * `unsupported_feature`.
 */
export function loadModelConfig(source: string | JsonObject, overrides: JsonObject = {}): ModelConfig {
  const json = typeof source === 'string' ? readJsonFile(join(source, 'config.json')) : source;
  const fields = new ConfigFields(mergeRopeOverride(json, overrides), 'config.json');
  const names = fields.has('architectures') ? fields.strings('architectures', 16) : [];
  for (const name of names) {
    const family = familyOf(name);
    if (family !== undefined) return family.parse(fields, name);
  }
  throw unknownArchitecture(names, fields);
}

/** Records the model's forward pass. Pure; takes less than a millisecond a layer. */
export function recordProgram(config: ModelConfig, options: RecordOptions): Program {
  const family = familyOf(config.architecture);
  assert(family !== undefined, `no family records ${config.architecture}`);
  return family.record(config, options);
}

/** Element counts of a program's weights, for the memory sum. */
export interface WeightCounts {
  /** Linear weights, lm_head included, tied or not. */
  readonly linearElements: number;
  /** Output rows of all linear weights: int8 keeps one fp32 scale each. */
  readonly linearRows: number;
  /** The part of both that projects to logits. */
  readonly logitsElements: number;
  readonly logitsRows: number;
  readonly embeddingElements: number;
  /** Norms, biases and RoPE tables. */
  readonly vectorElements: number;
}

export function countWeights(program: Program): WeightCounts {
  const counts = {
    linearElements: 0,
    linearRows: 0,
    logitsElements: 0,
    logitsRows: 0,
    embeddingElements: 0,
    vectorElements: 0,
  };
  for (const { role, shape, value } of program.weights) {
    const elements = shape.reduce((a, b) => a * b, 1);
    if (role === 'linear') {
      counts.linearElements += elements;
      counts.linearRows += shape[0] ?? 0;
      if (makesLogits(program, value)) {
        counts.logitsElements = elements;
        counts.logitsRows = shape[0] ?? 0;
      }
    } else if (role === 'embedding') counts.embeddingElements += elements;
    else counts.vectorElements += elements;
  }
  return counts;
}

function familyOf(architecture: string): ModelFamily | undefined {
  return FAMILIES.find((family) => family.architectures.includes(architecture));
}

function unknownArchitecture(names: readonly string[], fields: ConfigFields): TokenmillError {
  const shown = names.length > 0 ? names.map((name) => JSON.stringify(name.slice(0, 80))).join(', ') : 'none';
  const modelType = fields.has('model_type') ? ` (model_type ${JSON.stringify(fields.string('model_type'))})` : '';
  const near = nearestName(names[0]?.slice(0, 80) ?? '', ARCHITECTURES);
  return new TokenmillError('architecture_unknown', `Architecture ${shown}${modelType} is not implemented.`, {
    param: 'architectures',
    remedy: `Known: ${ARCHITECTURES.join(', ')}.${near === null ? '' : ` The nearest is ${near}.`}`,
  });
}
