import { PairTable } from './pair_table.ts';
import { asArray, asBoolean, asString, invalid, type Spec, unsupported } from './spec.ts';
import { readVocabulary, type TokenModel, type Vocabulary } from './vocabulary.ts';

/** Longest word whose result is remembered, and how many are. */
const MAX_CACHED_LENGTH = 64;
const MAX_CACHED_WORDS = 20_000;

/** Ranks and positions share one double as a heap key, which stays exact below 2^53. */
const POSITIONS = 2 ** 28;

/**
 * Byte pair encoding: the merge with the lowest rank, leftmost first, until none is left. A heap over a linked list
 * makes a word of n symbols cost O(n log n), so that text without spaces is no attack.
 * Source: Sennrich, Haddow, Birch, "Neural Machine Translation of Rare Words with Subword Units", 2016.
 */
export class BpeModel implements TokenModel {
  readonly vocabulary: Vocabulary;
  private readonly merges: PairTable;
  private readonly mergedIds: Int32Array;
  private readonly unkId: number;
  private readonly fuseUnk: boolean;
  private readonly ignoreMerges: boolean;
  private readonly byteIds: Int32Array | null;
  private readonly prefix: string;
  private readonly suffix: string;
  private readonly cache = new Map<string, readonly number[]>();

  constructor(spec: Spec) {
    if (typeof spec['dropout'] === 'number' && spec['dropout'] > 0) throw unsupported('BPE dropout');
    this.vocabulary = readVocabulary(spec['vocab']);
    this.prefix = asString(spec['continuing_subword_prefix'] ?? '', 'continuing_subword_prefix');
    this.suffix = asString(spec['end_of_word_suffix'] ?? '', 'end_of_word_suffix');
    this.fuseUnk = asBoolean(spec['fuse_unk'], false, 'fuse_unk');
    this.ignoreMerges = asBoolean(spec['ignore_merges'], false, 'ignore_merges');
    const unk = spec['unk_token'];
    this.unkId = typeof unk === 'string' ? (this.vocabulary.ids.get(unk) ?? -1) : -1;
    this.byteIds = asBoolean(spec['byte_fallback'], false, 'byte_fallback') ? byteTokenIds(this.vocabulary) : null;
    const merges = asArray(spec['merges'], 'model.merges');
    this.merges = new PairTable(merges.length);
    this.mergedIds = new Int32Array(merges.length);
    for (const [rank, merge] of merges.entries()) this.addMerge(merge, rank);
  }

  private addMerge(merge: unknown, rank: number): void {
    const [left, right] = mergeParts(merge);
    const { ids } = this.vocabulary;
    const a = ids.get(left);
    const b = ids.get(right);
    const merged = ids.get(left + right.slice(this.prefix.length));
    if (a === undefined || b === undefined || merged === undefined) {
      throw invalid(`the merge of ${JSON.stringify(left)} and ${JSON.stringify(right)} is not in the vocabulary`);
    }
    this.mergedIds[rank] = merged;
    this.merges.set(a, b, rank);
  }

  encode(word: string, out: number[]): void {
    const cached = this.cache.get(word);
    const ids = cached ?? this.encodeWord(word);
    for (const id of ids) out.push(id);
    if (cached || word.length > MAX_CACHED_LENGTH) return;
    if (this.cache.size >= MAX_CACHED_WORDS) this.cache.clear();
    this.cache.set(word, ids);
  }

  private encodeWord(word: string): readonly number[] {
    if (this.ignoreMerges) {
      const whole = this.vocabulary.ids.get(word);
      if (whole !== undefined) return [whole];
    }
    const symbols = this.symbols(word);
    return symbols.length < 2 ? symbols : this.merge(symbols);
  }

