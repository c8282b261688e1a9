import type { ScheduledSequence } from '../engine/executor.ts';

type Blocks = ScheduledSequence['blocks'];

/** Entries by which rows grow: so many that they are seldom laid out anew. */
const STRIDE_STEP = 16;

/**
 * Block ids, a row for each sequence of a step. A row whose sequence was there in the last step gets only what is new; what
 * lies beyond a sequence's blocks means nothing.
 */
export class BlockTables {
  /** Rows of `stride` entries. Replaced when they grow. */
  data = new Int32Array(0);
  stride = 0;
  /** Of each row: whose blocks it holds, how often they had been emptied, and how many of them are there. */
  private owners: (Blocks | null)[] = [];
  private clears = new Int32Array(0);
  private lengths = new Int32Array(0);

  fill(sequences: readonly Pick<ScheduledSequence, 'blocks'>[]): void {
    let longest = 0;
    for (let i = 0; i < sequences.length; i++) longest = Math.max(longest, blocksOf(sequences, i).length);
    if (longest > this.stride || sequences.length > this.owners.length) this.grow(sequences.length, longest);
    for (let i = 0; i < sequences.length; i++) this.fillRow(i, blocksOf(sequences, i));
  }

  private fillRow(i: number, blocks: Blocks): void {
    const { data, length, clears } = blocks;
    const known = this.owners[i] === blocks && this.clears[i] === clears ? (this.lengths[i] as number) : 0;
    const row = i * this.stride;
    for (let b = known; b < length; b++) this.data[row + b] = data[b] as number;
    this.owners[i] = blocks;
    this.clears[i] = clears;
    this.lengths[i] = length;
  }

  private grow(sequences: number, longest: number): void {
    const rows = Math.max(sequences, Math.min(2 * this.owners.length, 2 * sequences));
    this.stride = Math.ceil(Math.max(longest, this.stride) / STRIDE_STEP) * STRIDE_STEP;
    this.data = new Int32Array(rows * this.stride);
    this.owners = new Array<Blocks | null>(rows).fill(null);
    this.clears = new Int32Array(rows);
    this.lengths = new Int32Array(rows);
  }
}

function blocksOf(sequences: readonly Pick<ScheduledSequence, 'blocks'>[], i: number): Blocks {
  return (sequences[i] as Pick<ScheduledSequence, 'blocks'>).blocks;
}
