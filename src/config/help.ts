/** Help texts from a flags table. */
import { TokenmillError } from '../base/errors.ts';
import { nearestName } from '../base/nearest.ts';
import { COMPAT_FLAGS } from './compat_flags.ts';
import type { Flag, FlagTable } from './flag_types.ts';
import { envName } from './parse.ts';

const INDENT = 6;
const WIDTH = 100;

export interface HelpOptions {
  /** Lines above the flags: usage and what the command does. */
  readonly usage: readonly string[];
  readonly table: FlagTable;
  /** Group -> heading, in order. Groups that are not shown by default come with `all`. */
  readonly groups: Readonly<Record<string, string>>;
  /** Groups shown by plain `--help`; all when left out. */
  readonly shown?: readonly string[];
}

/**
 * @param topic '' for plain `--help`; else `all`, a group or a flag
 * Throws `flag_invalid` for a topic that does not exist.
 */
export function helpText(options: HelpOptions, topic: string): string {
  const { table, groups, usage } = options;
  const word = topic.toLowerCase().replaceAll('_', '-');
  if (word === '' || word === 'all') {
    const shown = word === 'all' ? Object.keys(groups) : (options.shown ?? Object.keys(groups));
    const sections = shown.map((group) => groupText(groups[group]!, flagsOf(table, group)));
    const hidden = Object.keys(groups).filter((group) => !shown.includes(group));
    const more = hidden.length > 0 ? [`More: --help=all, --help=<flag>, --help=${hidden.join(', --help=')}`] : [];
    return [...usage, '', ...sections, ...more].join('\n');
  }
  if (Object.hasOwn(groups, word)) return groupText(groups[word]!, flagsOf(table, word));
  const name = `--${word.replace(/^-+/, '')}`;
  const flag = Object.values(table).find((row) => row.cli === name || row.aliases?.includes(name));
  if (flag) return flagText(flag);
  const compat = COMPAT_FLAGS.find((row) => row.names.includes(name.slice(2)));
  if (compat) return `  ${name}\n      ${compat.text}.`;
  const guess = nearestName(name, [...Object.values(table).map((row) => row.cli), ...Object.keys(groups)]);
  throw new TokenmillError('flag_invalid', `There is no help on ${topic}.`, {
    remedy: `${guess ? `Did you mean ${guess}? ` : ''}Groups: ${Object.keys(groups).join(', ')}.`,
  });
}

function flagsOf(table: FlagTable, group: string): Flag[] {
  return Object.values(table).filter((flag) => flag.group === group);
}

function groupText(heading: string, flags: readonly Flag[]): string {
  return `${heading}:\n${flags.map(flagText).join('\n')}\n`;
}

function flagText(flag: Flag): string {
  const names = [flag.cli, ...(flag.aliases ?? []), ...(flag.kind === 'bool' ? [negated(flag.cli)] : [])];
  const env = [envName(flag), ...(flag.env ? [flag.env] : [])].join(', ');
  const fallback = defaultText(flag);
  const doc = `${flag.doc}${fallback === null ? '' : ` Default: ${fallback}.`} [${env}]`;
  return `  ${names.join(', ')}${valueText(flag)}\n${wrap(doc, WIDTH - INDENT)
    .map((line) => ' '.repeat(INDENT) + line)
    .join('\n')}`;
}

function negated(cli: string): string {
  return cli.startsWith('--enable-') ? cli.replace('--enable-', '--disable-') : cli.replace('--', '--no-');
}

/** ` N`, ` a|b`: what follows the flag. */
export function valueText(flag: Flag): string {
  switch (flag.kind) {
    case 'bool':
      return '';
    case 'int':
      return ' N';
    case 'float':
      return ' X';
    case 'choice':
      return ` ${flag.of.join('|')}`;
    case 'list':
      return ' VALUE ...';
    case 'json':
      return ' JSON';
    case 'string':
      return ' VALUE';
  }
}

/** Null when the doc says it, or there is nothing to say. */
export function defaultText(flag: Flag): string | null {
  const { default: value } = flag;
  if (value === null || value === '' || (Array.isArray(value) && value.length === 0) || flag.doc.includes('Default:')) {
    return null;
  }
  if (typeof value === 'boolean') return value ? 'on' : 'off';
  return typeof value === 'object' ? JSON.stringify(value) : String(value);
}

function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(' ')) {
    if (line !== '' && line.length + 1 + word.length > width) {
      lines.push(line);
      line = word;
    } else line = line === '' ? word : `${line} ${word}`;
  }
  return [...lines, line];
}
