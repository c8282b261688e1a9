import { assert } from '../base/assert.ts';
import { BlockHasher } from './block_hash.ts';
import type { Sequence } from './sequence.ts';

export interface BlockManagerConfig {
  readonly numBlocks: number;
  /** Tokens a block holds. */
  readonly blockSize: number;
  readonly enablePrefixCaching: boolean;
}

/** Full blocks at a sequence's start that the cache holds. */
export interface PrefixHit {
  readonly blocks: number;
  /** Those of them that no sequence uses: taking them makes the free list shorter. */
  readonly idleBlocks: number;
}

const NO_HIT: PrefixHit = { blocks: 0, idleBlocks: 0 };

/**
 * Who holds which KV block. A block is free (reference count 0) or shared by that many sequences; a full one keeps its hash
 * after it was freed and can be found again until it is handed out for something else. The free list is doubly linked and in
 * order of reuse: blocks without a hash first, then the longest unused.
 */
export class BlockManager {
  readonly numBlocks: number;
  readonly blockSize: number;
  private readonly caching: boolean;
  private readonly hasher: BlockHasher;
  private readonly refCounts: Int32Array;
  /** Free list links; element `numBlocks` is the sentinel whose next is the head and whose prev is the tail. */
  private readonly next: Int32Array;
  private readonly prev: Int32Array;
  private freeCount: number;
  /** Hash under which `cached` knows the block; null when it does not. */
  private readonly hashes: (string | null)[];
  private readonly cached = new Map<string, number>();

  constructor(config: BlockManagerConfig) {
    const { numBlocks, blockSize } = config;
    assert(numBlocks >= 1 && blockSize >= 1, 'a KV cache has at least one block of one token');
    this.numBlocks = numBlocks;
    this.blockSize = blockSize;
    this.caching = config.enablePrefixCaching;
    this.hasher = new BlockHasher(blockSize);
    this.refCounts = new Int32Array(numBlocks);
    this.next = new Int32Array(numBlocks + 1);
    this.prev = new Int32Array(numBlocks + 1);
    this.freeCount = numBlocks;
    this.hashes = new Array<string | null>(numBlocks).fill(null);
    for (let i = 0; i <= numBlocks; i++) {
      this.next[i] = (i + 1) % (numBlocks + 1);
      this.prev[i] = (i + numBlocks) % (numBlocks + 1);
    }
  }

  get freeBlocks(): number {
    return this.freeCount;
  }

  /** Share of blocks that sequences hold, 0..1. */
  get usage(): number {
    return 1 - this.freeCount / this.numBlocks;
  }

  blocksFor(tokens: number): number {
    return Math.ceil(tokens / this.blockSize);
  }

  /** The longest run of cached blocks at the start of `sequence`, at least one known token short of all. Changes nothing. */
  findPrefix(sequence: Sequence): PrefixHit {
    if (!this.caching || !sequence.readsPrefixCache) return NO_HIT;
    const most = Math.floor((sequence.tokensKnown - 1) / this.blockSize);
    this.hasher.extend(sequence, most * this.blockSize);
    let blocks = 0;
    let idleBlocks = 0;
    for (; blocks < most; blocks++) {
      const block = this.cached.get(sequence.blockHashes[blocks] as string);
      if (block === undefined) break;
      if (this.refCounts[block] === 0) idleBlocks++;
    }
    return { blocks, idleBlocks };
  }

  /** Gives `sequence`, which holds nothing, its `hit`: the blocks are shared, nothing is copied. */
  takePrefix(sequence: Sequence, hit: PrefixHit): void {
    assert(sequence.blocks.length === 0, 'a prefix is taken before anything else');
    for (let i = 0; i < hit.blocks; i++) {
      const block = this.cached.get(sequence.blockHashes[i] as string);
      assert(block !== undefined, 'the hit is still cached');
      if (this.refCounts[block] === 0) this.unlink(block);
      this.refCounts[block] = (this.refCounts[block] as number) + 1;
      sequence.blocks.push(block);
    }
  }

