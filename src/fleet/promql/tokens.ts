/** The text of a query cut into tokens; durations, strings and numbers as PromQL writes them. */
import { queryError } from './query_ast.ts';

export interface Token {
  readonly kind: 'number' | 'duration' | 'string' | 'name' | 'operator' | 'end';
  readonly text: string;
  /** Column, from 1. */
  readonly at: number;
}

const MAX_CHARS = 8192;

const TOKEN =
  /(?<skip>\s+|#[^\n]*)|(?<duration>(?:\d+(?:ms|[smhdwy]))+)(?![\w.])|(?<number>0[xX][\da-fA-F]+|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?![\w.])|(?<name>[A-Za-z_:][\w:]*)|(?<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|`[^`]*`)|(?<operator>=~|!~|[=!<>]=|[-+*/%^<>=(){},[\]@:])/y;

export function tokenize(text: string): Token[] {
  if (text.length > MAX_CHARS) throw queryError(`longer than the ${MAX_CHARS} characters it may have`, MAX_CHARS + 1);
  const tokens: Token[] = [];
  for (let from = 0; from < text.length; from = TOKEN.lastIndex) {
    TOKEN.lastIndex = from;
    const groups = TOKEN.exec(text)?.groups;
    if (groups === undefined) throw queryError(`unexpected ${JSON.stringify(text[from])}`, from + 1);
    const at = from + 1;
    const { duration, number, name, string, operator } = groups;
    if (duration !== undefined) tokens.push({ kind: 'duration', text: duration, at });
    else if (number !== undefined) tokens.push({ kind: 'number', text: number, at });
    else if (name !== undefined) tokens.push({ kind: 'name', text: name, at });
    else if (string !== undefined) tokens.push({ kind: 'string', text: unquote(string, at), at });
    else if (operator !== undefined) tokens.push({ kind: 'operator', text: operator, at });
  }
  tokens.push({ kind: 'end', text: '', at: text.length + 1 });
  return tokens;
}

const ESCAPES: Readonly<Record<string, string>> = {
  a: '\x07',
  b: '\b',
  f: '\f',
  n: '\n',
  r: '\r',
  t: '\t',
  v: '\v',
  '\\': '\\',
  '"': '"',
  "'": "'",
};

function unquote(quoted: string, at: number): string {
  const inner = quoted.slice(1, -1);
  if (quoted.startsWith('`')) return inner;
  return inner.replace(/\\(x[\da-fA-F]{2}|u[\da-fA-F]{4}|[0-7]{3}|.)/g, (_, code: string) => {
    if (/^[xu]../.test(code)) return String.fromCharCode(Number.parseInt(code.slice(1), 16));
    if (/^[0-7]{3}$/.test(code)) return String.fromCharCode(Number.parseInt(code, 8));
    const known = Object.hasOwn(ESCAPES, code) ? ESCAPES[code] : undefined;
    if (known === undefined) throw queryError(`unknown escape \\${code} in a string`, at);
    return known;
  });
}

const UNIT_MS: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
  w: 604_800_000,
  y: 31_536_000_000,
};

/** `1h30m`: units from large to small, each once. */
export function durationMs(text: string, at: number): number {
  let total = 0;
  let last = Number.POSITIVE_INFINITY;
  for (const [, count = '', unit = ''] of text.matchAll(/(\d+)(ms|[smhdwy])/g)) {
    const unitMs = UNIT_MS[unit] as number;
    if (unitMs >= last) throw queryError(`${JSON.stringify(text)} is no duration (units from large to small)`, at);
    last = unitMs;
    total += Number(count) * unitMs;
  }
  return total;
}
