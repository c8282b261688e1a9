import { asId, asSpec } from './spec.ts';

export interface Vocabulary {
  readonly ids: ReadonlyMap<string, number>;
}

/** The subword model: one pre-tokenized word to ids. */
export interface TokenModel {
  readonly vocabulary: Vocabulary;
  /** Appends the ids of `word` to `out`. */
  encode(word: string, out: number[]): void;
}

/** `{"token": id, ...}` */
export function readVocabulary(value: unknown): Vocabulary {
  const ids = new Map<string, number>();
  for (const [token, id] of Object.entries(asSpec(value, 'model.vocab')))
    ids.set(token, asId(id, 'an id of model.vocab'));
  return { ids };
}