  /** Makes `sequence` hold blocks for its first `tokens` tokens. False, and nothing changed, when too few are free. */
  allocate(sequence: Sequence, tokens: number): boolean {
    const missing = this.blocksFor(tokens) - sequence.blocks.length;
    if (missing > this.freeCount) return false;
    for (let i = 0; i < missing; i++) {
      const block = this.next[this.numBlocks] as number;
      this.unlink(block);
      this.forget(block);
      this.refCounts[block] = 1;
      sequence.blocks.push(block);
    }
    return true;
  }

  /** Lets the cache know the blocks of `sequence` that its computed tokens fill; `from` = tokens computed before. */
  cacheFullBlocks(sequence: Sequence, from: number): void {
    if (!this.caching) return;
    const first = Math.floor(from / this.blockSize);
    const end = Math.floor(sequence.tokensComputed / this.blockSize);
    if (first >= end) return;
    this.hasher.extend(sequence, sequence.tokensComputed);
    for (let i = first; i < end; i++) {
      const hash = sequence.blockHashes[i] as string;
      const block = sequence.blocks.at(i);
      // Of two equal blocks filled at the same time the first is found; the other stays nameless and is reused early.
      if (this.cached.has(hash)) continue;
      this.cached.set(hash, block);
      this.hashes[block] = hash;
    }
  }

  /** Takes all blocks from `sequence`, last first, so that the end of a cached prefix is evicted before its start. */
  free(sequence: Sequence): void {
    const { blocks } = sequence;
    for (let i = blocks.length - 1; i >= 0; i--) {
      const block = blocks.at(i);
      const count = (this.refCounts[block] as number) - 1;
      assert(count >= 0, 'a block is freed once for each use');
      this.refCounts[block] = count;
      if (count === 0) this.link(block, this.hashes[block] === null);
    }
    blocks.clear();
  }

  /** Empties the prefix cache; false, and nothing changed, while any block is in use. */
  reset(): boolean {
    if (this.freeCount !== this.numBlocks) return false;
    this.cached.clear();
    this.hashes.fill(null);
    return true;
  }

  /**
   * Checks every invariant in O(blocks); for tests. `holders` are all sequences that may hold blocks.
   * Throws AssertionError naming the first that does not hold.
   */
  check(holders: Iterable<Sequence>): void {
    const counts = new Int32Array(this.numBlocks);
    for (const { blocks } of holders) {
      for (let i = 0; i < blocks.length; i++) counts[blocks.at(i)] = (counts[blocks.at(i)] as number) + 1;
    }
    let free = 0;
    for (let b = this.next[this.numBlocks] as number; b !== this.numBlocks; b = this.next[b] as number) {
      assert(this.prev[this.next[b] as number] === b, `the free list is linked both ways at block ${b}`);
      assert(this.refCounts[b] === 0, `free block ${b} is held by nobody`);
      free++;
      assert(free <= this.numBlocks, 'the free list ends');
    }
    assert(free === this.freeCount, `free list has ${free} blocks, count says ${this.freeCount}`);
    let used = 0;
    for (let b = 0; b < this.numBlocks; b++) {
      assert(counts[b] === this.refCounts[b], `block ${b}: ${this.refCounts[b]} references, ${counts[b]} holders`);
      if (counts[b] !== 0) used++;
      const hash = this.hashes[b];
      assert(hash === null || this.cached.get(hash as string) === b, `block ${b} is cached under its own hash`);
    }
    assert(free + used === this.numBlocks, `${free} free and ${used} used blocks of ${this.numBlocks}`);
  }

  private forget(block: number): void {
    const hash = this.hashes[block];
    if (hash === null || hash === undefined) return;
    this.cached.delete(hash);
    this.hashes[block] = null;
  }

  private link(block: number, atHead: boolean): void {
    const sentinel = this.numBlocks;
    const before = atHead ? sentinel : (this.prev[sentinel] as number);
    const after = this.next[before] as number;
    this.next[before] = block;
    this.prev[block] = before;
    this.next[block] = after;
    this.prev[after] = block;
    this.freeCount++;
  }

  private unlink(block: number): void {
    const before = this.prev[block] as number;
    const after = this.next[block] as number;
    this.next[before] = after;
    this.prev[after] = before;
    this.freeCount--;
  }
}
