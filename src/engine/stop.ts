import type { Sequence } from './sequence.ts';
import type { FinishReason } from './types.ts';

export interface Stop {
  readonly reason: FinishReason;
  /** The stop token id that ended it; null for eos and length. */
  readonly stopTokenId: number | null;
}

const EOS: Stop = { reason: 'stop', stopTokenId: null };
const LENGTH: Stop = { reason: 'length', stopTokenId: null };

/**
 * Whether the last token of `sequence` ends it: eos, then stop ids, then length. Neither eos nor stop ids count before
 * min_tokens. `maxTokens` is the most tokens any sequence may know.
 */
export function checkStop(sequence: Sequence, maxTokens: number): Stop | null {
  const { sampling, outputLength, tokens } = sequence;
  if (outputLength >= sampling.minTokens) {
    const last = tokens.at(tokens.length - 1);
    if (sampling.eosTokenIds.includes(last)) return EOS;
    if (sampling.stopTokenIds.includes(last)) return { reason: 'stop', stopTokenId: last };
  }
  return outputLength >= sampling.maxTokens || sequence.tokensKnown >= maxTokens ? LENGTH : null;
}
