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
  const spec = asSpec(value, 'model.vocab');
  const ids = new Map<string, number>();
  // Not Object.entries: of a vocabulary's size its pairs take longer to make than all the rest.
  for (const token of Object.keys(spec)) ids.set(token, asId(spec[token], 'an id of model.vocab'));
  return { ids };
}
