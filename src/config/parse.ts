/**
 * Command line, environment and config file -> the values of a flag table, by vLLM's parser rules (docs/flags.md).
 * Pure: what is read from outside is passed in. Precedence: command line > environment > file > default.
 */
import { TokenmillError } from '../base/errors.ts';
import { nearestName } from '../base/nearest.ts';
import { coerce, type FlagValue } from './coerce.ts';
import { COMPAT_FLAGS } from './compat_flags.ts';
import type { CompatFlag, ConfigOf, Flag, FlagTable } from './flag_types.ts';

export type FlagSource = 'command line' | 'environment' | 'file' | 'default';

export interface ParsedFlags<T extends FlagTable> {
  readonly values: ConfigOf<T>;
  readonly positionals: readonly string[];
  readonly sources: Readonly<Record<keyof T & string, FlagSource>>;
  /** One line for each flag that was accepted and ignored, or is gone. */
  readonly notes: readonly string[];
  /** `--help` = '', `--help=x` = 'x', none = null. */
  readonly help: string | null;
}

export interface ParseInput {
  readonly env: Readonly<Record<string, string | undefined>>;
  /** The parsed `--config` file. */
  readonly file: Readonly<Record<string, unknown>> | null;
}

export function parseFlags<const T extends FlagTable>(
  args: readonly string[],
  table: T,
  input: ParseInput,
): ParsedFlags<T> {
  const names = new FlagNames(table);
  const line = new CommandLine(names);
  line.read(args);
  const sources: Record<string, FlagSource> = {};
  const values: Record<string, FlagValue> = {};
  const file = readFile(input.file, names, line.notes);
  for (const [key, flag] of Object.entries(table)) {
    const env = flagFromEnv(flag, input.env);
    if (line.values.has(key)) [values[key], sources[key]] = [line.values.get(key)!, 'command line'];
    else if (env !== undefined) [values[key], sources[key]] = [coerce(flag, env), 'environment'];
    else if (file.has(key)) [values[key], sources[key]] = [file.get(key)!, 'file'];
    else [values[key], sources[key]] = [flag.default, 'default'];
  }
  return {
    values: Object.freeze(values) as ConfigOf<T>,
    positionals: line.positionals,
    sources: sources as ParsedFlags<T>['sources'],
    notes: line.notes,
    help: line.help,
  };
}

/** The path after `--config`, wherever it stands; null when there is none. */
export function findConfigFile(args: readonly string[]): string | null {
  for (let i = 0; i < args.length && args[i] !== '--'; i++) {
    const arg = args[i]!;
    if (arg.startsWith('--config=')) return arg.slice('--config='.length);
    if (arg === '--config') {
      const path = args[i + 1];
      if (path === undefined) throw new TokenmillError('flag_invalid', '--config needs a file.', { param: '--config' });
      return path;
    }
  }
  return null;
}

/** `TOKENMILL_MAX_NUM_SEQS` for `--max-num-seqs`. */
export function envName(flag: Flag): string {
  return `TOKENMILL_${flag.cli.slice(2).replaceAll('-', '_').toUpperCase()}`;
}

/** What the environment says of a flag; an empty variable says nothing. */
export function flagFromEnv(flag: Flag, env: ParseInput['env']): string | undefined {
  return env[envName(flag)] || (flag.env ? env[flag.env] || undefined : undefined);
}

function readFile(file: ParseInput['file'], names: FlagNames, notes: string[]): Map<string, FlagValue> {
  const values = new Map<string, FlagValue>();
  for (const [name, raw] of Object.entries(file ?? {})) {
    const spelled = `--${name.replace(/^--/, '').replaceAll('_', '-')}`;
    const match = names.find(spelled);
    if (match) {
      const value = coerce(match.flag, raw);
      values.set(match.key, match.negated ? !(value as boolean) : value);
      continue;
    }
    const compat = names.findCompat(spelled);
    if (!compat) throw unknownFlag(spelled, names, ' in the config file');
    noteCompat(spelled, compat.flag, [String(raw)], compat.negated || raw === false, notes);
  }
  return values;
}

