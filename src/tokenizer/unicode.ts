/** Character classes of Unicode, as the tables of Oniguruma and Rust have them, by UTF-16 unit or code point. */

const LETTER = 1;
const NUMBER = 2;
const SPACE = 4;
/** White_Space of Unicode: JavaScript's `\s` has U+FEFF and lacks U+0085. */
export const SPACE_CLASS = '\\t-\\r\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000';

const PATTERNS = [
  [/\p{L}/u, LETTER],
  [/\p{N}/u, NUMBER],
  [new RegExp(`[${SPACE_CLASS}]`, 'u'), SPACE],
] as const;

/** One byte a character of the first plane, filled on first use; the other planes are rare enough for the regexes. */
const table = new Uint8Array(0x10000);
const KNOWN = 128;

function classOf(code: number): number {
  if (code < 0x10000) {
    const known = table[code] as number;
    if (known !== 0) return known;
  }
  const char = String.fromCodePoint(code);
  let result = KNOWN;
  for (const [pattern, bit] of PATTERNS) if (pattern.test(char)) result |= bit;
  if (code < 0x10000) table[code] = result;
  return result;
}

export const isLetter = (code: number): boolean => (classOf(code) & LETTER) !== 0;
export const isNumber = (code: number): boolean => (classOf(code) & NUMBER) !== 0;
export const isWhite = (code: number): boolean => (classOf(code) & SPACE) !== 0;
/** Neither space nor letter nor number. */
export const isOther = (code: number): boolean => (classOf(code) & (LETTER | NUMBER | SPACE)) === 0;
