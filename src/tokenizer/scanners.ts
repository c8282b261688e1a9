import { isLetter, isNumber, isOther, isWhite } from './unicode.ts';

/**
 * Hand-written scanners of the split patterns of the field. Each cuts the whole text into pieces in one pass, where a
 * regex engine would try alternative after alternative.
 */
export type Scanner = (text: string) => string[];

const GPT2 = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
const cl100k = (numbers: string): string =>
  `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|${numbers}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+`;

/** Split patterns with a scanner: GPT-2's, that of Llama 3 and that of Qwen 2. */
export const SCANNERS: ReadonlyMap<string, Scanner> = new Map<string, Scanner>([
  [GPT2, (text) => scan(text, gpt2Piece)],
  [cl100k('\\p{N}{1,3}'), (text) => scan(text, (t, at) => cl100kPiece(t, at, 3))],
  [cl100k('\\p{N}'), (text) => scan(text, (t, at) => cl100kPiece(t, at, 1))],
]);

export const GPT2_SCANNER = SCANNERS.get(GPT2) as Scanner;

function scan(text: string, end: (text: string, at: number) => number): string[] {
  const pieces: string[] = [];
  for (let at = 0; at < text.length; ) {
    const to = end(text, at);
    pieces.push(text.slice(at, to));
    at = to;
  }
  return pieces;
}

const code = (text: string, at: number): number => (at < text.length ? (text.codePointAt(at) as number) : -1);
const width = (point: number): number => (point > 0xffff ? 2 : 1);

/** First position from `at` on, after at most `max` characters, where `test` fails. */
function run(text: string, at: number, test: (point: number) => boolean, max = Number.POSITIVE_INFINITY): number {
  let end = at;
  for (let count = 0; end < text.length && count < max; count++) {
    const point = text.codePointAt(end) as number;
    if (!test(point)) break;
    end += width(point);
  }
  return end;
}

const SUFFIXES = ['s', 't', 're', 've', 'm', 'll', 'd'];

/** End of `'s`, `'re` and so on at `at`, or -1. */
function contraction(text: string, at: number, anyCase: boolean): number {
  if (text.charCodeAt(at) !== 0x27) return -1;
  const tail = text.slice(at + 1, at + 3);
  // U+017F, the long s, is an s when case does not count.
  const folded = anyCase ? tail.toLowerCase().replaceAll('\u017f', 's') : tail;
  const suffix = SUFFIXES.find((candidate) => folded.startsWith(candidate));
  return suffix === undefined ? -1 : at + 1 + suffix.length;
}

/** `\s+(?!\S)|\s+`: a run of spaces leaves its last one to a word that follows. */
function spaces(text: string, at: number): number {
  const end = run(text, at, isWhite);
  return end === text.length || end - at === 1 ? end : end - 1;
}

function gpt2Piece(text: string, at: number): number {
  const short = contraction(text, at, false);
  if (short >= 0) return short;
  const first = text.charCodeAt(at) === 0x20 ? at + 1 : at;
  const point = code(text, first);
  if (point >= 0) {
    if (isLetter(point)) return run(text, first, isLetter);
    if (isNumber(point)) return run(text, first, isNumber);
    if (isOther(point)) return run(text, first, isOther);
  }
  return spaces(text, at);
}

const isNewline = (point: number): boolean => point === 0x0a || point === 0x0d;

function cl100kPiece(text: string, at: number, maxDigits: number): number {
  const short = contraction(text, at, true);
  if (short >= 0) return short;
  const point = code(text, at);
  if (isLetter(point)) return run(text, at, isLetter);
  const next = at + width(point);
  if (!isNewline(point) && !isNumber(point) && isLetter(code(text, next))) return run(text, next, isLetter);
  if (isNumber(point)) return run(text, at, isNumber, maxDigits);
  const first = point === 0x20 ? at + 1 : at;
  if (first < text.length && isOther(code(text, first))) return run(text, run(text, first, isOther), isNewline);
  return spacesToNewline(text, at);
}

/** `\s*[\r\n]+` takes spaces up to the last newline of the run; without one the rule of {@link spaces} holds. */
function spacesToNewline(text: string, at: number): number {
  const end = run(text, at, isWhite);
  for (let last = end; last > at; last--) if (isNewline(text.charCodeAt(last - 1))) return last;
  return end === text.length || end - at === 1 ? end : end - 1;
}
