import { readFileSync } from 'node:fs';
import { Tokenizer as NativeTokenizer } from 'tokenizers';
import { describe, expect, test } from 'vitest';
import { Rng } from '../base/rng.ts';
import { loadTokenizer } from './load_tokenizer.ts';
import { JsonTokenizer } from './tokenizer_json.ts';

/** Id for id against the Rust library, on random text of many kinds and on variants of the pipeline. */
const TESTDATA = new URL('./testdata/', import.meta.url).pathname;
const FOLDERS = {
  byte_level: `${TESTDATA}tokenizer`,
  sentencepiece: `${TESTDATA}tokenizer_spm`,
  unigram: `${TESTDATA}tokenizer_unigram`,
  wordpiece: `${TESTDATA}tokenizer_wordpiece`,
  embedded: new URL('../../models/tokenmill-tiny', import.meta.url).pathname,
};
const SEED = 20260101;

const ALPHABETS = [
  'abcdefghijklmnopqrstuvwxyz      ',
  "The '' s't're ve M LL d'S 'ſ ",
  ' \t\n\r\n  \u00a0\u3000\u2003\u0085\u200b\ufeff',
  '0123456789٣½Ⅷ²,. ',
  '!?.,;:-_()[]{}<>|/\\"\'`~@#$%^&*+= ',
  'éèñüßİıǅ한국어テキスト機械学習हिन्दीالعربيةไทย',
  '👍👩\u200d👧🇫🇷e\u0301\u20dd𝒳𐍈',
  '\u0000\u0001\u001f\u007f\ufffd\u2581\u0120<0x41>',
  '<|im_start|><s></s><unk>[CLS]##<tool_call>',
];

function randomText(rng: Rng): string {
  let text = '';
  for (let run = rng.int(1, 8); run > 0; run--) {
    const chars = Array.from(rng.pick(ALPHABETS));
    for (let i = rng.int(1, 12); i > 0; i--) text += rng.next() < 0.02 ? randomChar(rng) : rng.pick(chars);
  }
  return text + (rng.next() < 0.2 ? rng.pick(['<|im_end|>', '<s>', ' </s> ', '[SEP]', '<unk>']) : '');
}

function randomChar(rng: Rng): string {
  for (;;) {
    const code = rng.int(0, rng.next() < 0.7 ? 0xffff : 0x10ffff);
    // The library's tables of marks, punctuation and format characters are older than Node's.
    const char = String.fromCodePoint(code);
    if ((code < 0xd800 || code > 0xdfff) && /[\p{L}\p{N}\p{S}\p{Z}]/u.test(char)) return char;
  }
}

describe.each(Object.entries(FOLDERS))('%s', async (_name, folder) => {
  const ours = await loadTokenizer(folder);
  const native = NativeTokenizer.fromFile(`${folder}/tokenizer.json`);

  test('random text has the same ids', async () => {
    const rng = new Rng(SEED);
    for (let i = 0; i < 3000; i++) {
      const text = randomText(rng);
      const want = (await native.encode(text, null, { addSpecialTokens: true })).getIds();
      expect([...ours.encode(text, { addSpecialTokens: true })], `seed ${SEED}, text ${JSON.stringify(text)}`).toEqual(
        want,
      );
    }
  });

  test('random ids have the same text', async () => {
    const rng = new Rng(SEED + 1);
    for (let i = 0; i < 2000; i++) {
      const ids = Array.from({ length: rng.int(1, 20) }, () => rng.int(0, ours.vocabSize - 1));
      const skip = rng.next() < 0.5;
      const want = await native.decode(ids, skip);
      expect(ours.decode(ids, { skipSpecialTokens: skip }), `seed ${SEED}, ids ${ids.join(' ')}`).toBe(want);
    }
  });
});

type Json = Record<string, unknown>;

/** Parts put into the byte-level file, each with what the library makes of it. */
const VARIANTS: readonly (readonly [string, Json])[] = [
  [
    'GPT-2 splitting',
    { pre_tokenizer: { type: 'ByteLevel', add_prefix_space: true, trim_offsets: true, use_regex: true } },
  ],
  [
    'a pattern without a scanner',
    {
      pre_tokenizer: splitAnd(
        "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
      ),
    },
  ],
  [
    'digits one by one',
    { pre_tokenizer: { type: 'Sequence', pretokenizers: [{ type: 'Digits', individual_digits: true }, byteLevel()] } },
  ],
  ['merged with previous', { pre_tokenizer: splitAnd('[a-e]+', 'MergedWithPrevious') }],
  ['merged with next', { pre_tokenizer: splitAnd('[a-e ]', 'MergedWithNext') }],
  ['contiguous', { pre_tokenizer: splitAnd('[a-e]', 'Contiguous') }],
  ['removed', { pre_tokenizer: splitAnd('\\s+', 'Removed') }],
  [
    'words and punctuation',
    {
      pre_tokenizer: {
        type: 'Sequence',
        pretokenizers: [{ type: 'Whitespace' }, { type: 'Punctuation', behavior: 'Isolated' }, byteLevel()],
      },
    },
  ],
  ['NFC and lower case', { normalizer: { type: 'Sequence', normalizers: [{ type: 'NFC' }, { type: 'Lowercase' }] } }],
  [
    'added tokens that strip',
    {
      added_tokens: [
        added(1, '<s>', { lstrip: true }),
        added(2, '</s>', { rstrip: true }),
        added(3, 'the', { single_word: true }),
        added(4, 'M', { normalized: true, special: false, lstrip: true, rstrip: true }),
      ],
    },
  ],
];

function byteLevel(): Json {
  return { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false };
}

function splitAnd(pattern: string, behavior = 'Isolated'): Json {
  const split = { type: 'Split', pattern: { Regex: pattern }, behavior, invert: false };
  return { type: 'Sequence', pretokenizers: [split, byteLevel()] };
}

function added(id: number, content: string, flags: Json): Json {
  return { id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true, ...flags };
}

test.each(VARIANTS)('%s', async (_name, change) => {
  const spec = { ...(JSON.parse(readFileSync(`${TESTDATA}tokenizer/tokenizer.json`, 'utf8')) as Json), ...change };
  const ours = new JsonTokenizer(spec, {});
  const native = NativeTokenizer.fromString(JSON.stringify(spec));
  const rng = new Rng(SEED + 2);
  for (let i = 0; i < 600; i++) {
    const text = randomText(rng);
    const want = (await native.encode(text, null, { addSpecialTokens: false })).getIds();
    expect([...ours.encode(text, { addSpecialTokens: false })], `seed ${SEED}, text ${JSON.stringify(text)}`).toEqual(
      want,
    );
  }
});
