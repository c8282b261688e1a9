import { describe, expect, test } from 'vitest';
import { AssertionError } from '../base/assert.ts';
import { GrowableInt32 } from '../base/growable.ts';
import { Rng } from '../base/rng.ts';
import type { SchedulerOutput } from '../engine/executor.ts';
import { Sequence } from '../engine/sequence.ts';
import { makeRequest } from '../engine/testdata/fake_executor.ts';
import { BlockTables } from './block_tables.ts';
import { StepInputsBuilder } from './step_inputs.ts';

const LIMITS = { blockSize: 4, maxNumBatchedTokens: 16, maxNumSeqs: 3, maxLogitRows: 8 };

function makeSequence(tokens: readonly number[], computed: number, blocks: readonly number[], promptLogprobs?: number) {
  const sampling = promptLogprobs === undefined ? {} : { promptLogprobs };
  const sequence = new Sequence(makeRequest('x', Int32Array.from(tokens), sampling), 0);
  sequence.tokensComputed = computed;
  for (const block of blocks) sequence.blocks.push(block);
  return sequence;
}

function step(...work: readonly (readonly [Sequence, number])[]): SchedulerOutput {
  return { sequences: work.map(([s]) => s), tokenCounts: work.map(([, count]) => count) };
}

describe('step inputs', () => {
  test('a decode, a chunk and a whole prompt in one step', () => {
    const decode = makeSequence([10, 11, 12, 13, 14, 15], 5, [7, 2]);
    const chunk = makeSequence([20, 21, 22, 23, 24, 25, 26, 27, 28], 2, [0, 5, 1]);
    const whole = makeSequence([30, 31], 0, [3]);
    const inputs = new StepInputsBuilder(LIMITS).build(step([decode, 1], [chunk, 4], [whole, 2]));
    expect(inputs.sizes).toEqual({ T: 7, S: 3, R: 2 });
    expect([...inputs.tokenIds]).toEqual([15, 22, 23, 24, 25, 30, 31]);
    expect([...inputs.positions]).toEqual([5, 2, 3, 4, 5, 0, 1]);
    expect([...inputs.slotMapping]).toEqual([2 * 4 + 1, 2, 3, 5 * 4, 5 * 4 + 1, 12, 13]);
    expect([...inputs.queryStarts]).toEqual([0, 1, 5, 7]);
    expect([...inputs.seqLens]).toEqual([6, 6, 2]);
    const row = (i: number) =>
      inputs.blockTables.subarray(i * inputs.maxBlocksPerSeq, (i + 1) * inputs.maxBlocksPerSeq);
    expect([...row(0).subarray(0, 2)]).toEqual([7, 2]);
    expect([...row(1).subarray(0, 3)]).toEqual([0, 5, 1]);
    expect([...row(2).subarray(0, 1)]).toEqual([3]);
    expect(inputs.blockTables).toHaveLength(3 * inputs.maxBlocksPerSeq);
    expect([...inputs.logitRows]).toEqual([0, 6]);
  });

  test('prompt logprobs want a row for each prompt token but the last, and one for the new token', () => {
    const builder = new StepInputsBuilder(LIMITS);
    const sequence = makeSequence([1, 2, 3, 4, 5], 0, [0, 1], 0);
    expect([...builder.build(step([sequence, 3])).logitRows]).toEqual([0, 1, 2]);
    expect([builder.promptRows[0], builder.tokenDue[0]]).toEqual([3, 0]);
    sequence.tokensComputed = 3;
    sequence.promptLogprobs?.push(...Array.from({ length: 3 }, () => ({ tokenIds: [], logprobs: [], ranks: [] })));
    expect([...builder.build(step([sequence, 2])).logitRows]).toEqual([0, 1]);
    expect([builder.promptRows[0], builder.tokenDue[0]]).toEqual([1, 1]);
  });

  test('rows already reported are not wanted again after a preemption', () => {
    const builder = new StepInputsBuilder(LIMITS);
    const sequence = makeSequence([1, 2, 3, 4, 5], 0, [0, 1], 0);
    sequence.promptLogprobs?.push({ tokenIds: [], logprobs: [], ranks: [] });
    expect([...builder.build(step([sequence, 5])).logitRows]).toEqual([1, 2, 3, 4]);
  });

  test('the buffers of one step are those of the next', () => {
    const builder = new StepInputsBuilder(LIMITS);
    const sequence = makeSequence([1, 2, 3], 0, [0]);
    const first = builder.build(step([sequence, 3]));
    expect(builder.build(step([sequence, 3]))).toBe(first);
    sequence.tokensComputed = 1;
    const shorter = builder.build(step([sequence, 2]));
    expect(shorter.sizes.T).toBe(2);
    expect(shorter.tokenIds.buffer).toBe(first.tokenIds.buffer);
    expect(shorter.blockTables.buffer).toBe(first.blockTables.buffer);
  });

  test('block tables kept from step to step are those written anew, whatever comes, grows, goes and comes again', () => {
    const rng = new Rng(8);
    const tables = new BlockTables();
    const all = Array.from({ length: 12 }, () => ({ blocks: new GrowableInt32(1) }));
    for (let round = 0; round < 300; round++) {
      const sequences = all.filter(() => rng.next() < 0.6);
      for (const { blocks } of sequences) {
        if (rng.next() < 0.1) blocks.clear();
        for (let more = rng.next() < 0.02 ? rng.int(0, 40) : rng.int(0, 1); more > 0; more--)
          blocks.push(rng.int(0, 999));
      }
      tables.fill(sequences);
      for (const [i, { blocks }] of sequences.entries()) {
        const row = tables.data.subarray(i * tables.stride, i * tables.stride + blocks.length);
        expect(row).toEqual(blocks.data.subarray(0, blocks.length));
      }
    }
  });

  test('a step beyond its limits is a bug, not a buffer overrun', () => {
    const builder = new StepInputsBuilder(LIMITS);
    const long = makeSequence(
      Array.from({ length: 20 }, (_, i) => i),
      0,
      [0, 1, 2, 3, 4],
    );
    expect(() => builder.build(step([long, 17]))).toThrow(AssertionError);
    expect(() => builder.build(step([makeSequence([1, 2, 3, 4, 5], 0, [0]), 5]))).toThrow(AssertionError);
    expect(() => builder.build(step([makeSequence([1], 0, [0]), 2]))).toThrow(AssertionError);
  });
});
