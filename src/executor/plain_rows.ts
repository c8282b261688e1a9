import type { LogitRows, RowDraws } from '../backends/backend.ts';
import { uniform } from '../base/rng.ts';
import type { ScheduledSequence } from '../engine/executor.ts';
import { hasEdits } from './logit_edits.ts';

/** Temperatures below are greedy, as in vLLM. */
export const GREEDY_BELOW = 1e-5;

/** Numbers of a row in {@link RowDraws}. */
const NUMBERS = 5;

/** A row that is drawn from as the model made it, and of which nothing but the token is wanted. */
export function isPlain(sequence: ScheduledSequence): boolean {
  return sequence.sampling.logprobs === null && !hasEdits(sequence);
}

/** The plain rows of a step, drawn in one call: what most rows of most steps are. */
export class PlainRows {
  count = 0;
  /** Of each row: the index its caller gave, and after `draw` the token; -1 = the row cannot give one. */
  readonly indices: Int32Array;
  readonly tokenIds: Int32Array;
  private readonly draws: RowDraws;
  private readonly logits: LogitRows;

  constructor(logits: LogitRows, capacity: number) {
    this.logits = logits;
    this.indices = new Int32Array(capacity);
    this.tokenIds = new Int32Array(capacity);
    const numbers = new Float64Array(capacity * NUMBERS);
    this.draws = { rows: new Int32Array(capacity), numbers, tokenIds: this.tokenIds };
  }

  clear(): void {
    this.count = 0;
  }

  /** @param row logit row of `sequence`, which {@link isPlain} */
  add(index: number, row: number, { sampling, tokens }: ScheduledSequence): void {
    const at = this.count++;
    const { rows, numbers } = this.draws;
    const greedy = sampling.temperature < GREEDY_BELOW;
    this.indices[at] = index;
    rows[at] = row;
    numbers[at * NUMBERS] = greedy ? 0 : sampling.temperature;
    numbers[at * NUMBERS + 1] = sampling.topK;
    numbers[at * NUMBERS + 2] = sampling.topP;
    numbers[at * NUMBERS + 3] = sampling.minP;
    numbers[at * NUMBERS + 4] = greedy ? 0 : uniform(sampling.seed, BigInt(tokens.length));
  }

  draw(): void {
    if (this.count > 0) this.logits.sampleRows(this.count, this.draws);
  }
}
