/** `bench`'s models: a named shape with random weights, as a Hugging Face folder and, on request, as GGUF of the same weights. */
import { join } from 'node:path';
import { type JsonObject, loadModelConfig, recordProgram } from '../models/index.ts';
import { shapeConfig, writeRandomModel } from '../weights/random_model.ts';
import { convertFolderToGguf } from './convert_gguf.ts';

/**
 * Writes the model into `folder` and returns the GGUF's path, or null when none was asked for. Equal arguments give equal
 * bytes. Throws `flag_invalid` for an unknown shape.
 */
export function makeRandomModel(
  shape: string,
  folder: string,
  options: { seed?: number; gguf?: boolean } = {},
): string | null {
  const config = shapeConfig(shape);
  const program = recordProgram(loadModelConfig(config as JsonObject), { maxModelLen: 1 });
  writeRandomModel(folder, config, program, options.seed ?? 0);
  if (!options.gguf) return null;
  const path = join(folder, 'model-bf16.gguf');
  convertFolderToGguf(folder, path, 'BF16');
  return path;
}
