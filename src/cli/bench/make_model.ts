/** `bench make-model SHAPE`: a model of a known shape with random weights; speed does not depend on what weights say. */
import { existsSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { TokenmillError } from '../../base/errors.ts';
import { parseCommandLine } from '../../config/command_line.ts';
import type { FlagTable } from '../../config/flag_types.ts';
import { formatBytes } from '../../config/format.ts';
import { helpText } from '../../config/help.ts';
import { SHAPE_NAMES } from '../../weights/random_model.ts';
import { makeRandomModel } from '../random_model.ts';

export const MAKE_MODEL_FLAGS = {
  out: {
    kind: 'string',
    cli: '--out',
    aliases: ['-o'],
    default: null,
    group: 'model',
    doc: 'Folder to write to. Default: the name of the shape.',
  },
  format: {
    kind: 'choice',
    cli: '--format',
    of: ['hf', 'gguf'],
    default: 'hf',
    group: 'model',
    doc: 'hf: a Hugging Face folder. gguf: that and a GGUF file of the same weights.',
  },
  seed: {
    kind: 'int',
    cli: '--seed',
    default: 0,
    min: 0,
    max: Number.MAX_SAFE_INTEGER,
    group: 'model',
    doc: 'Of the weights.',
  },
} as const satisfies FlagTable;

/** Refuses a folder with files in it: a model's files among others would be hard to tell apart, and are large. */
export async function benchMakeModel(args: readonly string[]): Promise<number> {
  const { values, positionals, help } = await parseCommandLine(args, MAKE_MODEL_FLAGS);
  if (help !== null) {
    const usage = ['Usage: tokenmill bench make-model SHAPE [flags]', '', `Shapes: ${SHAPE_NAMES.join(', ')}`];
    console.log(helpText({ usage, table: MAKE_MODEL_FLAGS, groups: { model: 'Model' } }, help));
    return 0;
  }
  const shape = positionals[0];
  if (shape === undefined) {
    throw new TokenmillError('flag_invalid', 'bench make-model needs the name of a shape.', {
      remedy: `Known: ${SHAPE_NAMES.join(', ')}.`,
    });
  }
  const folder = values.out ?? shape;
  if (existsSync(folder) && readdirSync(folder).length > 0) {
    throw new TokenmillError('flag_invalid', `${folder} is not empty.`, {
      param: '--out',
      remedy: 'Give a new folder with --out.',
    });
  }
  makeRandomModel(shape, folder, { seed: values.seed, gguf: values.format === 'gguf' });
  for (const name of readdirSync(folder).sort()) {
    const path = join(folder, name);
    process.stdout.write(`${path} ${formatBytes(statSync(path).size)}\n`);
  }
  return 0;
}
