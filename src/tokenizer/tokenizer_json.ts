import { Tokenizer as HfTokenizer } from '@huggingface/tokenizers';
import { TokenmillError } from '../base/errors.ts';
import type {
  DecodeOptions,
  DetokenizerOptions,
  EncodeOptions,
  IncrementalDetokenizer,
  Tokenizer,
} from './tokenizer.ts';
import { tokenContent } from './tokenizer_config.ts';

export class JsonTokenizer implements Tokenizer {
  readonly vocabSize: number;
  readonly bosTokenId: number | null;
  readonly eosTokenId: number | null;
  readonly specialTokenIds: ReadonlySet<number>;
  private readonly inner: HfTokenizer;
  private readonly bytes: Uint8Array[] = [];

  constructor(tokenizer: Record<string, unknown>, config: Record<string, unknown>) {
    this.inner = new HfTokenizer(tokenizer, { ...config, clean_up_tokenization_spaces: false });
    const special = new Set<number>();
    let max = 0;
    for (const [id, token] of this.inner.get_added_tokens_decoder()) if (token.special) special.add(id);
    for (const [, id] of this.inner.get_vocab(true)) max = Math.max(max, id + 1);
    this.vocabSize = max;
    this.specialTokenIds = special;
    this.bosTokenId = this.tokenToId(tokenContent(config['bos_token']));
    this.eosTokenId = this.tokenToId(tokenContent(config['eos_token']));
    const table = byteLevelTable();
    for (let id = 0; id < max; id++) {
      const token = this.inner.id_to_token(id) ?? '';
      const bytes = [...token].map((c) => table.get(c));
      this.bytes.push(
        bytes.every((b) => b !== undefined) ? Uint8Array.from(bytes as number[]) : new TextEncoder().encode(token),
      );
    }
  }

  encode(text: string, options: EncodeOptions): Int32Array {
    return Int32Array.from(
      this.inner.encode(text.replace(/\p{Surrogate}/gu, '\uFFFD'), { add_special_tokens: options.addSpecialTokens })
        .ids,
    );
  }

  decode(ids: ArrayLike<number>, options: DecodeOptions): string {
    const detokenizer = this.createDetokenizer(options);
    return detokenizer.push(ids) + detokenizer.flush();
  }

  idToToken(id: number): string | null {
    return this.inner.id_to_token(id) ?? null;
  }

  tokenToId(token: string | null): number | null {
    return token === null ? null : (this.inner.token_to_id(token) ?? null);
  }

  tokenBytes(id: number): Uint8Array {
    const bytes = this.bytes[id];
    if (bytes === undefined) throw new TokenmillError('invalid_request', `Token id ${id} is not in the vocabulary.`);
    return bytes;
  }

  createDetokenizer(options: DetokenizerOptions): IncrementalDetokenizer {
    const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
    const push = (ids: ArrayLike<number>): string => {
      let text = '';
      for (let i = 0; i < ids.length; i++) {
        const id = ids[i] as number;
        if (options.skipSpecialTokens && this.specialTokenIds.has(id)) continue;
        text += decoder.decode(this.tokenBytes(id), { stream: true });
      }
      return text;
    };
    push(options.promptTail ?? []);
    return { push, flush: () => decoder.decode() };
  }
}

function byteLevelTable(): Map<string, number> {
  const table = new Map<string, number>();
  let next = 256;
  for (let b = 0; b < 256; b++) {
    const printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
    table.set(String.fromCodePoint(printable ? b : next++), b);
  }
  return table;
}
