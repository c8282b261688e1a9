import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { loadTokenizer } from './load_tokenizer.ts';

interface Golden {
  readonly vocab: number;
  readonly cases: readonly {
    readonly text: string;
    readonly ids: number[];
    readonly ids_with_special: number[];
    readonly tokens: string[];
    readonly decoded: string;
    readonly decoded_skip_special: string;
  }[];
  readonly stream?: { readonly ids: number[]; readonly prefixes: string[] };
}

const FOLDER = new URL('./testdata/', import.meta.url).pathname;

describe.each(['tokenizer', 'tokenizer_spm', 'tokenizer_unigram', 'tokenizer_wordpiece'])('%s', async (name) => {
  const golden = JSON.parse(readFileSync(`${FOLDER}${name}/golden.json`, 'utf8')) as Golden;
  const tokenizer = await loadTokenizer(FOLDER + name);

  test('vocabulary size', () => expect(tokenizer.vocabSize).toBe(golden.vocab));

  test.each(golden.cases)('$text', ({ text, ids, ids_with_special, tokens, decoded, decoded_skip_special }) => {
    expect([...tokenizer.encode(text, { addSpecialTokens: false })]).toEqual(ids);
    expect([...tokenizer.encode(text, { addSpecialTokens: true })]).toEqual(ids_with_special);
    // The library shows an unknown token as the text it stands for.
    const known = (_: unknown, i: number): boolean => tokenizer.idToToken(ids[i] as number) !== '<unk>';
    expect(ids.map((id) => tokenizer.idToToken(id)).filter(known)).toEqual(tokens.filter(known));
    expect(tokenizer.decode(ids, { skipSpecialTokens: false })).toBe(decoded);
    expect(tokenizer.decode(ids_with_special, { skipSpecialTokens: true })).toBe(decoded_skip_special);
  });

  test.runIf(golden.stream)('prefixes of a stream', () => {
    const { ids, prefixes } = golden.stream as NonNullable<Golden['stream']>;
    expect(ids.map((_, i) => tokenizer.decode(ids.slice(0, i + 1), { skipSpecialTokens: false }))).toEqual(prefixes);
  });
});
