import { byteTokenIds } from './bpe.ts';
import { Trie } from './pair_table.ts';
import { asArray, asBoolean, asCount, invalid, MAX_TOKEN_ID, type Spec } from './spec.ts';
import type { TokenModel, Vocabulary } from './vocabulary.ts';

/** What an unknown character costs more than the worst token. */
const UNKNOWN_PENALTY = 10;

/**
 * Unigram language model: the segmentation with the highest sum of log probabilities (Viterbi), over the text from
 * left to right, where every start looks as far as the longest token that matches.
 * Source: Kudo, "Subword Regularization", 2018.
 */
export class UnigramModel implements TokenModel {
  readonly vocabulary: Vocabulary;
  private readonly trie = new Trie();
  private readonly scores: readonly number[];
  private readonly unkId: number;
  private readonly unkScore: number;
  private readonly byteIds: Int32Array | null;

  constructor(spec: Spec) {
    const entries = asArray(spec['vocab'], 'model.vocab').map(readEntry);
    if (entries.length > MAX_TOKEN_ID) throw invalid('model.vocab is too long');
    const ids = new Map<string, number>();
    for (const [id, [token]] of entries.entries()) {
      ids.set(token, id);
      if (token !== '') this.trie.add(token, id);
    }
    this.vocabulary = { ids };
    this.scores = entries.map(([, score]) => score);
    this.unkId =
      spec['unk_id'] === null || spec['unk_id'] === undefined
        ? -1
        : asCount(spec['unk_id'], 0, entries.length - 1, 'unk_id');
    this.unkScore = this.scores.reduce((a, b) => Math.min(a, b), Number.POSITIVE_INFINITY) - UNKNOWN_PENALTY;
    this.byteIds = asBoolean(spec['byte_fallback'], false, 'byte_fallback') ? byteTokenIds(this.vocabulary) : null;
  }

  encode(word: string, out: number[]): void {
    let unknown = '';
    const flush = (): void => {
      if (unknown !== '') this.unknown(unknown, out);
      unknown = '';
    };
    for (const [start, end, id] of this.bestPath(word)) {
      if (id < 0) {
        unknown += word.slice(start, end);
      } else {
        flush();
        out.push(id);
      }
    }
    flush();
  }

  /** A run of unknown characters is one token, or bytes where the vocabulary has them. */
  private unknown(text: string, out: number[]): void {
    const known = this.vocabulary.ids.get(text);
    if (known !== undefined) out.push(known);
    else if (this.byteIds) for (const byte of Buffer.from(text)) out.push(this.byteIds[byte] as number);
    else if (this.unkId >= 0) out.push(this.unkId);
    else throw invalid('the text has characters that the vocabulary lacks, and there is no unk_id');
  }

  private bestPath(word: string): (readonly [number, number, number])[] {
    const best = new Float64Array(word.length + 1).fill(Number.NEGATIVE_INFINITY);
    const from = new Int32Array(word.length + 1).fill(-1);
    const token = new Int32Array(word.length + 1).fill(-1);
    best[0] = 0;
    for (let start = 0; start < word.length; ) {
      const width = (word.codePointAt(start) as number) > 0xffff ? 2 : 1;
      const base = best[start] as number;
      let single = false;
      let node = 0;
      for (let end = start; end < word.length; ) {
        node = this.trie.step(node, word.charCodeAt(end++));
        if (node < 0) break;
        const id = this.trie.valueAt(node);
        if (id < 0) continue;
        const score = base + (this.scores[id] as number);
        if (from[end] === -1 || score > (best[end] as number)) {
          best[end] = score;
          from[end] = start;
          token[end] = id;
        }
        single ||= end === start + width;
      }
      const end = start + width;
      if (!single && (from[end] === -1 || base + this.unkScore > (best[end] as number))) {
        best[end] = base + this.unkScore;
        from[end] = start;
        token[end] = -1;
      }
      start = end;
    }
    const path: (readonly [number, number, number])[] = [];
    for (let end = word.length; end > 0; end = from[end] as number) {
      const id = token[end] as number;
      path.push([from[end] as number, end, id === this.unkId ? -1 : id]);
    }
    return path.reverse();
  }
}

function readEntry(entry: unknown): readonly [string, number] {
  if (Array.isArray(entry) && typeof entry[0] === 'string' && typeof entry[1] === 'number') return [entry[0], entry[1]];
  throw invalid('an entry of model.vocab is not a token with its score');
}
