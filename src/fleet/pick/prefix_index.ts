/**
 * Which endpoint still has the start of a prompt in its prefix cache, as far as the gateway can tell from what it sent there
 * (the approximate prefix index of llm-d-router). Prompts are cut into blocks; the hash of a block covers all before it.
 */
import { assert } from '../../base/assert.ts';
import { KeyedHash } from './hash.ts';

/** Hashes of the whole blocks of a prompt, two 32-bit lanes each: `[lo0, hi0, lo1, hi1 ...]`. Each covers all before it. */
export type PrefixHashes = Uint32Array;

/** What a token is taken for, bytes: nobody tokenizes here. */
export const BYTES_PER_TOKEN = 4;

const MIN_BLOCK_TOKENS = 64;
const MAX_PROMPT_TOKENS = 131_072;

/** Makes the hashes. `seed` is a secret of the gateway, so that no prompt can be made to look like another one. */
export class PromptHasher {
  private readonly hasher: KeyedHash;
  private readonly blockWords: number;
  private readonly encoder = new TextEncoder();
  private bytes = new Uint8Array(1 << 16);

  constructor(seed: bigint, blockTokens: number = MIN_BLOCK_TOKENS) {
    assert(Number.isInteger(blockTokens) && blockTokens >= MIN_BLOCK_TOKENS, 'a block has at least 64 tokens');
    this.hasher = new KeyedHash(seed);
    this.blockWords = (blockTokens * BYTES_PER_TOKEN) / 4;
  }

  /** `salt`: what else must be the same (model, adapter, the request's cache salt). Prompts beyond 131,072 tokens are cut. */
  hash(salt: string, prompt: string | Uint8Array): PrefixHashes {
    const { hasher, blockWords } = this;
    const words = this.read(prompt);
    const blocks = Math.floor(words.length / blockWords);
    const hashes = new Uint32Array(2 * blocks);
    hasher.start();
    hasher.text(salt);
    for (let block = 0; block < blocks; block++) {
      hasher.words(words, block * blockWords, (block + 1) * blockWords);
      hasher.finish();
      hashes[2 * block] = hasher.lo;
      hashes[2 * block + 1] = hasher.hi;
    }
    return hashes;
  }

  /** The prompt's bytes as whole words; valid until the next call. */
  private read(prompt: string | Uint8Array): Int32Array {
    const most = MAX_PROMPT_TOKENS * BYTES_PER_TOKEN;
    // A UTF-16 unit makes at most three bytes.
    const wanted = Math.min(most, typeof prompt === 'string' ? prompt.length * 3 : prompt.length);
    if (wanted > this.bytes.length) this.bytes = new Uint8Array(2 ** Math.ceil(Math.log2(wanted)));
    const { bytes } = this;
    let length = wanted;
    if (typeof prompt === 'string') length = Math.min(most, this.encoder.encodeInto(prompt, bytes).written);
    else bytes.set(prompt.length > most ? prompt.subarray(0, most) : prompt);
    return new Int32Array(bytes.buffer, 0, length >> 2);
  }
}

export interface PrefixIndexLimits {
  /** The least recently used ones go beyond. */
  readonly blocksPerEndpoint: number;
  /** Of all endpoints; about 40 bytes each. */
  readonly maxBlocks: number;
}

const LIMITS: PrefixIndexLimits = { blocksPerEndpoint: 31_250, maxBlocks: 1 << 20 };

const NONE = -1;

/**
 * A hash table of blocks; each block has the list of its holdings (an endpoint that has it), and the holdings of an endpoint are
 * a list in order of use. So a prompt is looked up in one walk, whatever the number of endpoints. Everything is an index into
 * typed arrays.
 */
export class PrefixIndex {
  private readonly limits: PrefixIndexLimits;
  private readonly slots = new Map<string, number>();
  private readonly freeSlots: number[] = [];
  private newest = new Int32Array(16).fill(NONE);
  private oldest = new Int32Array(16).fill(NONE);
  private counts = new Int32Array(16);
  private matched = new Int32Array(16);

  private buckets = new Int32Array(1024).fill(NONE);
  private blockLo = new Uint32Array(1024);
  private blockHi = new Uint32Array(1024);
  /** Next block of the same bucket, or next free one. */
  private blockNext = new Int32Array(1024);
  private blockHolding = new Int32Array(1024);
  private blockCount = 0;
  private blocksMade = 0;
  private freeBlock = NONE;

