import type { RowDraws } from '../backends/backend.ts';
import { uniform } from '../base/rng.ts';
import type { ScheduledSequence } from '../engine/executor.ts';
import type { EngineSampling } from '../engine/types.ts';
import { hasEdits } from './logit_edits.ts';

/** Temperatures below are greedy, as in vLLM. */
export const GREEDY_BELOW = 1e-5;

/** Numbers of a row in {@link RowDraws}. */
const NUMBERS = 5;

/** A row that is drawn from as the model made it, and of which nothing but the token is wanted. */
function isPlain(sequence: ScheduledSequence): boolean {
  return sequence.sampling.logprobs === null && !hasEdits(sequence);
}

/** The plain rows of a step, drawn as a part of it: what most rows of most steps are. */
export class PlainRows {
  /** Of each row: the index its caller gave. */
  readonly indices: Int32Array;
  /** What the backend is given; always the same object. */
  readonly draws: RowDraws & { count: number };
  /** Whose numbers each row has. */
  private readonly owners: (ScheduledSequence | null)[];

  constructor(capacity: number) {
    this.indices = new Int32Array(capacity);
    this.owners = new Array<ScheduledSequence | null>(capacity).fill(null);
    const numbers = new Float64Array(capacity * NUMBERS);
    this.draws = { count: 0, rows: new Int32Array(capacity), numbers, tokenIds: new Int32Array(capacity) };
  }

  clear(): void {
    this.draws.count = 0;
  }

  /**
   * Takes `sequence`, whose logit row is `row`, when it is plain. Once it was, it is for good, with the same numbers: in most
   * steps there is nothing to look up.
   */
  offer(index: number, row: number, sequence: ScheduledSequence): void {
    const { draws, owners } = this;
    const { rows, numbers } = draws;
    const at = draws.count;
    if (owners[at] !== sequence) {
      if (!isPlain(sequence)) return;
      this.setNumbers(at, sequence.sampling);
      owners[at] = sequence;
    }
    draws.count++;
    this.indices[at] = index;
    rows[at] = row;
    if (numbers[at * NUMBERS] === 0) return;
    numbers[at * NUMBERS + 4] = uniform(sequence.sampling.seed, BigInt(sequence.tokens.length));
  }

  private setNumbers(at: number, sampling: EngineSampling): void {
    const { numbers } = this.draws;
    numbers[at * NUMBERS] = sampling.temperature < GREEDY_BELOW ? 0 : sampling.temperature;
    numbers[at * NUMBERS + 1] = sampling.topK;
    numbers[at * NUMBERS + 2] = sampling.topP;
    numbers[at * NUMBERS + 3] = sampling.minP;
    numbers[at * NUMBERS + 4] = 0;
  }
}
