/** From a logit row to a token id and the logprobs asked for. Each row alone, from its request's parameters alone (P1). */
import type { DrawParams, LogitRows } from '../backends/backend.ts';
import { TokenmillError } from '../base/errors.ts';
import { uniform } from '../base/rng.ts';
import type { ScheduledSequence } from '../engine/executor.ts';
import type { EngineSampling, TokenLogprobs } from '../engine/types.ts';
import { applyEdits, hasEdits } from './logit_edits.ts';
import { GREEDY_BELOW } from './plain_rows.ts';

export interface SampledToken {
  readonly tokenId: number;
  readonly logprobs: TokenLogprobs | null;
}

export class Sampler {
  private readonly rows: LogitRows;
  /** A row as it was, while its edited form is looked at. Made when first needed. */
  private saved: Float32Array | null = null;
  private readonly draw: { -readonly [K in keyof DrawParams]: DrawParams[K] } = {
    temperature: 1,
    topK: 0,
    topP: 1,
    minP: 0,
    u: 0,
  };

  constructor(rows: LogitRows) {
    this.rows = rows;
  }

  /**
   * The token that follows the known tokens of `sequence`, from logit row `r`, which it edits.
   * Throws TokenmillError when the row cannot give one; other rows are not concerned.
   */
  sample(r: number, sequence: ScheduledSequence): SampledToken {
    const { sampling, tokens } = sequence;
    const { logprobsMode, logprobs } = sampling;
    const row = this.rows.row(r);
    const raw = logprobsMode === 'raw_logprobs' || logprobsMode === 'raw_logits';
    const restore = logprobs !== null && raw && hasEdits(sequence);
    if (restore) this.save(row);
    applyEdits(row, sequence);
    const best = this.rows.argmax(r);
    checkLargest(row[best], sampling);
    const greedy = sampling.temperature < GREEDY_BELOW;
    this.setDraw(sampling, greedy, tokens.length);
    const tokenId = greedy ? best : this.rows.sample(r, this.draw);
    if (!((row[tokenId] as number) > Number.NEGATIVE_INFINITY)) throw notNumbers();
    if (logprobs === null) return { tokenId, logprobs: null };
    if (restore) row.set(this.saved as Float32Array);
    return {
      tokenId,
      logprobs: raw ? this.rawList(r, tokenId, sampling, logprobs) : this.processed(r, tokenId, sampling),
    };
  }

  /** Logprobs of prompt token `tokenId`, which row `r` predicts; always of the model's own distribution. */
  prompt(r: number, tokenId: number, sampling: EngineSampling): TokenLogprobs {
    return this.rawList(r, tokenId, sampling, sampling.promptLogprobs ?? 0);
  }

  private setDraw(sampling: EngineSampling, greedy: boolean, position: number): void {
    this.draw.temperature = greedy ? 1 : sampling.temperature;
    this.draw.topK = greedy ? 0 : sampling.topK;
    this.draw.topP = greedy ? 1 : sampling.topP;
    this.draw.minP = greedy ? 0 : sampling.minP;
    this.draw.u = greedy ? 0 : uniform(sampling.seed, BigInt(position));
  }

  private rawList(r: number, tokenId: number, sampling: EngineSampling, count: number): TokenLogprobs {
    const { logprobsMode } = sampling;
    const logits = logprobsMode === 'raw_logits' || logprobsMode === 'processed_logits';
    const shift = logits ? 0 : this.rows.logSumExp(r);
    if (Number.isNaN(shift)) throw notNumbers();
    return this.list(r, tokenId, count, (_id, logit) => logit - shift);
  }

  /** Of the edited row, after temperature, min_p, top_k and top_p. */
  private processed(r: number, tokenId: number, sampling: EngineSampling): TokenLogprobs {
    const row = this.rows.row(r);
    if (sampling.logprobsMode === 'processed_logprobs') {
      this.rows.process(r, this.draw);
      return this.list(r, tokenId, sampling.logprobs ?? 0, (_id, logprob) => logprob);
    }
    const edited = this.save(row);
    const { temperature } = this.draw;
    this.rows.process(r, this.draw);
    return this.list(r, tokenId, sampling.logprobs ?? 0, (id) => (edited[id] as number) / temperature);
  }

  /** The chosen token, then the `count` largest of row `r`; -1 = all. `reported` turns an entry into what is reported. */
  private list(
    r: number,
    tokenId: number,
    count: number,
    reported: (id: number, entry: number) => number,
  ): TokenLogprobs {
    const chosen = this.rows.row(r)[tokenId] as number;
    const tokenIds = [tokenId];
    const logprobs = [reported(tokenId, chosen)];
    const ranks = [this.rows.rank(r, tokenId)];
    const k = count < 0 ? this.rows.vocabSize : Math.min(count, this.rows.vocabSize);
    if (k > 0) {
      const top = this.rows.topK(r, k);
      for (let i = 0; i < top.ids.length; i++) {
        const id = top.ids[i] as number;
        tokenIds.push(id);
        logprobs.push(reported(id, top.logits[i] as number));
        ranks.push(i + 1);
      }
    }
    return { tokenIds, logprobs, ranks };
  }

  private save(row: Float32Array): Float32Array {
    this.saved ??= new Float32Array(this.rows.vocabSize);
    this.saved.set(row);
    return this.saved;
  }
}

function checkLargest(largest: number | undefined, sampling: EngineSampling): void {
  if (largest !== undefined && Number.isFinite(largest)) return;
  if (largest === Number.NEGATIVE_INFINITY) {
    const param = sampling.allowedTokenIds === null ? 'logit_bias' : 'allowed_token_ids';
    throw new TokenmillError('invalid_request', 'The masks of this request leave no token to choose.', {
      param,
      remedy: 'Loosen allowed_token_ids, bad_words, min_tokens or logit_bias.',
    });
  }
  throw notNumbers();
}

function notNumbers(): TokenmillError {
  return new TokenmillError('internal', 'The model computed logits that are not numbers for this request.', {
    remedy: 'If every prompt fails, check the checkpoint with `tokenmill verify`.',
  });
}
