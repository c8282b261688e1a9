/** One choice of a request: engine outputs in, deltas of text out. Detokenizing, stop strings, logprobs as text. */
import type { FinishReason, RequestOutput, TokenLogprobs } from '../engine/types.ts';
import type { IncrementalDetokenizer, Tokenizer } from '../tokenizer/tokenizer.ts';
import type { GenerationDelta, LogprobEntry, TokenLogprob } from './async_llm.ts';
import type { TextSampling } from './sampling.ts';
import { StopStrings } from './stop_strings.ts';

/** Ids of the prompt's end given to the detokenizer as context: enough for any one character and its leading space. */
const PROMPT_TAIL = 8;

export interface ChoiceOptions {
  readonly index: number;
  readonly tokenizer: Tokenizer;
  readonly promptTokenIds: Int32Array;
  readonly text: TextSampling;
  /** Tokens of a delta; the first token goes at once. */
  readonly streamInterval: number;
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] };
type Delta = Mutable<Omit<GenerationDelta, 'tokenIds' | 'logprobs'>> & {
  tokenIds: number[];
  logprobs: TokenLogprob[] | null;
};

export class Choice {
  /** Set once the answer is complete, by the engine or by a stop string. */
  finishReason: FinishReason | null = null;
  private readonly options: ChoiceOptions;
  private readonly detokenizer: IncrementalDetokenizer | null;
  private readonly stops: StopStrings;
  private outputLength = 0;
  private sent = 0;
  private pending: Delta | null = null;

  constructor(options: ChoiceOptions) {
    this.options = options;
    const { text, tokenizer, promptTokenIds } = options;
    this.detokenizer = text.detokenize
      ? tokenizer.createDetokenizer({
          skipSpecialTokens: text.skipSpecialTokens,
          promptTail: promptTokenIds.subarray(Math.max(0, promptTokenIds.length - PROMPT_TAIL)),
        })
      : null;
    this.stops = new StopStrings(text.stop, text.includeStopStrInOutput);
  }

  /** The next delta, or null while the stream interval asks for more. After a finish nothing may be pushed. */
  push(output: RequestOutput): GenerationDelta | null {
    const delta = this.open(output);
    let finish = output.finishReason;
    let stopReason: string | number | null = output.stopTokenId;
    for (let i = 0; i < output.newTokenIds.length; i++) {
      const id = output.newTokenIds[i]!;
      this.outputLength++;
      delta.tokenIds.push(id);
      const logprobs = output.logprobs?.[i];
      if (logprobs) {
        delta.logprobs ??= [];
        delta.logprobs.push(textLogprob(this.options.tokenizer, logprobs));
      }
      const endsHere = finish === 'stop' && i === output.newTokenIds.length - 1;
      const hit = this.pushText(delta, id, endsHere);
      if (hit === null) continue;
      finish = 'stop';
      stopReason = hit;
      break;
    }
    if (finish !== null) this.finish(delta, finish, stopReason);
    const due = this.outputLength - this.sent >= this.options.streamInterval || this.sent === 0;
    if (finish === null && !due) return null;
    this.sent = this.outputLength;
    this.pending = null;
    return delta;
  }

  /** Returns the stop string that the token's text completed. */
  private pushText(delta: Delta, id: number, isStopToken: boolean): string | null {
    const { text } = this.options;
    // The text of the token that ends an answer is not part of it.
    if (this.detokenizer === null || (isStopToken && !text.includeStopStrInOutput)) return null;
    // Embeddings are often padded beyond the vocabulary; such an id has no text.
    if (id >= this.options.tokenizer.vocabSize) return null;
    const armed = this.outputLength >= text.minTokens;
    const result = this.stops.push(this.detokenizer.push([id]), armed);
    delta.text += result.text;
    return result.stop;
  }

  private finish(delta: Delta, reason: FinishReason, stopReason: string | number | null): void {
    let why = stopReason;
    let ended = reason;
    const stoppedByString = typeof stopReason === 'string';
    if (!stoppedByString && this.detokenizer !== null) {
      const last = this.stops.push(this.detokenizer.flush(), this.outputLength >= this.options.text.minTokens);
      delta.text += last.text;
      if (last.stop === null) delta.text += this.stops.flush();
      else [ended, why] = ['stop', last.stop];
    }
    delta.finishReason = ended;
    delta.stopReason = why;
    this.finishReason = ended;
  }

  private open(output: RequestOutput): Delta {
    const delta: Delta = this.pending ?? {
      index: this.options.index,
      text: '',
      tokenIds: [],
      logprobs: null,
      finishReason: null,
      stopReason: null,
      promptTokenIds: this.options.promptTokenIds,
      promptLogprobs: null,
      cachedTokens: 0,
      timing: output.timing,
    };
    this.pending = delta;
    delta.timing = output.timing;
    delta.cachedTokens = output.cachedTokens;
    if (output.promptLogprobs !== null && this.options.index === 0) {
      const { tokenizer } = this.options;
      delta.promptLogprobs = output.promptLogprobs.map((entry) =>
        entry === null ? null : textLogprob(tokenizer, entry),
      );
    }
    return delta;
  }
}

function textLogprob(tokenizer: Tokenizer, entry: TokenLogprobs): TokenLogprob {
  const all = entry.tokenIds.map((id, i) => logprobEntry(tokenizer, id, entry.logprobs[i]!, entry.ranks[i]!));
  return { ...all[0]!, top: all.slice(1) };
}

const NO_BYTES = new Uint8Array(0);
const DECODER = new TextDecoder('utf-8', { ignoreBOM: true });

function logprobEntry(tokenizer: Tokenizer, tokenId: number, logprob: number, rank: number): LogprobEntry {
  const bytes = tokenId < tokenizer.vocabSize ? tokenizer.tokenBytes(tokenId) : NO_BYTES;
  return { tokenId, token: DECODER.decode(bytes), bytes, logprob, rank };
}
