/** SQLite, for the state of a fleet and its keys. Its package brings binaries of 19 MB, which serving a model does not need: it is a peer to be installed by those who run fleets. */
import { createRequire } from 'node:module';
import type Database from 'libsql';
import { TokenmillError } from '../base/errors.ts';

const require = createRequire(import.meta.url);

/** `package_missing` when libsql is not installed; what SQLite throws otherwise. */
export function openDatabase(path: string, options: { readonly timeout?: number } = {}): Database.Database {
  let Libsql: typeof Database;
  try {
    Libsql = require('libsql') as typeof Database;
  } catch (cause) {
    throw new TokenmillError(
      'package_missing',
      'Fleets and keys are kept in SQLite, and its package cannot be loaded.',
      {
        remedy: 'npm install libsql@0.5.29',
        cause,
      },
    );
  }
  return new Libsql(path, options);
}
