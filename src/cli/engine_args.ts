/** Command lines of the commands that load a model: the engine's flags, the command's own, and the model as positional. */
import { TokenmillError } from '../base/errors.ts';
import { parseCommandLine } from '../config/command_line.ts';
import type { ConfigOf, FlagTable } from '../config/flag_types.ts';
import { type EngineConfig, FLAGS, GROUPS } from '../config/flags.ts';
import { helpText } from '../config/help.ts';

export interface EngineArgs<T extends FlagTable> {
  readonly config: EngineConfig;
  readonly own: ConfigOf<T>;
  /** Positionals after the model. */
  readonly rest: readonly string[];
  /** Lines about flags that were accepted and ignored. */
  readonly notes: readonly string[];
}

export interface EngineCommandSpec<T extends FlagTable> {
  readonly usage: readonly string[];
  readonly own: T;
  /** Heading of the command's own flags, whose group is `own`. */
  readonly heading: string;
  /** Groups of engine flags that `--help` shows; the others come with `--help=all`. */
  readonly shown: readonly string[];
  /** Whether the first positional is the model. */
  readonly modelFirst: boolean;
  readonly maxPositionals: number;
}

/** Null when help was asked for and has been printed. */
export async function parseEngineArgs<const T extends FlagTable>(
  args: readonly string[],
  spec: EngineCommandSpec<T>,
): Promise<EngineArgs<T> | null> {
  const { values, positionals, notes, help, sources } = await parseCommandLine(args, { ...FLAGS, ...spec.own });
  if (help !== null) {
    const groups = Object.keys(spec.own).length > 0 ? { own: spec.heading, ...GROUPS } : GROUPS;
    const shown = Object.keys(spec.own).length > 0 ? ['own', ...spec.shown] : spec.shown;
    console.log(helpText({ usage: spec.usage, table: { ...FLAGS, ...spec.own }, groups, shown }, help));
    return null;
  }
  if (positionals.length > spec.maxPositionals) {
    throw new TokenmillError(
      'flag_invalid',
      `Unexpected argument ${JSON.stringify(positionals[spec.maxPositionals])}.`,
      {
        remedy: 'Quote texts that have spaces; see --help.',
      },
    );
  }
  const all = values as Readonly<Record<string, unknown>>;
  const pick = (table: FlagTable): Record<string, unknown> =>
    Object.fromEntries(Object.keys(table).map((key) => [key, all[key]]));
  const config = pick(FLAGS);
  const modelSource = (sources as Readonly<Record<string, string>>)['model'];
  const model = spec.modelFirst ? positionals[0] : undefined;
  if (model !== undefined) {
    if (modelSource === 'command line' && config['model'] !== model) {
      throw new TokenmillError(
        'flag_invalid',
        `Two models are named: ${model} and --model ${String(config['model'])}.`,
      );
    }
    config['model'] = model;
  } else if (
    modelSource === 'default' &&
    (sources as Readonly<Record<string, string>>)['servedModelName'] === 'command line' &&
    spec.modelFirst
  ) {
    throw new TokenmillError('flag_invalid', '--served-model-name is given but no model.', {
      remedy: 'Write the model first: --served-model-name takes every word up to the next flag.',
    });
  }
  return {
    config: Object.freeze(config) as EngineConfig,
    own: pick(spec.own) as ConfigOf<T>,
    rest: spec.modelFirst ? positionals.slice(1) : positionals,
    notes,
  };
}

/** Notes about ignored flags, one line each. */
export function printNotes(notes: readonly string[]): void {
  for (const note of notes) process.stderr.write(`${note}\n`);
}
