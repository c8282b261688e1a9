import { TokenmillError } from '../base/errors.ts';
import { type AddedToken, AddedTokenFinder, readAddedTokens } from './added_tokens.ts';
import { BpeModel } from './bpe.ts';
import { charsToBytes } from './byte_level.ts';
import { byteOfToken, type DecoderPlan, type DecoderStage, readDecoder } from './decoders.ts';
import { type Normalizer, readNormalizer } from './normalizers.ts';
import { readPostProcessor, type SpecialAffixes, withConfig } from './post_processor.ts';
import { type PreTokenizer, readPreTokenizer } from './pre_tokenizers.ts';
import { asSpec, asSpecOrNull, invalid, type Spec, unsupported } from './spec.ts';
import type {
  DecodeOptions,
  DetokenizerOptions,
  EncodeOptions,
  IncrementalDetokenizer,
  Tokenizer,
} from './tokenizer.ts';
import { tokenContent } from './tokenizer_config.ts';
import { UnigramModel } from './unigram.ts';
import type { TokenModel } from './vocabulary.ts';
import { WordLevelModel, WordPieceModel } from './word_models.ts';

/**
 * The pipeline of a tokenizer.json: added tokens, normalizer, pre-tokenizer, model, post-processor, and back. Gives the
 * ids of the `tokenizers` library. Time is linear in the text, or n log n for BPE over long words; see
 * `pre_tokenizers.ts` for the limit on unknown split patterns.
 * @throws TokenmillError `tokenizer_invalid` from the constructor.
 */
export class JsonTokenizer implements Tokenizer {
  readonly vocabSize: number;
  readonly bosTokenId: number | null;
  readonly eosTokenId: number | null;
  readonly specialTokenIds: ReadonlySet<number>;
  private readonly model: TokenModel;
  private readonly normalize: Normalizer;
  private readonly preTokenize: PreTokenizer;
  private readonly affixes: SpecialAffixes;
  private readonly decoder: DecoderPlan;
  private readonly rawFinder: AddedTokenFinder;
  private readonly normalizedFinder: AddedTokenFinder;
  private readonly tokens: (string | undefined)[] = [];
  private readonly addedIds: ReadonlyMap<string, number>;
  private readonly bytes: (Uint8Array | undefined)[] = [];

  /**
   * @param tokenizer tokenizer.json.
   * @param config tokenizer_config.json, with what special_tokens_map.json says beside it.
   */
  constructor(tokenizer: Spec, config: Spec) {
    this.model = readModel(asSpec(tokenizer['model'], 'model'));
    this.normalize = readNormalizer(asSpecOrNull(tokenizer['normalizer'], 'normalizer'));
    this.preTokenize = readPreTokenizer(asSpecOrNull(tokenizer['pre_tokenizer'], 'pre_tokenizer'));
    this.decoder = readDecoder(asSpecOrNull(tokenizer['decoder'], 'decoder'));
    const added = readAddedTokens(tokenizer, config, this.model.vocabulary.ids);
    for (const [token, id] of this.model.vocabulary.ids) this.tokens[id] = token;
    for (const { id, content } of added) this.tokens[id] = content;
    this.vocabSize = this.tokens.length;
    this.addedIds = new Map(added.map(({ content, id }) => [content, id]));
    this.specialTokenIds = new Set(added.filter((token) => token.special).map(({ id }) => id));
    const of = (normalized: boolean): AddedToken[] => added.filter((token) => token.normalized === normalized);
    this.rawFinder = new AddedTokenFinder(of(false), (content) => content);
    this.normalizedFinder = new AddedTokenFinder(of(true), this.normalize);
    this.bosTokenId = this.tokenToId(tokenContent(config['bos_token']));
    this.eosTokenId = this.tokenToId(tokenContent(config['eos_token']));
    const affixes = readPostProcessor(asSpecOrNull(tokenizer['post_processor'], 'post_processor'));
    this.affixes = withConfig(affixes, config, this.bosTokenId, this.eosTokenId);
  }

  encode(text: string, options: EncodeOptions): Int32Array {
    const ids: number[] = options.addSpecialTokens ? [...this.affixes.before] : [];
    // A lone surrogate has no UTF-8; encoders write U+FFFD for it.
    const valid = text.replace(/\p{Cs}/gu, '\ufffd');
    for (const part of this.rawFinder.split(valid)) {
      if ('id' in part) ids.push(part.id);
      else this.encodeStretch(part.text, part.start === 0, ids);
    }
    if (options.addSpecialTokens) ids.push(...this.affixes.after);
    return Int32Array.from(ids);
  }

