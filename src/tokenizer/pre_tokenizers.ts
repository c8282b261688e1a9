import { bytesToChars } from './byte_level.ts';
import { compilePattern, compileRegex, readPattern } from './pattern.ts';
import { GPT2_SCANNER, SCANNERS } from './scanners.ts';
import { asArray, asBoolean, asSpec, asString, invalid, type Spec, unsupported } from './spec.ts';
import { SPACE_CLASS } from './unicode.ts';

/** Cuts a piece further; `isFirst` says whether the piece begins the input. */
export type PreTokenizer = (piece: string, isFirst: boolean) => string[];

/**
 * Patterns without a scanner of ours run in the regex engine, where a text may cost quadratic time.
 * A longer text is refused rather than allowed to block the process.
 */
const MAX_REGEX_CHARS = 8 * 1024 * 1024;
const MAX_STEPS = 64;

export function readPreTokenizer(spec: Spec | null): PreTokenizer {
  return spec === null ? (piece) => [piece] : build(spec);
}

function build(spec: Spec): PreTokenizer {
  const type = asString(spec['type'], 'pre_tokenizer.type');
  switch (type) {
    case 'Sequence':
      return sequence(asArray(spec['pretokenizers'], 'pretokenizers'));
    case 'ByteLevel':
      return byteLevel(spec);
    case 'Split':
      return splitter(spec);
    case 'Metaspace':
      return metaspace(spec);
    case 'BertPreTokenizer':
      return (piece) => piece.split(SPACES).flatMap((word) => isolate(word, PUNCTUATION));
    case 'Whitespace':
      return (piece) => piece.match(WORDS) ?? [];
    case 'WhitespaceSplit':
      return (piece) => piece.split(SPACES).filter((word) => word !== '');
    case 'Punctuation':
      return (piece) => behave(piece, PUNCTUATION, asString(spec['behavior'] ?? 'Isolated', 'behavior'), false);
    case 'Digits': {
      const pattern = asBoolean(spec['individual_digits'], false, 'individual_digits') ? /\p{N}/gu : /\p{N}+/gu;
      return (piece) => isolate(piece, pattern);
    }
    case 'CharDelimiterSplit': {
      const delimiter = asString(spec['delimiter'], 'delimiter');
      return (piece) => piece.split(delimiter).filter((word) => word !== '');
    }
    default:
      throw unsupported(`the pre-tokenizer ${JSON.stringify(type)}`);
  }
}