function unknownFlag(name: string, names: FlagNames, where = ''): TokenmillError {
  const guess = nearestName(name, names.spellings());
  return new TokenmillError('flag_invalid', `Unknown flag ${name}${where}.`, {
    param: name,
    remedy: guess ? `Did you mean ${guess}?` : 'See --help=all for every flag.',
  });
}

function noteCompat(
  name: string,
  flag: CompatFlag,
  values: readonly string[],
  negated: boolean,
  notes: string[],
): void {
  if (negated || (values.length > 0 && values.every((value) => flag.harmless?.includes(value)))) return;
  if (flag.need === 'refuse') throw new TokenmillError('flag_invalid', `${name}: ${flag.text}.`, { param: name });
  notes.push(`${flag.need === 'gone' ? 'warning' : 'ignored'}: ${name} ${flag.text}`);
}

interface FlagMatch {
  readonly key: string;
  readonly flag: Flag;
  readonly negated: boolean;
}

/** Every spelling of every flag of a table. */
class FlagNames {
  private readonly byName = new Map<string, FlagMatch>();
  private readonly compat = new Map<string, CompatFlag>();
  private readonly compatPrefixes: (readonly [string, CompatFlag])[] = [];

  constructor(table: FlagTable) {
    for (const [key, flag] of Object.entries(table)) {
      for (const name of [flag.cli, ...(flag.aliases ?? [])]) this.addSpellings(name, key, flag);
    }
    for (const flag of COMPAT_FLAGS) {
      for (const name of flag.names) {
        const spelled = name.startsWith('-') ? name : `--${name}`;
        if (spelled.endsWith('*')) this.compatPrefixes.push([spelled.slice(0, -1), flag]);
        else this.compat.set(spelled, flag);
      }
    }
  }

  find(name: string): FlagMatch | undefined {
    return this.byName.get(name);
  }

  findCompat(name: string): { flag: CompatFlag; negated: boolean } | undefined {
    const flag = this.compat.get(name) ?? this.compatPrefixes.find(([prefix]) => name.startsWith(prefix))?.[1];
    if (flag) return { flag, negated: false };
    const positive = name.replace(/^--no-/, '--').replace(/^--disable-/, '--enable-');
    const negatedFlag = positive === name ? undefined : this.compat.get(positive);
    return negatedFlag?.takes === 'none' ? { flag: negatedFlag, negated: true } : undefined;
  }

  spellings(): Iterable<string> {
    return this.byName.keys();
  }

  private addSpellings(name: string, key: string, flag: Flag): void {
    this.byName.set(name, { key, flag, negated: false });
    if (flag.kind !== 'bool' || !name.startsWith('--')) return;
    this.byName.set(name.replace('--', '--no-'), { key, flag, negated: true });
    if (name.startsWith('--enable-'))
      this.byName.set(name.replace('--enable-', '--disable-'), { key, flag, negated: true });
  }
}

/** One pass over the arguments. */
class CommandLine {
  readonly values = new Map<string, FlagValue>();
  readonly positionals: string[] = [];
  readonly notes: string[] = [];
  help: string | null = null;
  private readonly names: FlagNames;
  private args: readonly string[] = [];
  private at = 0;

  constructor(names: FlagNames) {
    this.names = names;
  }

  read(args: readonly string[]): void {
    this.args = args;
    for (this.at = 0; this.at < args.length; ) {
      const arg = args[this.at++]!;
      if (arg === '--') {
        this.positionals.push(...args.slice(this.at));
        return;
      }
      if (isFlag(arg)) this.readFlag(arg);
      else this.positionals.push(arg);
    }
  }

