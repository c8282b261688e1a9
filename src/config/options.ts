/** A flags table as an object of options, for the library: the same keys, checks and environment as the command line. */

import { TokenmillError } from '../base/errors.ts';
import { nearestName } from '../base/nearest.ts';
import { coerce } from './coerce.ts';
import type { ConfigOf, FlagTable } from './flag_types.ts';
import { flagFromEnv } from './parse.ts';

/**
 * Precedence: option > environment > default; an option that is undefined counts as not given.
 * Throws `flag_invalid` for unknown keys and values out of range.
 */
export function parseOptions<const T extends FlagTable>(
  options: Readonly<Partial<Record<keyof T & string, unknown>>>,
  table: T,
  env: Readonly<Record<string, string | undefined>>,
): ConfigOf<T> {
  for (const key of Object.keys(options)) {
    if (Object.hasOwn(table, key)) continue;
    const guess = nearestName(key, Object.keys(table));
    throw new TokenmillError('flag_invalid', `Unknown option ${key}.`, {
      param: key,
      ...(guess ? { remedy: `Did you mean ${guess}?` } : {}),
    });
  }
  const values: Record<string, unknown> = {};
  for (const [key, flag] of Object.entries(table)) {
    const given = options[key];
    const fromEnv = flagFromEnv(flag, env);
    if (given !== undefined) values[key] = coerce(flag, given);
    else values[key] = fromEnv === undefined ? flag.default : coerce(flag, fromEnv);
  }
  return Object.freeze(values) as ConfigOf<T>;
}
