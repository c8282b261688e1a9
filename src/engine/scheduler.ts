/**
 * Who computes how many tokens in the next step. It rests on one sentence: a sequence has tokens known and tokens computed;
 * a step hands out a token budget so that the second catches up. Prefill, chunked prefill, prefix hits, decode and
 * recompute after preemption are all that arithmetic.
 */
import { assert } from '../base/assert.ts';
import { type EnginePlan, maxLogitRows } from '../config/plan.ts';
import { BlockManager, type PrefixHit } from './block_manager.ts';
import type { SchedulerOutput } from './executor.ts';
import type { Sequence } from './sequence.ts';
import { fcfsOrder, type Order, priorityOrder, WaitingQueue } from './waiting_queue.ts';

export type SchedulerConfig = Pick<
  EnginePlan,
  | 'blockSize'
  | 'numBlocks'
  | 'maxModelLen'
  | 'maxNumSeqs'
  | 'maxNumBatchedTokens'
  | 'enablePrefixCaching'
  | 'enableChunkedPrefill'
  | 'schedulingPolicy'
  | 'longPrefillTokenThreshold'
  | 'watermark'
>;

/** What the scheduler decided; the arrays are reused by the next step. */
export interface Schedule extends SchedulerOutput {
  readonly sequences: Sequence[];
  readonly tokenCounts: number[];
  /** Admitted in this step, first time or again. */
  readonly admitted: Sequence[];
  readonly preempted: Sequence[];
  /** Tokens looked up in, and found in, the prefix cache by sequences admitted for the first time. */
  prefixQueries: number;
  prefixHits: number;
}

/**
 * Most tokens a sequence may ever know: the model's length, what all KV blocks together hold, and without chunked prefill
 * the step's budget, since a preempted sequence must come back in one piece.
 */
export function maxSequenceTokens(config: SchedulerConfig): number {
  const recompute = config.enableChunkedPrefill ? Number.POSITIVE_INFINITY : config.maxNumBatchedTokens;
  return Math.min(config.maxModelLen, config.numBlocks * config.blockSize, recompute);
}

export class Scheduler {
  readonly blocks: BlockManager;
  /** In order of admission, which under fcfs is also the order of arrival. */
  readonly running: Sequence[] = [];
  readonly waiting: WaitingQueue;
  private readonly config: SchedulerConfig;
  private readonly order: Order;
  private readonly watermarkBlocks: number;
  private readonly extraLogitRows: number;
  private readonly out: Schedule = {
    sequences: [],
    tokenCounts: [],
    admitted: [],
    preempted: [],
    prefixQueries: 0,
    prefixHits: 0,
  };
  /** What is left of this step's tokens, and of its logit rows beyond one a sequence. */
  private tokensLeft = 0;
  private rowsLeft = 0;

  constructor(config: SchedulerConfig) {
    assert(config.maxNumBatchedTokens >= 1 && config.maxNumSeqs >= 1, 'a step has room for one token of one sequence');
    this.config = config;
    this.blocks = new BlockManager(config);
    this.order = config.schedulingPolicy === 'priority' ? priorityOrder : fcfsOrder;
    this.waiting = new WaitingQueue(this.order);
    this.watermarkBlocks = Math.ceil(config.watermark * config.numBlocks);
    this.extraLogitRows = maxLogitRows(config) - config.maxNumSeqs;
  }

  get hasWork(): boolean {
    return this.running.length > 0 || this.waiting.size > 0;
  }

  add(sequence: Sequence): void {
    this.waiting.push(sequence);
  }

  /** Takes a sequence out of whichever queue it is in and frees its blocks. */
  remove(sequence: Sequence): void {
    if (sequence.status === 'running') this.running.splice(this.running.indexOf(sequence), 1);
    else this.waiting.remove(sequence);
    this.release(sequence);
  }

  /** Removes all finished sequences from `running`; each was given to {@link release}. */
  dropFinished(): void {
    let kept = 0;
    for (const sequence of this.running) if (sequence.status === 'running') this.running[kept++] = sequence;
    this.running.length = kept;
  }

  /** Ends a sequence: its blocks go back. A running one stays listed until {@link dropFinished}. */
  release(sequence: Sequence): void {
    this.blocks.free(sequence);
    sequence.status = 'finished';
  }

  /** @param budget tokens of this step, from 1 to maxNumBatchedTokens */
  schedule(budget = this.config.maxNumBatchedTokens): Schedule {
    assert(budget >= 1 && budget <= this.config.maxNumBatchedTokens, 'a step computes at least one token');
    const { out } = this;
    out.sequences.length = 0;
    out.tokenCounts.length = 0;
    out.admitted.length = 0;
    out.preempted.length = 0;
    out.prefixQueries = 0;
    out.prefixHits = 0;
    this.tokensLeft = budget;
    this.rowsLeft = this.extraLogitRows;
    this.scheduleRunning();
    if (out.preempted.length === 0) this.scheduleWaiting();
    const stuck = out.sequences.length === 0 && out.preempted.length === 0 && this.hasWork;
    assert(!stuck, 'every step with work computes a token or preempts');
    return out;
  }

