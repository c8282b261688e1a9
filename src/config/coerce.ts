/** Turns what was written (on the command line, in the environment, in YAML) into the value of a flag, or refuses it. */
import { TokenmillError } from '../base/errors.ts';
import type { BoolFlag, ChoiceFlag, Flag, FloatFlag, IntFlag, JsonFlag } from './flag_types.ts';

const SUFFIXES: Readonly<Record<string, number>> = {
  k: 1e3,
  m: 1e6,
  g: 1e9,
  t: 1e12,
  K: 2 ** 10,
  M: 2 ** 20,
  G: 2 ** 30,
  T: 2 ** 40,
};
const TRUE_WORDS = new Set(['1', 'true', 'yes', 'on']);
const FALSE_WORDS = new Set(['0', 'false', 'no', 'off']);

export type FlagValue = string | number | boolean | readonly string[] | Readonly<Record<string, unknown>> | null;

export function refuseFlag(cli: string, value: unknown, why: string, remedy?: string): TokenmillError {
  const shown = typeof value === 'string' ? `'${value.slice(0, 80)}'` : JSON.stringify(value)?.slice(0, 80);
  const details = { param: cli, value };
  return new TokenmillError('flag_invalid', `${cli}: ${shown} ${why}.`, remedy ? { ...details, remedy } : details);
}

/**
 * `1k` = 1000, `1K` = 1024, `25.6k` = 25600. A fraction with a binary suffix is refused, as vLLM does: it hides a unit mistake.
 * Returns null when `text` is no such number.
 */
export function parseHumanInt(text: string): number | null {
  const match = /^(-?\d+)(\.\d+)?([kmgtKMGT])?$/.exec(text.trim());
  if (!match) return null;
  const [, whole, fraction, suffix] = match;
  if (fraction && (!suffix || suffix === suffix.toUpperCase())) return null;
  const value = Number(`${whole}${fraction ?? ''}`) * (suffix ? SUFFIXES[suffix]! : 1);
  const rounded = Math.round(value);
  // 25.6k is exact in decimal but not in binary; anything further off was a fraction of one.
  return Math.abs(value - rounded) < 1e-6 * Math.max(1, Math.abs(value)) && Number.isSafeInteger(rounded)
    ? rounded
    : null;
}

export function coerce(flag: Flag, raw: unknown): FlagValue {
  if (raw === null && flag.default === null) return null;
  switch (flag.kind) {
    case 'string':
      if (typeof raw === 'string') return raw;
      if (typeof raw === 'number') return String(raw);
      throw refuseFlag(flag.cli, raw, 'is not a string');
    case 'int':
      return coerceInt(flag, raw);
    case 'float':
      return coerceFloat(flag, raw);
    case 'bool':
      return coerceBool(flag, raw);
    case 'choice':
      return coerceChoice(flag, raw);
    case 'list':
      return coerceList(flag.cli, raw);
    case 'json':
      return coerceJson(flag, raw);
  }
}

function coerceInt(flag: IntFlag, raw: unknown): number | null {
  const text = String(raw).trim();
  if (flag.auto && (text === 'auto' || text === '-1')) return null;
  const plain = /^-?\d+$/.test(text) && Number.isSafeInteger(Number(text)) ? Number(text) : null;
  const value = typeof raw === 'boolean' ? null : flag.human ? parseHumanInt(text) : plain;
  if (value === null)
    throw refuseFlag(
      flag.cli,
      raw,
      flag.human ? 'is not a whole number such as 2048, 2k or 2K' : 'is not a whole number',
    );
  checkRange(flag, value, false);
  return value;
}

function coerceFloat(flag: FloatFlag, raw: unknown): number {
  const value = typeof raw === 'number' ? raw : typeof raw === 'string' && raw.trim() !== '' ? Number(raw) : Number.NaN;
  if (!Number.isFinite(value)) throw refuseFlag(flag.cli, raw, 'is not a number');
  checkRange(flag, value, flag.exclusiveMin === true);
  return value;
}

function checkRange(flag: IntFlag | FloatFlag, value: number, exclusiveMin: boolean): void {
  if (value > flag.max || value < flag.min || (exclusiveMin && value === flag.min)) {
    const range = `${exclusiveMin ? '(' : '['}${flag.min}, ${flag.max}]`;
    throw refuseFlag(flag.cli, value, `is out of range ${range}`);
  }
}

function coerceBool(flag: BoolFlag, raw: unknown): boolean {
  if (typeof raw === 'boolean') return raw;
  const word = String(raw).toLowerCase();
  if (TRUE_WORDS.has(word)) return true;
  if (FALSE_WORDS.has(word)) return false;
  throw refuseFlag(flag.cli, raw, 'is neither true nor false');
}

function coerceChoice(flag: ChoiceFlag, raw: unknown): string {
  const word = String(raw);
  const choice = flag.synonyms !== undefined && Object.hasOwn(flag.synonyms, word) ? flag.synonyms[word]! : word;
  if (flag.of.includes(choice)) return choice;
  throw refuseFlag(flag.cli, raw, `is not one of ${flag.of.join(', ')}`);
}

function coerceList(cli: string, raw: unknown): readonly string[] {
  const items = typeof raw === 'string' ? (raw.trimStart().startsWith('[') ? parseJson(cli, raw) : [raw]) : raw;
  if (!Array.isArray(items) || !items.every((item) => typeof item === 'string' || typeof item === 'number')) {
    throw refuseFlag(cli, raw, 'is not a list of strings');
  }
  return items.map(String);
}

function coerceJson(flag: JsonFlag, raw: unknown): Readonly<Record<string, unknown>> {
  const value = typeof raw === 'string' ? parseJson(flag.cli, raw) : raw;
  if (value === null || typeof value !== 'object' || Array.isArray(value))
    throw refuseFlag(flag.cli, raw, 'is not a JSON object');
  return value as Readonly<Record<string, unknown>>;
}

function parseJson(cli: string, text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw refuseFlag(cli, text, `is not JSON (${error instanceof Error ? error.message : String(error)})`);
  }
}