  /** One id a character; what the vocabulary lacks becomes bytes, or the unknown token, or nothing. */
  private symbols(word: string): number[] {
    const { ids } = this.vocabulary;
    const symbols: number[] = [];
    let unknown = false;
    let at = 0;
    for (const char of word) {
      const first = at === 0;
      at += char.length;
      const spelled = (first ? char : this.prefix + char) + (at === word.length ? this.suffix : '');
      const id = ids.get(spelled);
      if (id !== undefined) {
        if (unknown) symbols.push(this.unkId);
        unknown = false;
        symbols.push(id);
      } else if (this.byteIds) {
        for (const byte of Buffer.from(spelled)) symbols.push(this.byteIds[byte] as number);
      } else if (this.unkId >= 0) {
        if (unknown && !this.fuseUnk) symbols.push(this.unkId);
        unknown = true;
      }
    }
    if (unknown) symbols.push(this.unkId);
    return symbols;
  }

  private merge(symbols: number[]): readonly number[] {
    const count = symbols.length;
    const ids = Int32Array.from(symbols);
    const next = Int32Array.from(symbols, (_, i) => (i + 1 < count ? i + 1 : -1));
    const previous = Int32Array.from(symbols, (_, i) => i - 1);
    const heap = new MergeHeap(count);
    const offer = (at: number): void => {
      const right = next[at] as number;
      if (right < 0) return;
      const rank = this.merges.get(ids[at] as number, ids[right] as number);
      if (rank >= 0) heap.push(rank * POSITIONS + at);
    };
    for (let i = 0; i + 1 < count; i++) offer(i);
    while (heap.size > 0) {
      const key = heap.pop();
      const rank = Math.floor(key / POSITIONS);
      const at = key - rank * POSITIONS;
      const right = next[at] as number;
      // The pair may have changed since it was offered; then its own offer is in the heap.
      if (ids[at] === -1 || right < 0 || this.merges.get(ids[at] as number, ids[right] as number) !== rank) continue;
      ids[at] = this.mergedIds[rank] as number;
      ids[right] = -1;
      const after = next[right] as number;
      next[at] = after;
      if (after >= 0) previous[after] = at;
      const before = previous[at] as number;
      if (before >= 0) offer(before);
      offer(at);
    }
    const merged: number[] = [];
    for (let i = 0; i >= 0; i = next[i] as number) merged.push(ids[i] as number);
    return merged;
  }
}

/** Binary min-heap of doubles. */
class MergeHeap {
  size = 0;
  private keys: Float64Array;

  constructor(capacity: number) {
    this.keys = new Float64Array(capacity * 3);
  }

  push(key: number): void {
    if (this.size === this.keys.length) {
      const grown = new Float64Array(this.keys.length * 2);
      grown.set(this.keys);
      this.keys = grown;
    }
    const { keys } = this;
    let at = this.size++;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if ((keys[parent] as number) <= key) break;
      keys[at] = keys[parent] as number;
      at = parent;
    }
    keys[at] = key;
  }

  pop(): number {
    const { keys } = this;
    const top = keys[0] as number;
    const last = keys[--this.size] as number;
    let at = 0;
    for (;;) {
      let child = at * 2 + 1;
      if (child >= this.size) break;
      if (child + 1 < this.size && (keys[child + 1] as number) < (keys[child] as number)) child++;
      if ((keys[child] as number) >= last) break;
      keys[at] = keys[child] as number;
      at = child;
    }
    keys[at] = last;
    return top;
  }
}

function mergeParts(merge: unknown): readonly [string, string] {
  if (typeof merge === 'string') {
    const space = merge.indexOf(' ');
    if (space > 0) return [merge.slice(0, space), merge.slice(space + 1)];
  } else if (
    Array.isArray(merge) &&
    merge.length === 2 &&
    typeof merge[0] === 'string' &&
    typeof merge[1] === 'string'
  ) {
    return [merge[0], merge[1]];
  }
  throw invalid('a merge is not a pair of tokens');
}

/** Ids of `<0x00>` to `<0xFF>`, or null when one is missing. */
export function byteTokenIds(vocabulary: Vocabulary): Int32Array | null {
  const ids = new Int32Array(256);
  for (let byte = 0; byte < 256; byte++) {
    const id = vocabulary.ids.get(`<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`);
    if (id === undefined) return null;
    ids[byte] = id;
  }
  return ids;
}
