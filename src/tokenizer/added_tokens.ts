import { Trie } from './pair_table.ts';
import { asArray, asBoolean, asId, asSpec, asString, type Spec } from './spec.ts';
import { isWhite } from './unicode.ts';

/** A token that is found in the text before the model sees it. */
export interface AddedToken {
  readonly id: number;
  readonly content: string;
  readonly special: boolean;
  readonly singleWord: boolean;
  readonly lstrip: boolean;
  readonly rstrip: boolean;
  /** Looked for in the normalized text. */
  readonly normalized: boolean;
}

/**
 * Added tokens of tokenizer.json, then those that only tokenizer_config.json knows. A token that the model's vocabulary
 * has keeps its id there, whatever the list says.
 */
export function readAddedTokens(tokenizer: Spec, config: Spec, vocabulary: ReadonlyMap<string, number>): AddedToken[] {
  const tokens = new Map<number, AddedToken>();
  const known = new Set<string>();
  const add = (id: number, value: unknown): void => {
    const listed = readToken(id, asSpec(value, 'an added token'));
    const token = { ...listed, id: vocabulary.get(listed.content) ?? id };
    if (tokens.has(token.id) || known.has(token.content) || token.content === '') return;
    tokens.set(token.id, token);
    known.add(token.content);
  };
  for (const entry of asArray(tokenizer['added_tokens'] ?? [], 'added_tokens')) {
    add(asId(asSpec(entry, 'an added token')['id'], 'the id of an added token'), entry);
  }
  const more = config['added_tokens_decoder'];
  for (const [id, entry] of Object.entries(more ? asSpec(more, 'added_tokens_decoder') : {})) {
    add(asId(Number(id), 'an id of added_tokens_decoder'), entry);
  }
  return [...tokens.values()];
}

function readToken(id: number, spec: Spec): AddedToken {
  const special = asBoolean(spec['special'], false, 'special');
  return {
    id,
    content: asString(spec['content'], 'the content of an added token'),
    special,
    singleWord: asBoolean(spec['single_word'], false, 'single_word'),
    lstrip: asBoolean(spec['lstrip'], false, 'lstrip'),
    rstrip: asBoolean(spec['rstrip'], false, 'rstrip'),
    normalized: asBoolean(spec['normalized'], !special, 'normalized'),
  };
}

/** A stretch of text, or an added token found in it. `start` is its place in the text that was cut. */
export type Part = { readonly text: string; readonly start: number } | { readonly id: number };

const WORD_END = /[\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}]$/u;
const WORD_START = /^[\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}]/u;

/** Finds added tokens: leftmost first, the longest of those. */
export class AddedTokenFinder {
  private readonly trie = new Trie();
  private readonly tokens: readonly AddedToken[];

  /** @param spell the content as it stands in the text that will be searched. */
  constructor(tokens: readonly AddedToken[], spell: (content: string) => string) {
    this.tokens = tokens;
    for (const [i, token] of tokens.entries()) {
      const content = spell(token.content);
      if (content !== '') this.trie.add(content, i);
    }
  }

  split(text: string): Part[] {
    if (this.tokens.length === 0) return text === '' ? [] : [{ text, start: 0 }];
    const parts: Part[] = [];
    let done = 0;
    for (let at = 0; at < text.length; ) {
      const [index, length] = this.longestAt(text, at);
      if (index < 0) {
        at++;
        continue;
      }
      const token = this.tokens[index] as AddedToken;
      const end = at + length;
      if (!token.singleWord || isSingleWord(text, at, end)) {
        const start = token.lstrip ? Math.max(done, spacesBefore(text, at, done)) : at;
        if (start > done) parts.push({ text: text.slice(done, start), start: done });
        parts.push({ id: token.id });
        done = token.rstrip ? spacesAfter(text, end) : end;
      }
      at = Math.max(end, done);
    }
    if (done < text.length) parts.push({ text: text.slice(done), start: done });
    return parts;
  }

  private longestAt(text: string, at: number): readonly [number, number] {
    let index = -1;
    let length = 0;
    let node = 0;
    for (let i = at; i < text.length; i++) {
      node = this.trie.step(node, text.charCodeAt(i));
      if (node < 0) break;
      const value = this.trie.valueAt(node);
      if (value >= 0) {
        index = value;
        length = i + 1 - at;
      }
    }
    return [index, length];
  }
}

function isSingleWord(text: string, start: number, end: number): boolean {
  return !WORD_END.test(text.slice(Math.max(0, start - 2), start)) && !WORD_START.test(text.slice(end, end + 2));
}

function spacesBefore(text: string, at: number, floor: number): number {
  let start = at;
  while (start > floor && isWhite(text.charCodeAt(start - 1))) start--;
  return start;
}

function spacesAfter(text: string, at: number): number {
  let end = at;
  while (end < text.length && isWhite(text.charCodeAt(end))) end++;
  return end;
}