  private encodeStretch(text: string, isFirst: boolean, ids: number[]): void {
    for (const part of this.normalizedFinder.split(this.normalize(text))) {
      if ('id' in part) ids.push(part.id);
      else
        for (const word of this.preTokenize(part.text, isFirst && part.start === 0))
          if (word !== '') this.model.encode(word, ids);
    }
  }

  decode(ids: ArrayLike<number>, options: DecodeOptions): string {
    const detokenizer = this.createDetokenizer(options);
    return detokenizer.push(ids) + detokenizer.flush();
  }

  idToToken(id: number): string | null {
    return this.tokens[id] ?? null;
  }

  tokenToId(token: string | null): number | null {
    if (token === null) return null;
    return this.addedIds.get(token) ?? this.model.vocabulary.ids.get(token) ?? null;
  }

  /** Empty for ids that the vocabulary does not have: models are often padded beyond it. */
  tokenBytes(id: number): Uint8Array {
    const known = this.bytes[id];
    if (known) return known;
    const bytes = this.computeBytes(this.tokens[id]);
    if (id >= 0 && id < this.vocabSize) this.bytes[id] = bytes;
    return bytes;
  }

  private computeBytes(token: string | undefined): Uint8Array {
    if (token === undefined) return new Uint8Array(0);
    if (this.decoder.isByteLevel) return charsToBytes(token);
    const byte = this.decoder.hasByteFallback ? byteOfToken(token) : null;
    if (byte !== null) return Uint8Array.of(byte);
    const run = new DecoderRun(this.decoder.make());
    const before = run.push('x');
    const after = run.push(token) + run.end();
    return Buffer.from((before + after).slice(1));
  }

  createDetokenizer(options: DetokenizerOptions): IncrementalDetokenizer {
    const run = new DecoderRun(this.decoder.make());
    const push = (ids: ArrayLike<number>): string => {
      let text = '';
      for (let i = 0; i < ids.length; i++) {
        const id = ids[i] as number;
        const token = this.tokens[id];
        if (token === undefined || (options.skipSpecialTokens && this.specialTokenIds.has(id))) continue;
        text += run.push(token);
      }
      return text;
    };
    push(options.promptTail ?? []);
    return { push, flush: () => run.end() };
  }
}

/** The decoder stages of one text, one feeding the next. */
class DecoderRun {
  private readonly stages: readonly DecoderStage[];
  private text = '';

  constructor(stages: readonly DecoderStage[]) {
    this.stages = stages;
  }

  push(token: string): string {
    this.feed(0, token);
    return this.take();
  }

  end(): string {
    for (const [i, stage] of this.stages.entries()) stage.end((text) => this.feed(i + 1, text));
    return this.take();
  }

  private feed(stage: number, token: string): void {
    const next = this.stages[stage];
    if (next) next.push(token, (text) => this.feed(stage + 1, text));
    else this.text += token;
  }

  private take(): string {
    const { text } = this;
    this.text = '';
    return text;
  }
}

function readModel(spec: Spec): TokenModel {
  const type = spec['type'] ?? guessModel(spec);
  if (type === 'BPE') return new BpeModel(spec);
  if (type === 'Unigram') return new UnigramModel(spec);
  if (type === 'WordPiece') return new WordPieceModel(spec);
  if (type === 'WordLevel') return new WordLevelModel(spec);
  throw unsupported(`the model type ${JSON.stringify(type)}`);
}

/** Old files leave the type out. */
function guessModel(spec: Spec): string {
  if (spec['merges'] !== undefined) return 'BPE';
  if (Array.isArray(spec['vocab'])) return 'Unigram';
  if (spec['max_input_chars_per_word'] !== undefined) return 'WordPiece';
  throw invalid('the model has no type');
}

/**
 * Whether every id of the tokenizer has a row in the embedding.
 * @throws TokenmillError `tokenizer_invalid`.
 */
export function checkVocabulary(tokenizer: Tokenizer, modelVocabSize: number): void {
  if (tokenizer.vocabSize <= modelVocabSize) return;
  throw new TokenmillError(
    'tokenizer_invalid',
    `The tokenizer has ids up to ${tokenizer.vocabSize - 1}, but the model has only ${modelVocabSize} embeddings.`,
    { remedy: 'The tokenizer belongs to another model; download both from the same repository and revision.' },
  );
}