  private scheduleRunning(): void {
    for (let i = 0; i < this.running.length && this.tokensLeft > 0; i++) {
      const sequence = this.running[i] as Sequence;
      // Nobody who runs goes without a token because of a prompt that was admitted earlier.
      const later = this.running.length - 1 - i;
      const count = Math.min(this.wanted(sequence), Math.max(1, this.tokensLeft - later));
      while (!this.blocks.allocate(sequence, sequence.tokensComputed + count)) {
        const victim = this.victim();
        if (this.preempt(victim) < i) i--;
        if (victim === sequence) return;
      }
      this.hand(sequence, count);
    }
  }

  private scheduleWaiting(): void {
    const { maxNumSeqs, enableChunkedPrefill } = this.config;
    while (this.tokensLeft > 0 && this.running.length < maxNumSeqs) {
      const sequence = this.waiting.peek();
      if (sequence === undefined) return;
      const hit = this.blocks.findPrefix(sequence);
      if (!this.fits(sequence, hit)) return;
      // Counted as computed before the budget is asked, so that a hit is simply less to catch up.
      sequence.tokensComputed = hit.blocks * this.blocks.blockSize;
      const wanted = this.wanted(sequence);
      if (wanted > this.tokensLeft && !enableChunkedPrefill) {
        sequence.tokensComputed = 0;
        return;
      }
      this.admit(sequence, hit, Math.min(wanted, this.tokensLeft));
    }
  }

  /** Whether all known tokens (not just the first chunk) find blocks, and enough stay free for those that run. */
  private fits(sequence: Sequence, hit: PrefixHit): boolean {
    const fresh = this.blocks.blocksFor(sequence.tokensKnown) - hit.blocks;
    const free = this.blocks.freeBlocks - hit.idleBlocks - fresh;
    return free >= (this.running.length > 0 ? this.watermarkBlocks : 0);
  }

  private admit(sequence: Sequence, hit: PrefixHit, count: number): void {
    const { out } = this;
    this.waiting.remove(sequence);
    this.blocks.takePrefix(sequence, hit);
    assert(this.blocks.allocate(sequence, sequence.tokensComputed + count), 'what fits can be allocated');
    if (sequence.status === 'waiting') {
      sequence.cachedTokens = sequence.tokensComputed;
      if (this.config.enablePrefixCaching && sequence.readsPrefixCache) out.prefixQueries += sequence.tokensKnown;
      out.prefixHits += sequence.tokensComputed;
    }
    sequence.status = 'running';
    this.running.push(sequence);
    out.admitted.push(sequence);
    this.hand(sequence, count);
  }

  /** Tokens the sequence would compute in this step if the budget allowed. */
  private wanted(sequence: Sequence): number {
    const { longPrefillTokenThreshold } = this.config;
    let count = sequence.tokensKnown - sequence.tokensComputed;
    if (longPrefillTokenThreshold > 0) count = Math.min(count, longPrefillTokenThreshold);
    // A chunk that gives prompt logprobs needs a logit row a token; one row every sequence has anyway.
    if (sequence.promptRowsFrom < sequence.promptLength - 1) count = Math.min(count, this.rowsLeft + 1);
    return count;
  }

  private hand(sequence: Sequence, count: number): void {
    this.out.sequences.push(sequence);
    this.out.tokenCounts.push(count);
    this.tokensLeft -= count;
    if (sequence.promptRowsFrom < sequence.promptLength - 1) this.rowsLeft -= count - 1;
  }

  /** The running sequence that goes last in order. */
  private victim(): Sequence {
    return this.running.reduce((last, sequence) => (this.order(last, sequence) < 0 ? sequence : last));
  }

  /** Frees everything the victim has; it comes back later and computes it again. Returns its index in `running`. */
  private preempt(victim: Sequence): number {
    const { out } = this;
    const index = this.running.indexOf(victim);
    this.running.splice(index, 1);
    const handed = out.sequences.indexOf(victim);
    if (handed >= 0) {
      const count = out.tokenCounts[handed] as number;
      this.tokensLeft += count;
      if (victim.promptRowsFrom < victim.promptLength - 1) this.rowsLeft += count - 1;
      out.sequences.splice(handed, 1);
      out.tokenCounts.splice(handed, 1);
    }
    this.blocks.free(victim);
    victim.tokensComputed = 0;
    victim.preemptions++;
    victim.status = 'preempted';
    this.waiting.push(victim);
    out.preempted.push(victim);
    return index;
  }
}