const SPACES = new RegExp(`[${SPACE_CLASS}]+`, 'gu');
/** `\w+|[^\w\s]+` */
const WORDS = new RegExp(
  `[\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}]+|[^\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}${SPACE_CLASS}]+`,
  'gu',
);
const PUNCTUATION = /[!-/:-@[-`{-~\p{P}]/gu;

function sequence(specs: readonly unknown[]): PreTokenizer {
  if (specs.length > MAX_STEPS) throw unsupported(`more than ${MAX_STEPS} pre-tokenizers`);
  const steps = specs.map((step) => build(asSpec(step, 'a pre-tokenizer')));
  return (piece, isFirst) => {
    let pieces = [piece];
    for (const step of steps) pieces = pieces.flatMap((part, i) => step(part, isFirst && i === 0));
    return pieces;
  };
}

function byteLevel(spec: Spec): PreTokenizer {
  const addSpace = asBoolean(spec['add_prefix_space'], true, 'add_prefix_space');
  const useRegex = asBoolean(spec['use_regex'], true, 'use_regex');
  return (piece) => {
    const text = addSpace && !piece.startsWith(' ') ? ` ${piece}` : piece;
    return (useRegex ? GPT2_SCANNER(text) : [text]).map(bytesToChars);
  };
}

function splitter(spec: Spec): PreTokenizer {
  const { source, isRegex } = readPattern(spec['pattern']);
  const behavior = asString(spec['behavior'], 'behavior');
  const invert = asBoolean(spec['invert'], false, 'invert');
  const scanner = SCANNERS.get(source);
  // These patterns match everything, so cutting out the matches and removing what is between them are the same.
  if (scanner && isRegex && (behavior === 'Isolated' || (behavior === 'Removed' && invert))) return scanner;
  const pattern = isRegex ? compileRegex(source) : compilePattern(spec['pattern']);
  return (piece) => behave(piece, pattern, behavior, invert);
}

interface Span {
  readonly text: string;
  readonly isMatch: boolean;
}

function spans(text: string, pattern: RegExp): Span[] {
  if (text.length > MAX_REGEX_CHARS) {
    throw invalid(
      `its split pattern has no linear scanner and takes no text of more than ${MAX_REGEX_CHARS} characters`,
    );
  }
  const found: Span[] = [];
  let at = 0;
  for (const match of text.matchAll(pattern)) {
    if (match[0] === '') continue;
    if (match.index > at) found.push({ text: text.slice(at, match.index), isMatch: false });
    found.push({ text: match[0], isMatch: true });
    at = match.index + match[0].length;
  }
  if (at < text.length) found.push({ text: text.slice(at), isMatch: false });
  return found;
}

const isolate = (text: string, pattern: RegExp): string[] => spans(text, pattern).map((span) => span.text);

/** The delimiter behaviours of the tokenizers library. */
function behave(text: string, pattern: RegExp, behavior: string, invert: boolean): string[] {
  const parts = spans(text, pattern).map((span) => ({ text: span.text, isMatch: span.isMatch !== invert }));
  switch (behavior) {
    case 'Isolated':
      return parts.map((part) => part.text);
    case 'Removed':
      return parts.filter((part) => !part.isMatch).map((part) => part.text);
    case 'Contiguous':
      return join(parts, (previous, part) => previous.isMatch === part.isMatch);
    case 'MergedWithPrevious':
      return join(parts, (previous, part) => part.isMatch && !previous.isMatch);
    case 'MergedWithNext':
      return join(parts, (previous, part) => previous.isMatch && !part.isMatch);
    default:
      throw unsupported(`the split behavior ${JSON.stringify(behavior)}`);
  }
}

function join(parts: readonly Span[], glued: (previous: Span, part: Span) => boolean): string[] {
  const joined: string[] = [];
  for (const [i, part] of parts.entries()) {
    const previous = parts[i - 1];
    if (previous && glued(previous, part)) joined[joined.length - 1] += part.text;
    else joined.push(part.text);
  }
  return joined;
}

/** Spaces become `▁`; each word begins with one. */
function metaspace(spec: Spec): PreTokenizer {
  const mark = asString(spec['replacement'] ?? '\u2581', 'replacement');
  const scheme = prependScheme(spec);
  const split = asBoolean(spec['split'], true, 'split');
  return (piece, isFirst) => {
    const marked = piece.replaceAll(' ', mark);
    const prepend = (scheme === 'always' || (scheme === 'first' && isFirst)) && !marked.startsWith(mark);
    const text = prepend ? mark + marked : marked;
    if (!split) return [text];
    const words: string[] = [];
    let start = 0;
    for (let next = text.indexOf(mark, 1); next >= 0; next = text.indexOf(mark, next + 1)) {
      words.push(text.slice(start, next));
      start = next;
    }
    words.push(text.slice(start));
    return words;
  };
}

/** Old files say `add_prefix_space` instead. */
export function prependScheme(spec: Spec): 'always' | 'first' | 'never' {
  const scheme =
    spec['prepend_scheme'] ?? (asBoolean(spec['add_prefix_space'], true, 'add_prefix_space') ? 'always' : 'never');
  if (scheme === 'always' || scheme === 'first' || scheme === 'never') return scheme;
  throw invalid(`prepend_scheme ${JSON.stringify(scheme)} is not known`);
}
