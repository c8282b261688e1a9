/**
 * A byte-level BPE tokenizer of any vocabulary size: the 256 bytes, merges that build English-looking pairs and triples, and
 * filler tokens that text never makes. Enough for benchmarks to send and receive real text.
 */
import { assert } from '../base/assert.ts';

export interface RandomTokenizer {
  /** tokenizer.json */
  readonly json: unknown;
  /** tokenizer_config.json */
  readonly config: unknown;
}

const SPECIAL = ['<|bos|>', '<|eos|>'];
const SPACE = 'Ġ';

/** `vocabSize` at least 258: the bytes and two control tokens (ids 0 = beginning, 1 = end). */
export function randomTokenizer(vocabSize: number): RandomTokenizer {
  const tokens = [...SPECIAL, ...byteAlphabet()];
  assert(vocabSize >= tokens.length, `a byte-level vocabulary has at least ${tokens.length} tokens`);
  const merges: [string, string][] = [];
  const letters = [...'etaoinshrdlucmfwypvbgk'];
  const add = (left: string, right: string) => {
    if (tokens.length >= vocabSize || seen.has(left + right)) return;
    seen.add(left + right);
    merges.push([left, right]);
    tokens.push(left + right);
  };
  const seen = new Set(tokens);
  for (const letter of letters) add(SPACE, letter);
  for (const first of letters) for (const second of letters) add(first, second);
  for (const first of letters) for (const second of letters) add(SPACE + first, second);
  while (tokens.length < vocabSize) tokens.push(`<|filler_${tokens.length}|>`);
  const vocab = Object.fromEntries(tokens.map((token, id) => [token, id]));
  const byteLevel = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true };
  const json = {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: SPECIAL.map((content, id) => ({
      id,
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: true,
    })),
    normalizer: null,
    pre_tokenizer: byteLevel,
    post_processor: null,
    decoder: byteLevel,
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab,
      merges: merges.map((pair) => pair.join(' ')),
    },
  };
  const config = {
    tokenizer_class: 'PreTrainedTokenizerFast',
    bos_token: SPECIAL[0],
    eos_token: SPECIAL[1],
    clean_up_tokenization_spaces: false,
    chat_template:
      "{% for message in messages %}{{ message.role + ': ' + message.content + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}",
  };
  return { json, config };
}

/** GPT-2's printable stand-ins for the 256 bytes, in byte order. */
function byteAlphabet(): string[] {
  const printable = (byte: number) =>
    (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || (byte >= 0xae && byte <= 0xff);
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => String.fromCodePoint(printable(byte) ? byte : next++));
}