  private holdingBlock = new Int32Array(1024);
  private holdingSlot = new Int32Array(1024);
  /** Next holding of the same block, or next free one. */
  private holdingNext = new Int32Array(1024);
  private holdingNewer = new Int32Array(1024);
  private holdingOlder = new Int32Array(1024);
  private holdingCount = 0;
  private holdingsMade = 0;
  private freeHolding = NONE;

  constructor(limits: Partial<PrefixIndexLimits> = {}) {
    this.limits = { ...LIMITS, ...limits };
  }

  /** Blocks of all endpoints, one that several have counted for each. */
  get size(): number {
    return this.holdingCount;
  }

  /** Blocks from the start of the prompt that each endpoint should still have, into `into[i]` for `endpoints[i]`. */
  match(prefix: PrefixHashes, endpoints: readonly string[], into: Int32Array): void {
    const { matched, blockHolding, holdingNext, holdingSlot } = this;
    matched.fill(0);
    const blocks = prefix.length >> 1;
    for (let i = 0; i < blocks; i++) {
      const block = this.find(prefix[2 * i] as number, prefix[2 * i + 1] as number);
      if (block === NONE) break;
      let found = false;
      for (let h = blockHolding[block] as number; h !== NONE; h = holdingNext[h] as number) {
        const slot = holdingSlot[h] as number;
        if (matched[slot] !== i) continue;
        matched[slot] = i + 1;
        found = true;
      }
      if (!found) break;
    }
    for (let i = 0; i < endpoints.length; i++) {
      const slot = this.slots.get(endpoints[i] as string);
      into[i] = slot === undefined ? 0 : (matched[slot] as number);
    }
  }

  /** The endpoint got this prompt. */
  record(endpoint: string, prefix: PrefixHashes): void {
    const blocks = Math.min(prefix.length >> 1, this.limits.blocksPerEndpoint);
    if (blocks === 0) return;
    const slot = this.slotOf(endpoint);
    // From the end: a block is of no use without those before it, so it must go before them.
    for (let i = blocks - 1; i >= 0; i--) this.touch(slot, prefix[2 * i] as number, prefix[2 * i + 1] as number);
  }

  /** Forgets an endpoint: it is gone, or its cache is. */
  remove(endpoint: string): void {
    const slot = this.slots.get(endpoint);
    if (slot === undefined) return;
    while (this.oldest[slot] !== NONE) this.dropOldest(slot);
    this.slots.delete(endpoint);
    this.freeSlots.push(slot);
  }

  private slotOf(endpoint: string): number {
    const known = this.slots.get(endpoint);
    if (known !== undefined) return known;
    const slot = this.freeSlots.pop() ?? this.slots.size;
    this.slots.set(endpoint, slot);
    if (slot === this.counts.length) {
      this.newest = doubled(this.newest, NONE);
      this.oldest = doubled(this.oldest, NONE);
      this.counts = doubled(this.counts, 0);
      this.matched = doubled(this.matched, 0);
    }
    return slot;
  }

  private touch(slot: number, lo: number, hi: number): void {
    const block = this.find(lo, hi);
    if (block !== NONE) {
      for (let h = this.blockHolding[block] as number; h !== NONE; h = this.holdingNext[h] as number) {
        if (this.holdingSlot[h] !== slot) continue;
        this.unlink(slot, h);
        this.linkNewest(slot, h);
        return;
      }
    }
    const { blocksPerEndpoint, maxBlocks } = this.limits;
    if ((this.counts[slot] as number) >= blocksPerEndpoint) this.dropOldest(slot);
    else if (this.holdingCount >= maxBlocks) this.dropOldest(this.fullest());
    // Dropping may have taken the block with it.
    const kept = this.find(lo, hi);
    this.hold(slot, kept === NONE ? this.addBlock(lo, hi) : kept);
  }

  /** So that endpoints that come late get their part of what is left. */
  private fullest(): number {
    let fullest = 0;
    for (let slot = 1; slot < this.counts.length; slot++) {
      if ((this.counts[slot] as number) > (this.counts[fullest] as number)) fullest = slot;
    }
    return fullest;
  }

  private hold(slot: number, block: number): void {
    let h = this.freeHolding;
    if (h !== NONE) this.freeHolding = this.holdingNext[h] as number;
    else h = this.newHolding();
    this.holdingBlock[h] = block;
    this.holdingSlot[h] = slot;
    this.holdingNext[h] = this.blockHolding[block] as number;
    this.blockHolding[block] = h;
    this.linkNewest(slot, h);
    this.counts[slot] = (this.counts[slot] as number) + 1;
    this.holdingCount++;
  }

