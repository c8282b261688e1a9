import { describe, expect, test } from 'vitest';
import { AssertionError } from '../base/assert.ts';
import { BlockManager } from './block_manager.ts';
import { Sequence } from './sequence.ts';
import { makePrompt, makeRequest } from './testdata/fake_executor.ts';
import type { EngineRequest } from './types.ts';

let number = 0;

function makeSequence(prompt: Int32Array, rest: Partial<EngineRequest> = {}): Sequence {
  return new Sequence(makeRequest(`s${number}`, prompt, {}, rest), number++);
}

/** Allocates and computes all known tokens. */
function compute(blocks: BlockManager, sequence: Sequence): number[] {
  const hit = blocks.findPrefix(sequence);
  blocks.takePrefix(sequence, hit);
  const from = hit.blocks * blocks.blockSize;
  expect(blocks.allocate(sequence, sequence.tokensKnown)).toBe(true);
  sequence.tokensComputed = sequence.tokensKnown;
  blocks.cacheFullBlocks(sequence, from);
  return [...sequence.blocks.data.subarray(0, sequence.blocks.length)];
}

function makeBlocks(numBlocks = 8): BlockManager {
  return new BlockManager({ numBlocks, blockSize: 4, enablePrefixCaching: true });
}

describe('block manager', () => {
  test('equal prefixes share full blocks; the partial one is never shared', () => {
    const blocks = makeBlocks();
    const a = makeSequence(makePrompt(1, 10));
    const b = makeSequence(makePrompt(1, 10));
    const first = compute(blocks, a);
    const second = compute(blocks, b);
    expect(second.slice(0, 2)).toEqual(first.slice(0, 2));
    expect(second[2]).not.toBe(first[2]);
    expect(blocks.freeBlocks).toBe(4);
    blocks.free(a);
    expect(blocks.freeBlocks).toBe(5);
    blocks.check([b]);
    blocks.free(b);
    expect(blocks.freeBlocks).toBe(8);
  });

  test('a block equal in tokens but not in what came before is another block', () => {
    const blocks = makeBlocks();
    const tail = makePrompt(7, 4);
    compute(blocks, makeSequence(Int32Array.of(...makePrompt(1, 4), ...tail, 0)));
    expect(blocks.findPrefix(makeSequence(Int32Array.of(...makePrompt(2, 4), ...tail, 0))).blocks).toBe(0);
    expect(blocks.findPrefix(makeSequence(Int32Array.of(...tail, 0))).blocks).toBe(0);
    expect(blocks.findPrefix(makeSequence(Int32Array.of(...makePrompt(1, 4), ...tail, 0))).blocks).toBe(2);
  });

  test('one token is always left to compute', () => {
    const blocks = makeBlocks();
    compute(blocks, makeSequence(makePrompt(1, 8)));
    expect(blocks.findPrefix(makeSequence(makePrompt(1, 8))).blocks).toBe(1);
    expect(blocks.findPrefix(makeSequence(makePrompt(1, 9))).blocks).toBe(2);
  });

  test('who may not read the cache does not, and salts are strangers', () => {
    const blocks = makeBlocks();
    compute(blocks, makeSequence(makePrompt(1, 9)));
    expect(blocks.findPrefix(makeSequence(makePrompt(1, 9), { skipPrefixCache: true })).blocks).toBe(0);
    expect(blocks.findPrefix(makeSequence(makePrompt(1, 9), { cacheSalt: 'x' })).blocks).toBe(0);
    expect(blocks.findPrefix(makeSequence(makePrompt(1, 9), { cacheSalt: '' })).blocks).toBe(0);
  });

  test('nameless blocks are reused first, then the longest unused, a prefix from its end', () => {
    const blocks = makeBlocks(8);
    const old = makeSequence(makePrompt(1, 9));
    const young = makeSequence(makePrompt(2, 9));
    const [old0, old1, oldPartial] = compute(blocks, old);
    const [young0, young1, youngPartial] = compute(blocks, young);
    blocks.free(old);
    blocks.free(young);
    const taker = makeSequence(makePrompt(3, 32));
    expect(blocks.allocate(taker, 32)).toBe(true);
    const order = [...taker.blocks.data.subarray(0, 8)];
    expect(order.slice(0, 2)).toEqual([youngPartial, oldPartial]);
    expect(order.slice(4)).toEqual([old1, old0, young1, young0]);
    expect(blocks.findPrefix(makeSequence(makePrompt(1, 9))).blocks).toBe(0);
  });

  test('of equal blocks filled side by side one is found, both are held, none is lost', () => {
    const blocks = makeBlocks();
    const pair = [makeSequence(makePrompt(1, 5)), makeSequence(makePrompt(1, 5))];
    for (const sequence of pair) expect(blocks.allocate(sequence, 5)).toBe(true);
    for (const sequence of pair) {
      sequence.tokensComputed = 5;
      blocks.cacheFullBlocks(sequence, 0);
    }
    blocks.check(pair);
    expect(blocks.freeBlocks).toBe(4);
    for (const sequence of pair) blocks.free(sequence);
    blocks.check([]);
    expect(blocks.findPrefix(makeSequence(makePrompt(1, 5)))).toEqual({ blocks: 1, idleBlocks: 1 });
  });

  test('too few blocks: nothing changes', () => {
    const blocks = makeBlocks(3);
    const a = makeSequence(makePrompt(1, 8));
    compute(blocks, a);
    const b = makeSequence(makePrompt(2, 8));
    expect(blocks.allocate(b, 8)).toBe(false);
    expect([b.blocks.length, blocks.freeBlocks]).toEqual([0, 1]);
    blocks.check([a, b]);
  });

  test('reset empties the cache only while nothing is held', () => {
    const blocks = makeBlocks();
    const a = makeSequence(makePrompt(1, 9));
    compute(blocks, a);
    expect(blocks.reset()).toBe(false);
    blocks.free(a);
    expect(blocks.findPrefix(makeSequence(makePrompt(1, 9))).blocks).toBe(2);
    expect(blocks.reset()).toBe(true);
    expect(blocks.findPrefix(makeSequence(makePrompt(1, 9))).blocks).toBe(0);
    blocks.check([]);
  });

  test('freeing twice is a bug', () => {
    const blocks = makeBlocks();
    const a = makeSequence(makePrompt(1, 4));
    compute(blocks, a);
    const block = a.blocks.at(0);
    blocks.free(a);
    a.blocks.push(block);
    expect(() => blocks.free(a)).toThrow(AssertionError);
  });
});
