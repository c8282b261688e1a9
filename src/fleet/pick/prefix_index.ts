/**
 * Which endpoint still has the start of a prompt in its prefix cache, as far as the gateway can tell from what it sent there
 * (the approximate prefix index of llm-d-router). Prompts are cut into blocks; the hash of a block covers all before it.
 */
import { assert } from '../../base/assert.ts';
import { KeyedHash } from './hash.ts';

/** Hashes of the whole blocks of a prompt, two 32-bit lanes each: `[lo0, hi0, lo1, hi1 ...]`. Each covers all before it. */
export type PrefixHashes = Uint32Array;

/** What a token is taken for, bytes: nobody tokenizes here. */
const BYTES_PER_TOKEN = 4;

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

/** Of a block: its hash, the next block of the same bucket (or the next free one), its first holding. */
const BLOCK_SIZE = 4;
const LO = 0;
const HI = 1;
const NEXT_BLOCK = 2;
const HOLDING = 3;

/** Of a holding: the endpoint's slot, the next holding of the same block (or the next free one). */
const HOLDING_SIZE = 2;
const SLOT = 0;
const NEXT_HOLDING = 1;

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
  private capacities = new Int32Array(16);
  private matched = new Int32Array(16);

  private buckets = new Int32Array(1024).fill(NONE);
  /** Four numbers a block, together because they are read together. */
  private blocks = new Int32Array(1024 * BLOCK_SIZE);
  private blockCount = 0;
  private blocksMade = 0;
  private freeBlock = NONE;

  /** What `match` reads of a holding, two numbers each. */
  private holdings = new Int32Array(1024 * HOLDING_SIZE);
  private holdingBlock = new Int32Array(1024);
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
    const { matched, blocks, holdings } = this;
    matched.fill(0);
    const count = prefix.length >> 1;
    for (let i = 0; i < count; i++) {
      const block = this.find(prefix[2 * i] as number, prefix[2 * i + 1] as number);
      if (block === NONE) break;
      let found = false;
      let h = blocks[block * BLOCK_SIZE + HOLDING] as number;
      for (; h !== NONE; h = holdings[h * HOLDING_SIZE + NEXT_HOLDING] as number) {
        const slot = holdings[h * HOLDING_SIZE + SLOT] as number;
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
    if (prefix.length === 0) return;
    const slot = this.slotOf(endpoint);
    const blocks = Math.min(prefix.length >> 1, this.capacities[slot] as number);
    // From the end: a block is of no use without those before it, so it must go before them.
    for (let i = blocks - 1; i >= 0; i--) this.touch(slot, prefix[2 * i] as number, prefix[2 * i + 1] as number);
  }

  /** Blocks that the endpoint's own cache holds, when that is known: no more than the limit are kept. */
  setCapacity(endpoint: string, blocks: number): void {
    const slot = this.slotOf(endpoint);
    this.capacities[slot] = Math.max(0, Math.min(this.limits.blocksPerEndpoint, Math.floor(blocks)));
    while ((this.counts[slot] as number) > (this.capacities[slot] as number)) this.dropOldest(slot);
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
      this.capacities = doubled(this.capacities, 0);
      this.matched = doubled(this.matched, 0);
    }
    this.capacities[slot] = this.limits.blocksPerEndpoint;
    return slot;
  }

  private touch(slot: number, lo: number, hi: number): void {
    const block = this.find(lo, hi);
    if (block !== NONE) {
      let h = this.firstHolding(block);
      for (; h !== NONE; h = this.nextHolding(h)) {
        if (this.holdings[h * HOLDING_SIZE + SLOT] !== slot) continue;
        this.unlink(slot, h);
        this.linkNewest(slot, h);
        return;
      }
    }
    if ((this.counts[slot] as number) >= (this.capacities[slot] as number)) this.dropOldest(slot);
    else if (this.holdingCount >= this.limits.maxBlocks) this.dropOldest(this.fullest());
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
    if (h !== NONE) this.freeHolding = this.nextHolding(h);
    else h = this.newHolding();
    this.holdingBlock[h] = block;
    this.holdings[h * HOLDING_SIZE + SLOT] = slot;
    this.holdings[h * HOLDING_SIZE + NEXT_HOLDING] = this.firstHolding(block);
    this.blocks[block * BLOCK_SIZE + HOLDING] = h;
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
    const next = this.nextHolding(h);
    let before = this.firstHolding(block);
    if (before === h) this.blocks[block * BLOCK_SIZE + HOLDING] = next;
    else {
      while (this.nextHolding(before) !== h) before = this.nextHolding(before);
      this.holdings[before * HOLDING_SIZE + NEXT_HOLDING] = next;
    }
    this.holdings[h * HOLDING_SIZE + NEXT_HOLDING] = this.freeHolding;
    this.freeHolding = h;
    if (this.firstHolding(block) === NONE) this.dropBlock(block);
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

  private firstHolding(block: number): number {
    return this.blocks[block * BLOCK_SIZE + HOLDING] as number;
  }

  private nextHolding(h: number): number {
    return this.holdings[h * HOLDING_SIZE + NEXT_HOLDING] as number;
  }

  private nextBlock(block: number): number {
    return this.blocks[block * BLOCK_SIZE + NEXT_BLOCK] as number;
  }

  private find(lo: number, hi: number): number {
    const { blocks } = this;
    let block = this.buckets[lo & (this.buckets.length - 1)] as number;
    for (; block !== NONE; block = blocks[block * BLOCK_SIZE + NEXT_BLOCK] as number) {
      const at = block * BLOCK_SIZE;
      if (blocks[at + LO] === (lo | 0) && blocks[at + HI] === (hi | 0)) break;
    }
    return block;
  }

  private addBlock(lo: number, hi: number): number {
    let block = this.freeBlock;
    if (block !== NONE) this.freeBlock = this.nextBlock(block);
    else {
      block = this.blocksMade++;
      if (this.blocks.length === block * BLOCK_SIZE) this.blocks = doubled(this.blocks, 0);
    }
    if (++this.blockCount > this.buckets.length) this.rehash();
    const at = block * BLOCK_SIZE;
    const bucket = lo & (this.buckets.length - 1);
    this.blocks[at + LO] = lo;
    this.blocks[at + HI] = hi;
    this.blocks[at + NEXT_BLOCK] = this.buckets[bucket] as number;
    this.blocks[at + HOLDING] = NONE;
    this.buckets[bucket] = block;
    return block;
  }

  private dropBlock(block: number): void {
    const bucket = (this.blocks[block * BLOCK_SIZE + LO] as number) & (this.buckets.length - 1);
    const next = this.nextBlock(block);
    let before = this.buckets[bucket] as number;
    if (before === block) this.buckets[bucket] = next;
    else {
      while (this.nextBlock(before) !== block) before = this.nextBlock(before);
      this.blocks[before * BLOCK_SIZE + NEXT_BLOCK] = next;
    }
    this.blocks[block * BLOCK_SIZE + NEXT_BLOCK] = this.freeBlock;
    this.freeBlock = block;
    this.blockCount--;
  }

  private rehash(): void {
    const old = this.buckets;
    const buckets = new Int32Array(old.length * 2).fill(NONE);
    for (const head of old) {
      for (let block = head; block !== NONE; ) {
        const next = this.nextBlock(block);
        const bucket = (this.blocks[block * BLOCK_SIZE + LO] as number) & (buckets.length - 1);
        this.blocks[block * BLOCK_SIZE + NEXT_BLOCK] = buckets[bucket] as number;
        buckets[bucket] = block;
        block = next;
      }
    }
    this.buckets = buckets;
  }

  private newHolding(): number {
    if (this.holdingsMade === this.holdingBlock.length) {
      this.holdings = doubled(this.holdings, 0);
      this.holdingBlock = doubled(this.holdingBlock, 0);
      this.holdingNewer = doubled(this.holdingNewer, 0);
      this.holdingOlder = doubled(this.holdingOlder, 0);
    }
    return this.holdingsMade++;
  }
}

function doubled(array: Int32Array, fill: number): Int32Array<ArrayBuffer> {
  const grown = new Int32Array(array.length * 2).fill(fill);
  grown.set(array);
  return grown;
}
