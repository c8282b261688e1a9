import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { loadTokenizer } from './load_tokenizer.ts';
import { checkVocabulary, JsonTokenizer } from './tokenizer_json.ts';

const TESTDATA = new URL('./testdata/', import.meta.url).pathname;
const FOLDERS = [
  `${TESTDATA}tokenizer`,
  `${TESTDATA}tokenizer_spm`,
  `${TESTDATA}tokenizer_unigram`,
  `${TESTDATA}tokenizer_wordpiece`,
  new URL('../../models/tokenmill-tiny', import.meta.url).pathname,
];

describe.each(FOLDERS)('%s', async (folder) => {
  const tokenizer = await loadTokenizer(folder);
  const anyIds = fc.array(fc.nat(tokenizer.vocabSize + 5), { maxLength: 40 });
  const chunked = (ids: number[], sizes: number[]): number[][] => {
    const chunks: number[][] = [];
    for (let at = 0, i = 0; at < ids.length; i++) {
      const size = sizes[i % sizes.length] as number;
      chunks.push(ids.slice(at, at + size));
      at += size;
    }
    return chunks;
  };
  const sizes = fc.array(fc.integer({ min: 1, max: 5 }), { minLength: 1, maxLength: 8 });

  test('pieces joined are the whole, for any ids in any chunks', () => {
    fc.assert(
      fc.property(anyIds, sizes, fc.boolean(), (ids, parts, skipSpecialTokens) => {
        const detokenizer = tokenizer.createDetokenizer({ skipSpecialTokens });
        const pieces = chunked(ids, parts).map((chunk) => detokenizer.push(chunk));
        expect(pieces.join('') + detokenizer.flush()).toBe(tokenizer.decode(ids, { skipSpecialTokens }));
      }),
      { seed: 7, numRuns: 500 },
    );
  });

  test('encoded text streams without half characters', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme', maxLength: 60 }), sizes, (text, parts) => {
        const ids = [...tokenizer.encode(text, { addSpecialTokens: false })];
        const detokenizer = tokenizer.createDetokenizer({ skipSpecialTokens: false });
        const pieces = chunked(ids, parts).map((chunk) => detokenizer.push(chunk));
        const whole = tokenizer.decode(ids, { skipSpecialTokens: false });
        expect(pieces.join('') + detokenizer.flush()).toBe(whole);
        for (const piece of pieces) {
          if (!whole.includes('\ufffd')) expect(piece).not.toContain('\ufffd');
          expect(piece).not.toMatch(/^\p{Cs}|\p{Cs}$/u);
        }
      }),
      { seed: 8, numRuns: 500 },
    );
  });

  test('any string can be encoded, lone surrogates as U+FFFD', () => {
    fc.assert(
      fc.property(
        fc.string({ unit: fc.nat(0xffff).map((code) => String.fromCharCode(code)), maxLength: 40 }),
        (text) => {
          const valid = text.replace(/\p{Cs}/gu, '\ufffd');
          const options = { addSpecialTokens: true };
          expect(tokenizer.encode(text, options)).toEqual(tokenizer.encode(valid, options));
        },
      ),
      { seed: 9, numRuns: 300 },
    );
  });

  test('bytes of the tokens are the bytes of the text, after a first token', () => {
    const ids = [...tokenizer.encode('The quick fox; jumps over 12 dogs', { addSpecialTokens: false })];
    const head = tokenizer.decode(ids.slice(0, 1), { skipSpecialTokens: false });
    const rest = Buffer.concat(ids.slice(1).map((id) => tokenizer.tokenBytes(id))).toString();
    expect(head + rest).toBe(tokenizer.decode(ids, { skipSpecialTokens: false }));
  });

  test('a megabyte without spaces is no attack', () => {
    for (const unit of ['ab', '🎉', ' ']) {
      const text = unit.repeat(2 ** 20 / unit.length);
      const ids = tokenizer.encode(text, { addSpecialTokens: false });
      expect(ids.every((id) => id >= 0 && id < tokenizer.vocabSize)).toBe(true);
    }
  }, 30_000);
});