  private dropOldest(slot: number): void {
    const h = this.oldest[slot] as number;
    this.unlink(slot, h);
    this.counts[slot] = (this.counts[slot] as number) - 1;
    this.holdingCount--;
    const block = this.holdingBlock[h] as number;
    const next = this.holdingNext[h] as number;
    let before = this.blockHolding[block] as number;
    if (before === h) this.blockHolding[block] = next;
    else {
      while (this.holdingNext[before] !== h) before = this.holdingNext[before] as number;
      this.holdingNext[before] = next;
    }
    this.holdingNext[h] = this.freeHolding;
    this.freeHolding = h;
    if (this.blockHolding[block] === NONE) this.dropBlock(block);
  }

  private unlink(slot: number, h: number): void {
    const newer = this.holdingNewer[h] as number;
    const older = this.holdingOlder[h] as number;
    if (newer === NONE) this.newest[slot] = older;
    else this.holdingOlder[newer] = older;
    if (older === NONE) this.oldest[slot] = newer;
    else this.holdingNewer[older] = newer;
  }

  private linkNewest(slot: number, h: number): void {
    const older = this.newest[slot] as number;
    this.holdingOlder[h] = older;
    this.holdingNewer[h] = NONE;
    if (older === NONE) this.oldest[slot] = h;
    else this.holdingNewer[older] = h;
    this.newest[slot] = h;
  }

  private find(lo: number, hi: number): number {
    const { blockLo, blockHi, blockNext } = this;
    let block = this.buckets[lo & (this.buckets.length - 1)] as number;
    while (block !== NONE && (blockLo[block] !== lo || blockHi[block] !== hi)) block = blockNext[block] as number;
    return block;
  }

  private addBlock(lo: number, hi: number): number {
    let block = this.freeBlock;
    if (block !== NONE) this.freeBlock = this.blockNext[block] as number;
    else block = this.newBlock();
    this.blockLo[block] = lo;
    this.blockHi[block] = hi;
    this.blockHolding[block] = NONE;
    if (++this.blockCount > this.buckets.length) this.rehash();
    const bucket = lo & (this.buckets.length - 1);
    this.blockNext[block] = this.buckets[bucket] as number;
    this.buckets[bucket] = block;
    return block;
  }

  private dropBlock(block: number): void {
    const bucket = (this.blockLo[block] as number) & (this.buckets.length - 1);
    const next = this.blockNext[block] as number;
    let before = this.buckets[bucket] as number;
    if (before === block) this.buckets[bucket] = next;
    else {
      while (this.blockNext[before] !== block) before = this.blockNext[before] as number;
      this.blockNext[before] = next;
    }
    this.blockNext[block] = this.freeBlock;
    this.freeBlock = block;
    this.blockCount--;
  }

  private rehash(): void {
    const old = this.buckets;
    const buckets = new Int32Array(old.length * 2).fill(NONE);
    for (const head of old) {
      for (let block = head; block !== NONE; ) {
        const next = this.blockNext[block] as number;
        const bucket = (this.blockLo[block] as number) & (buckets.length - 1);
        this.blockNext[block] = buckets[bucket] as number;
        buckets[bucket] = block;
        block = next;
      }
    }
    this.buckets = buckets;
  }

  private newBlock(): number {
    if (this.blocksMade === this.blockNext.length) {
      this.blockLo = doubled(this.blockLo, 0);
      this.blockHi = doubled(this.blockHi, 0);
      this.blockNext = doubled(this.blockNext, 0);
      this.blockHolding = doubled(this.blockHolding, 0);
    }
    return this.blocksMade++;
  }

  private newHolding(): number {
    if (this.holdingsMade === this.holdingNext.length) {
      this.holdingBlock = doubled(this.holdingBlock, 0);
      this.holdingSlot = doubled(this.holdingSlot, 0);
      this.holdingNext = doubled(this.holdingNext, 0);
      this.holdingNewer = doubled(this.holdingNewer, 0);
      this.holdingOlder = doubled(this.holdingOlder, 0);
    }
    return this.holdingsMade++;
  }
}

function doubled<T extends Int32Array | Uint32Array>(array: T, fill: number): T {
  const grown = new (array.constructor as new (length: number) => T)(array.length * 2).fill(fill) as T;
  grown.set(array);
  return grown;
}
