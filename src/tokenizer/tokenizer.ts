/** What the rest of the house knows of a tokenizer. Implementations: `tokenizer_json.ts`; made by `loadTokenizer`. */

export interface EncodeOptions {
  /** Run the post-processor (BOS and friends). */
  readonly addSpecialTokens: boolean;
}

export interface DecodeOptions {
  readonly skipSpecialTokens: boolean;
}

export interface Tokenizer {
  /** Number of ids, added tokens included. */
  readonly vocabSize: number;
  readonly bosTokenId: number | null;
  readonly eosTokenId: number | null;
  /** Special added tokens, which `skipSpecialTokens` leaves out. */
  readonly specialTokenIds: ReadonlySet<number>;
  encode(text: string, options: EncodeOptions): Int32Array;
  decode(ids: ArrayLike<number>, options: DecodeOptions): string;
  /** The token as the vocabulary spells it (`Ġhello`), for `/tokenize` with return_token_strs. */
  idToToken(id: number): string | null;
  tokenToId(token: string): number | null;
  /** The bytes a token stands for when decoded in the middle of a text. */
  tokenBytes(id: number): Uint8Array;
  createDetokenizer(options: DetokenizerOptions): IncrementalDetokenizer;
}

export interface DetokenizerOptions {
  readonly skipSpecialTokens: boolean;
  /** Context before the first pushed token, so that leading spaces come out right; usually the prompt's last ids. */
  readonly promptTail?: ArrayLike<number>;
}

/** Turns a stream of ids into a stream of text; joined pieces equal `decode` of all; never half a character. */
export interface IncrementalDetokenizer {
  /** Text that became certain with these ids; may be empty while a character is incomplete. */
  push(ids: ArrayLike<number>): string;
  /** What is left at the end (an incomplete character becomes U+FFFD). */
  flush(): string;
}

export interface ChatMessage {
  readonly role: string;
  readonly content?: unknown;
  readonly [key: string]: unknown;
}

export interface ChatTemplateOptions {
  readonly addGenerationPrompt: boolean;
  readonly continueFinalMessage?: boolean;
  readonly tools?: readonly unknown[];
  readonly documents?: readonly unknown[];
  /** Extra template variables (`enable_thinking` ...). */
  readonly kwargs?: Readonly<Record<string, unknown>>;
}

/** A checkpoint's chat template; rendering has step and output limits and throws `template_error`. */
export interface ChatTemplate {
  render(messages: readonly ChatMessage[], options: ChatTemplateOptions): string;
}
