import { readFileSync, statSync } from 'node:fs';
import { TokenmillError } from '../base/errors.ts';
import { isObject, type JsonObject } from './fields.ts';

/** Bytes; the largest config.json on the Hub is far below. */
const MAX_JSON_BYTES = 16 * 2 ** 20;

/** Parses a JSON object from a file of a model folder, with its size bounded first. */
export function readJsonFile(path: string): JsonObject {
  const stat = statSync(path, { throwIfNoEntry: false });
  if (stat === undefined || !stat.isFile()) {
    throw new TokenmillError('model_files_missing', `${path} does not exist.`, {
      remedy: 'A model folder holds config.json, tokenizer.json and *.safetensors.',
    });
  }
  if (stat.size > MAX_JSON_BYTES) {
    throw new TokenmillError(
      'model_files_invalid',
      `${path} is ${stat.size} bytes; at most ${MAX_JSON_BYTES} are read.`,
    );
  }
  let parsed: unknown;
  try {
    parsed = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(readFileSync(path)));
  } catch (cause) {
    throw new TokenmillError('model_files_invalid', `${path} is not JSON: ${(cause as Error).message}.`, { cause });
  }
  if (!isObject(parsed)) throw new TokenmillError('model_files_invalid', `${path} must hold a JSON object.`);
  return parsed;
}
