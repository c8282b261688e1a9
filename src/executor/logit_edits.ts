/**
 * Stages 2 to 8 of the sampling pipeline: what a request's parameters do to its logits before temperature. All are edits of
 * one row in place and, but for `allowed_token_ids`, touch few entries. Order and formulas: vLLM's classic sampler.
 */
import type { ScheduledSequence } from '../engine/executor.ts';

const MAX_LOGIT_BIAS = 100;

export function hasEdits(sequence: ScheduledSequence): boolean {
  const { sampling, history } = sequence;
  return (
    history !== null ||
    sampling.allowedTokenIds !== null ||
    sampling.logitBias !== null ||
    sampling.badWords.length > 0 ||
    belowMinTokens(sequence)
  );
}

export function applyEdits(row: Float32Array, sequence: ScheduledSequence): void {
  const { sampling } = sequence;
  if (sampling.allowedTokenIds !== null) keepOnly(row, sampling.allowedTokenIds);
  for (const word of sampling.badWords) {
    if (outputEndsWithStartOf(word, sequence)) row[word[word.length - 1] as number] = Number.NEGATIVE_INFINITY;
  }
  if (belowMinTokens(sequence)) {
    for (const id of sampling.eosTokenIds) row[id] = Number.NEGATIVE_INFINITY;
    for (const id of sampling.stopTokenIds) row[id] = Number.NEGATIVE_INFINITY;
  }
  if (sampling.logitBias !== null) {
    for (const [id, bias] of sampling.logitBias) {
      row[id] = (row[id] as number) + Math.max(-MAX_LOGIT_BIAS, Math.min(MAX_LOGIT_BIAS, bias));
    }
  }
  penalise(row, sequence);
}

function belowMinTokens({ sampling, tokens, promptLength }: ScheduledSequence): boolean {
  return tokens.length - promptLength < sampling.minTokens;
}

function keepOnly(row: Float32Array, ids: readonly number[]): void {
  const kept = ids.map((id) => row[id] as number);
  row.fill(Number.NEGATIVE_INFINITY);
  ids.forEach((id, i) => {
    row[id] = kept[i] as number;
  });
}

/** Whether the output (never the prompt) ends with all of `word` but its last token. */
function outputEndsWithStartOf(word: readonly number[], sequence: ScheduledSequence): boolean {
  const { tokens, promptLength } = sequence;
  const rest = word.length - 1;
  const start = tokens.length - rest;
  if (rest < 0 || start < promptLength) return false;
  for (let i = 0; i < rest; i++) if (tokens.data[start + i] !== word[i]) return false;
  return true;
}

function penalise(row: Float32Array, { sampling, history }: ScheduledSequence): void {
  if (history === null) return;
  const { repetitionPenalty, frequencyPenalty, presencePenalty } = sampling;
  const ids = history.ids.data;
  const counts = history.outputCounts.data;
  for (let i = 0; i < history.ids.length; i++) {
    const id = ids[i] as number;
    const count = counts[i] as number;
    let z = row[id] as number;
    z = z > 0 ? z / repetitionPenalty : z * repetitionPenalty;
    if (count > 0) z -= frequencyPenalty * count + presencePenalty;
    row[id] = z;
  }
}