test('the prompt decides whether the first token keeps its space', async () => {
  const tokenizer = await loadTokenizer(`${TESTDATA}tokenizer_spm`);
  const ids = tokenizer.encode('the cat', { addSpecialTokens: false });
  const text = (promptTail?: ArrayLike<number>): string => {
    const detokenizer = tokenizer.createDetokenizer({ skipSpecialTokens: true, ...(promptTail ? { promptTail } : {}) });
    return detokenizer.push(ids) + detokenizer.flush();
  };
  expect(text()).toBe('the cat');
  expect(text(ids)).toBe(' the cat');
});

test('a character that the prompt began is finished by the first tokens', async () => {
  const tokenizer = await loadTokenizer(`${TESTDATA}tokenizer`);
  const ids = tokenizer.encode('👍', { addSpecialTokens: false });
  expect(ids.length).toBeGreaterThan(1);
  const detokenizer = tokenizer.createDetokenizer({ skipSpecialTokens: true, promptTail: ids.slice(0, 1) });
  expect(detokenizer.push(ids.slice(1)) + detokenizer.flush()).toBe('👍');
});

describe('hostile files', () => {
  const model = { type: 'BPE', vocab: { a: 0, b: 1, ab: 2 }, merges: ['a b'] };
  const bad: readonly (readonly [string, unknown])[] = [
    ['no model', {}],
    ['a list for a model', { model: [] }],
    ['an unknown model', { model: { type: 'Nope' } }],
    ['an id that is not a number', { model: { ...model, vocab: { a: 'x' } } }],
    ['an id of gigabytes', { model: { ...model, vocab: { a: 1e9 } } }],
    ['a negative id', { model: { ...model, vocab: { a: -1 } } }],
    ['a merge that is not in the vocabulary', { model: { ...model, merges: ['a c'] } }],
    ['a merge that is no pair', { model: { ...model, merges: ['ab'] } }],
    ['an unknown normalizer', { model, normalizer: { type: 'Nope' } }],
    ['an unknown pre-tokenizer', { model, pre_tokenizer: { type: 'Nope' } }],
    ['an unknown decoder', { model, decoder: { type: 'Nope' } }],
    [
      'an exponential pattern',
      { model, pre_tokenizer: { type: 'Split', pattern: { Regex: '(a+)+b' }, behavior: 'Isolated' } },
    ],
    [
      'an exponential choice',
      { model, pre_tokenizer: { type: 'Split', pattern: { Regex: '(?:a|a)*b' }, behavior: 'Isolated' } },
    ],
    [
      'a pattern that is none',
      { model, pre_tokenizer: { type: 'Split', pattern: { Regex: '(' }, behavior: 'Isolated' } },
    ],
    ['an added token without content', { model, added_tokens: [{ id: 3 }] }],
    [
      'a template with an unknown token',
      {
        model,
        post_processor: { type: 'TemplateProcessing', single: [{ SpecialToken: { id: 'x' } }], special_tokens: {} },
      },
    ],
  ];
  test.each(bad)('%s', (_name, spec) => {
    expect(() => new JsonTokenizer(spec as Record<string, unknown>, {})).toThrow(
      expect.objectContaining({ code: 'tokenizer_invalid' }),
    );
  });

  test('a vocabulary that does not fit the model', () => {
    const tokenizer = new JsonTokenizer({ model }, {});
    expect(() => checkVocabulary(tokenizer, 2)).toThrow(expect.objectContaining({ code: 'tokenizer_invalid' }));
    expect(() => checkVocabulary(tokenizer, 3)).not.toThrow();
  });

  test('add_bos_token and add_eos_token of the configuration', () => {
    const config = { bos_token: 'a', eos_token: { content: 'b' }, add_bos_token: true, add_eos_token: true };
    expect([...new JsonTokenizer({ model }, config).encode('ab', { addSpecialTokens: true })]).toEqual([0, 2, 1]);
  });
});
