import { asCount, asString, invalid, type Spec } from './spec.ts';
import { readVocabulary, type TokenModel, type Vocabulary } from './vocabulary.ts';

function unknownId(spec: Spec, vocabulary: Vocabulary): number {
  const token = asString(spec['unk_token'], 'model.unk_token');
  const id = vocabulary.ids.get(token);
  if (id === undefined) throw invalid(`the unknown token ${JSON.stringify(token)} is not in the vocabulary`);
  return id;
}

/** BERT's WordPiece: the longest prefix in the vocabulary, again and again; a word that does not work out is unknown. */
export class WordPieceModel implements TokenModel {
  readonly vocabulary: Vocabulary;
  private readonly unkId: number;
  private readonly prefix: string;
  private readonly maxChars: number;

  constructor(spec: Spec) {
    this.vocabulary = readVocabulary(spec['vocab']);
    this.unkId = unknownId(spec, this.vocabulary);
    this.prefix = asString(spec['continuing_subword_prefix'] ?? '##', 'continuing_subword_prefix');
    this.maxChars = asCount(spec['max_input_chars_per_word'], 100, 1000, 'max_input_chars_per_word');
  }

  encode(word: string, out: number[]): void {
    // Twice the limit in UTF-16 units is beyond it in characters; counting first would be slow for long words.
    if (word.length > this.maxChars * 2 || Array.from(word).length > this.maxChars) {
      out.push(this.unkId);
      return;
    }
    const chars = Array.from(word);
    const ids: number[] = [];
    for (let start = 0; start < chars.length; ) {
      let end = chars.length;
      let id: number | undefined;
      for (; end > start; end--) {
        id = this.vocabulary.ids.get((start > 0 ? this.prefix : '') + chars.slice(start, end).join(''));
        if (id !== undefined) break;
      }
      if (id === undefined) {
        out.push(this.unkId);
        return;
      }
      ids.push(id);
      start = end;
    }
    for (const id of ids) out.push(id);
  }
}

/** Whole words only. */
export class WordLevelModel implements TokenModel {
  readonly vocabulary: Vocabulary;
  private readonly unkId: number;

  constructor(spec: Spec) {
    this.vocabulary = readVocabulary(spec['vocab']);
    this.unkId = unknownId(spec, this.vocabulary);
  }

  encode(word: string, out: number[]): void {
    out.push(this.vocabulary.ids.get(word) ?? this.unkId);
  }
}