  private readFlag(arg: string): void {
    const equals = arg.indexOf('=');
    const written = equals < 0 ? arg : arg.slice(0, equals);
    const inline = equals < 0 ? null : arg.slice(equals + 1);
    const dot = written.startsWith('--') ? written.indexOf('.') : -1;
    const name = (dot < 0 ? written : written.slice(0, dot)).replaceAll('_', '-');
    if (name === '--help' || name === '-h') {
      this.help = inline ?? '';
      return;
    }
    if (name === '--config') {
      if (inline === null) this.at++;
      return;
    }
    if (/^-O[0-3]?$/.test(name)) {
      this.notes.push(`ignored: ${name} has no effect on this engine`);
      return;
    }
    const match = this.names.find(name);
    if (!match) this.readCompat(name, inline);
    else if (dot >= 0) this.readDotted(match, written.slice(dot + 1), inline);
    else this.readValue(match, inline);
  }

  private readCompat(name: string, inline: string | null): void {
    const compat = this.names.findCompat(name);
    if (!compat) throw unknownFlag(name, this.names);
    const values =
      inline !== null ? [inline] : compat.flag.takes === 'none' ? [] : this.takeValues(compat.flag.takes === 'list');
    noteCompat(name, compat.flag, values, compat.negated || inline === 'false', this.notes);
  }

  private readValue({ key, flag, negated }: FlagMatch, inline: string | null): void {
    if (flag.kind === 'bool') {
      const value = inline === null ? true : (coerce(flag, inline) as boolean);
      this.values.set(key, negated ? !value : value);
    } else if (flag.kind === 'list') {
      const items = (inline !== null ? [inline] : this.takeValues(true)).flatMap(
        (item) => coerce(flag, item) as readonly string[],
      );
      if (items.length === 0 && inline === null) throw missingValue(flag.cli);
      this.values.set(key, [...((this.values.get(key) as readonly string[] | undefined) ?? []), ...items]);
    } else {
      this.values.set(key, coerce(flag, inline ?? this.takeOne(flag.cli)));
    }
  }

  /** `--flag.a.b value` and `--flag.list+ value`. */
  private readDotted({ key, flag }: FlagMatch, path: string, inline: string | null): void {
    if (flag.kind !== 'json')
      throw new TokenmillError('flag_invalid', `${flag.cli} takes no dotted keys.`, { param: flag.cli });
    const raw = inline ?? this.takeOne(`${flag.cli}.${path}`);
    const append = path.endsWith('+');
    const steps = (append ? path.slice(0, -1) : path).split('.');
    if (steps.some((step) => step === '' || step === '__proto__')) {
      throw new TokenmillError('flag_invalid', `${flag.cli}.${path} is not a path of keys.`, { param: flag.cli });
    }
    const root = structuredClone(this.values.get(key) ?? {}) as Record<string, unknown>;
    let node = root;
    for (const step of steps.slice(0, -1)) {
      const next = node[step];
      const child =
        next !== null && typeof next === 'object' && !Array.isArray(next) ? (next as Record<string, unknown>) : {};
      node[step] = child;
      node = child;
    }
    const last = steps.at(-1)!;
    const before = node[last];
    node[last] = append ? [...(Array.isArray(before) ? before : []), jsonOrText(raw)] : jsonOrText(raw);
    this.values.set(key, root);
  }

  private takeOne(cli: string): string {
    const value = this.args[this.at];
    if (value === undefined || value.startsWith('--')) throw missingValue(cli);
    this.at++;
    return value;
  }

  private takeValues(many: boolean): string[] {
    const values: string[] = [];
    while (this.at < this.args.length && !isFlag(this.args[this.at]!)) {
      values.push(this.args[this.at++]!);
      if (!many) break;
    }
    return values;
  }
}

/** A lone `-` (stdin) and negative numbers are values. */
function isFlag(arg: string): boolean {
  return /^--?[A-Za-z]/.test(arg) || arg === '--';
}

function missingValue(cli: string): TokenmillError {
  return new TokenmillError('flag_invalid', `${cli} needs a value.`, { param: cli });
}

function jsonOrText(raw: string): unknown {
  try {
    return JSON.parse(raw);
  } catch {
    return raw;
  }
}
