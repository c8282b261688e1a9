import { assert } from '../base/assert.ts';
import type { SchedulerOutput } from '../engine/executor.ts';
import type { StepInputs } from '../ops/define_op.ts';
import { BlockTables } from './block_tables.ts';

export interface StepLimits {
  readonly blockSize: number;
  readonly maxNumBatchedTokens: number;
  readonly maxNumSeqs: number;
  readonly maxLogitRows: number;
}

/** A step's typed arrays, allocated once for the largest step and filled again for each. */
export class StepInputsBuilder {
  /** Per sequence of the last step: its first logit row, how many are for prompt logprobs, and whether a token is due. */
  readonly firstRow: Int32Array;
  readonly promptRows: Int32Array;
  readonly tokenDue: Uint8Array;
  private readonly limits: StepLimits;
  private readonly tokenIds: Int32Array;
  private readonly positions: Int32Array;
  private readonly slotMapping: Int32Array;
  private readonly queryStarts: Int32Array;
  private readonly seqLens: Int32Array;
  private readonly logitRows: Int32Array;
  private readonly blockTables = new BlockTables();
  /** The last result: views of the same sizes are the same views. */
  private last: StepInputs | null = null;

  constructor(limits: StepLimits) {
    const { maxNumBatchedTokens, maxNumSeqs, maxLogitRows } = limits;
    this.limits = limits;
    this.firstRow = new Int32Array(maxNumSeqs);
    this.promptRows = new Int32Array(maxNumSeqs);
    this.tokenDue = new Uint8Array(maxNumSeqs);
    this.tokenIds = new Int32Array(maxNumBatchedTokens);
    this.positions = new Int32Array(maxNumBatchedTokens);
    this.slotMapping = new Int32Array(maxNumBatchedTokens);
    this.queryStarts = new Int32Array(maxNumSeqs + 1);
    this.seqLens = new Int32Array(maxNumSeqs);
    this.logitRows = new Int32Array(maxLogitRows);
  }

  /** The arrays of the result are views that the next call overwrites. */
  build(step: SchedulerOutput): StepInputs {
    const { sequences, tokenCounts } = step;
    const S = sequences.length;
    assert(S <= this.limits.maxNumSeqs, 'a step has at most maxNumSeqs sequences');
    let T = 0;
    let R = 0;
    for (let i = 0; i < S; i++) {
      const count = tokenCounts[i] as number;
      assert(T + count <= this.limits.maxNumBatchedTokens, 'a step has at most maxNumBatchedTokens tokens');
      this.queryStarts[i] = T;
      this.fillTokens(step, i, T);
      R += this.fillRows(step, i, T, R);
      T += count;
    }
    this.queryStarts[S] = T;
    const tables = this.blockTables;
    tables.fill(sequences);
    const { last } = this;
    const same = last !== null && sameSizes(last, T, S, R) && last.blockTables.buffer === tables.data.buffer;
    if (!same) this.last = this.views(T, S, R);
    return this.last as StepInputs;
  }

  private views(T: number, S: number, R: number): StepInputs {
    const { stride: maxBlocksPerSeq, data } = this.blockTables;
    return {
      sizes: { T, S, R },
      tokenIds: this.tokenIds.subarray(0, T),
      positions: this.positions.subarray(0, T),
      slotMapping: this.slotMapping.subarray(0, T),
      queryStarts: this.queryStarts.subarray(0, S + 1),
      seqLens: this.seqLens.subarray(0, S),
      blockTables: data.subarray(0, S * maxBlocksPerSeq),
      maxBlocksPerSeq,
      logitRows: this.logitRows.subarray(0, R),
    };
  }

  private fillTokens(step: SchedulerOutput, index: number, at: number): void {
    const { blockSize } = this.limits;
    const sequence = step.sequences[index] as SchedulerOutput['sequences'][number];
    const start = sequence.tokensComputed;
    const end = start + (step.tokenCounts[index] as number);
    assert(end > start && end <= sequence.tokens.length, 'a sequence computes between one and all known tokens');
    assert(end <= sequence.blocks.length * blockSize, 'every computed token has a slot');
    const tokens = sequence.tokens.data;
    const blocks = sequence.blocks.data;
    let t = at;
    for (let position = start; position < end; position++, t++) {
      const blockIndex = Math.floor(position / blockSize);
      this.tokenIds[t] = tokens[position] as number;
      this.positions[t] = position;
      this.slotMapping[t] = (blocks[blockIndex] as number) * blockSize + (position - blockIndex * blockSize);
    }
    this.seqLens[index] = end;
  }

  /** Rows of prompt positions whose successor's logprob is wanted, then the one that the new token is drawn from. */
  private fillRows(step: SchedulerOutput, index: number, firstToken: number, firstRow: number): number {
    const sequence = step.sequences[index] as SchedulerOutput['sequences'][number];
    const start = sequence.tokensComputed;
    const end = start + (step.tokenCounts[index] as number);
    let row = firstRow;
    const rowsEnd = Math.min(end, sequence.promptLength - 1);
    for (let position = Math.max(start, sequence.promptRowsFrom); position < rowsEnd; position++) {
      assert(row < this.logitRows.length, 'prompt logprobs were chunked to fit the logit rows');
      this.logitRows[row++] = firstToken + position - start;
    }
    this.firstRow[index] = firstRow;
    this.promptRows[index] = row - firstRow;
    const due = end === sequence.tokens.length;
    this.tokenDue[index] = due ? 1 : 0;
    if (due) {
      assert(row < this.logitRows.length, 'every sequence has a logit row');
      this.logitRows[row++] = firstToken + end - 1 - start;
    }
    return row - firstRow;
  }
}

function sameSizes({ sizes }: StepInputs, T: number, S: number, R: number): boolean {
  return sizes.T === T && sizes.S === S && sizes.R === R;
}
