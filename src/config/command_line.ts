/** The edge around parse.ts: reads the environment and the `--config` file. */
import { readFile, stat } from 'node:fs/promises';
import { TokenmillError } from '../base/errors.ts';
import type { FlagTable } from './flag_types.ts';
import { findConfigFile, type ParsedFlags, parseFlags } from './parse.ts';

const MAX_CONFIG_BYTES = 1 << 20;

/** Throws `flag_invalid` for anything that is not a flag of `table` or has a wrong value. */
export async function parseCommandLine<const T extends FlagTable>(
  args: readonly string[],
  table: T,
): Promise<ParsedFlags<T>> {
  const path = findConfigFile(args);
  return parseFlags(args, table, { env: process.env, file: path === null ? null : await readConfigFile(path) });
}

async function readConfigFile(path: string): Promise<Readonly<Record<string, unknown>>> {
  const refuse = (why: string, cause?: unknown) =>
    new TokenmillError('flag_invalid', `--config ${path}: ${why}.`, { param: '--config', cause });
  let text: string;
  try {
    if ((await stat(path)).size > MAX_CONFIG_BYTES) throw refuse('the file is larger than 1 MiB');
    text = await readFile(path, 'utf8');
  } catch (error) {
    throw error instanceof TokenmillError ? error : refuse(`cannot be read (${(error as Error).message})`, error);
  }
  const { parse } = await import('yaml');
  let value: unknown;
  try {
    value = parse(text, { maxAliasCount: 100 });
  } catch (error) {
    throw refuse(`is not YAML (${(error as Error).message})`, error);
  }
  if (value === null || typeof value !== 'object' || Array.isArray(value))
    throw refuse('is not a mapping of flags to values');
  return value as Record<string, unknown>;
}
