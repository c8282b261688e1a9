import { asSpec, invalid, type Spec, unsupported } from './spec.ts';
import { SPACE_CLASS } from './unicode.ts';

const MAX_PATTERN_LENGTH = 4096;

/** A `{"String": ...}` or `{"Regex": ...}` of tokenizer.json. */
export function readPattern(value: unknown): { readonly source: string; readonly isRegex: boolean } {
  const spec: Spec = asSpec(value, 'a pattern');
  const source = spec['Regex'] ?? spec['String'];
  if (typeof source !== 'string' || source === '') throw invalid('a pattern is neither a String nor a Regex');
  if (source.length > MAX_PATTERN_LENGTH) throw invalid(`a pattern is longer than ${MAX_PATTERN_LENGTH} characters`);
  return { source, isRegex: spec['Regex'] !== undefined };
}

export function compilePattern(value: unknown): RegExp {
  const { source, isRegex } = readPattern(value);
  return isRegex ? compileRegex(source) : new RegExp(source.replace(/[\\^$.*+?()[\]{}|/]/g, '\\$&'), 'gu');
}

/**
 * An Oniguruma pattern as a JavaScript one. Repeating a group that itself repeats or chooses can take exponential
 * time, so such patterns are refused; what is left takes at most quadratic time.
 */
export function compileRegex(source: string): RegExp {
  checkRepeats(source);
  try {
    return new RegExp(translate(source), 'gu');
  } catch (cause) {
    throw unsupported(`the pattern ${JSON.stringify(source)} (${(cause as Error).message})`);
  }
}

const CLASSES: Readonly<Record<string, string>> = {
  s: SPACE_CLASS,
  d: '\\p{Nd}',
  w: '\\p{L}\\p{M}\\p{Nd}\\p{Pc}',
  h: '0-9a-fA-F',
};
const SYNTAX = new Set('^$\\.*+?()[]{}|/');

function translate(source: string): string {
  let out = '';
  let inClass = false;
  let anyCase = 0;
  const groups: boolean[] = [];
  for (let i = 0; i < source.length; i++) {
    const char = source[i] as string;
    if (char === '\\') {
      out += escaped(source, ++i, inClass);
      if (/^[pP]\{/.test(source.slice(i))) {
        const end = source.indexOf('}', i);
        out += source.slice(i + 1, end + 1);
        i = end;
      }
    } else if (inClass) {
      if (char === ']') inClass = false;
      out += char === '[' ? '\\[' : char === '-' && '[]'.includes(source[i + 1] ?? '') ? '\\-' : char;
    } else if (char === '[') {
      inClass = true;
      out += char;
      if (source[i + 1] === '^') out += source[++i];
      if (source[i + 1] === ']') out += `\\${source[++i]}`;
    } else if (source.startsWith('(?i:', i)) {
      groups.push(true);
      anyCase++;
      out += '(?:';
      i += 3;
    } else if (char === '(') {
      groups.push(false);
      out += char;
    } else if (char === ')') {
      if (groups.pop()) anyCase--;
      out += char;
    } else if (char === '+' && /[+*?}]$/.test(out) && !/\\.$/.test(out)) {
      // Possessive: matches what the greedy form matches wherever what follows does not overlap.
    } else {
      out += anyCase > 0 && /[a-zA-Z]/.test(char) ? `[${char.toLowerCase()}${char.toUpperCase()}]` : char;
    }
  }
  return out;
}

function escaped(source: string, at: number, inClass: boolean): string {
  const char = source[at] ?? '';
  const lower = CLASSES[char.toLowerCase()];
  if (lower !== undefined && char === char.toLowerCase()) return inClass ? lower : `[${lower}]`;
  if (lower !== undefined && !inClass) return `[^${lower}]`;
  if (char === 'S' && inClass) return '\\S';
  if (/[pPnrtfvxubB0-9]/.test(char)) return `\\${char}`;
  if (SYNTAX.has(char) || (inClass && char === '-')) return `\\${char}`;
  if (/[a-zA-Z]/.test(char)) throw unsupported(`\\${char} in the pattern ${JSON.stringify(source)}`);
  return char;
}

/** Refuses an unbounded quantifier on a group that holds another one or an alternative. */
function checkRepeats(source: string): void {
  const open: { risky: boolean }[] = [];
  let inClass = false;
  for (let i = 0; i < source.length; i++) {
    const char = source[i] as string;
    if (char === '\\') i++;
    else if (inClass) inClass = char !== ']';
    else if (char === '[') inClass = true;
    else if (char === '(') open.push({ risky: false });
    else if (char === ')') {
      const group = open.pop();
      const repeated = /^(?:[*+]|\{\d+,\d*\}|\{\d{2,}\})/.test(source.slice(i + 1));
      if (group?.risky && repeated)
        throw unsupported(`the pattern ${JSON.stringify(source)}, which can take exponential time`);
      const parent = open.at(-1);
      if (parent && (group?.risky || repeated)) parent.risky = true;
    } else if (
      (char === '*' || char === '+' || char === '|' || /^\{\d+,\d*\}/.test(source.slice(i, i + 12))) &&
      open.length > 0
    ) {
      (open.at(-1) as { risky: boolean }).risky = true;
    }
  }
}
