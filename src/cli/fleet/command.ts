/** What the fleet's commands share: flags, the state folder, files from the command line, and the form of a command. */
import { readFileSync, statSync } from 'node:fs';
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import { TokenmillError } from '../../base/errors.ts';
import { parseCommandLine } from '../../config/command_line.ts';
import type { ConfigOf, FlagTable } from '../../config/flag_types.ts';
import { helpText } from '../../config/help.ts';
import type { FleetFile } from '../../fleet/supervisor/manifests.ts';

const MAX_FILE_BYTES = 4 << 20;

export interface FleetArgs<T extends FlagTable> {
  readonly values: ConfigOf<T>;
  readonly positionals: readonly string[];
}

/** Null when help was asked for and has been printed. */
export async function parseFleetArgs<const T extends FlagTable>(
  args: readonly string[],
  spec: { readonly usage: readonly string[]; readonly table: T; readonly maxPositionals: number },
): Promise<FleetArgs<T> | null> {
  const { values, positionals, notes, help } = await parseCommandLine(args, spec.table);
  if (help !== null) {
    console.log(helpText({ usage: spec.usage, table: spec.table, groups: { fleet: 'Flags' } }, help));
    return null;
  }
  for (const note of notes) process.stderr.write(`${note}\n`);
  if (positionals.length > spec.maxPositionals) {
    const extra = JSON.stringify(positionals[spec.maxPositionals]);
    throw new TokenmillError('flag_invalid', `Unexpected argument ${extra}.`, {
      remedy: spec.usage[0] ?? 'See --help.',
    });
  }
  return { values, positionals };
}

export function stateFolder(given: string | null): string {
  const base = process.env['XDG_STATE_HOME'] || join(homedir(), '.local', 'state');
  return given === null ? join(base, 'tokenmill', 'fleet') : resolve(given);
}

/** Texts of fleet files, at most 4 MiB each; `-` is standard input. Their folders are what relative paths in them start from. Throws `flag_invalid` when there is none. */
export function readFleetFiles(paths: readonly string[], usage: string): FleetFile[] {
  if (paths.length === 0) throw new TokenmillError('flag_invalid', 'There is no fleet file.', { remedy: usage });
  return [...new Set(paths)].map((path) => {
    try {
      if (path !== '-' && statSync(path).size > MAX_FILE_BYTES) throw new Error('it is larger than 4 MiB');
      return { file: resolve(path === '-' ? 'stdin' : path), text: readFileSync(path === '-' ? 0 : path, 'utf8') };
    } catch (error) {
      throw new TokenmillError('flag_invalid', `${path} cannot be read: ${(error as Error).message}.`, {
        param: path,
        cause: error,
      });
    }
  });
}

/** The one argument of a command. */
export function oneName(positionals: readonly string[], what: string, usage: string): string {
  const [name] = positionals;
  if (name === undefined) throw new TokenmillError('flag_invalid', `Which ${what}?`, { remedy: usage });
  return name;
}
