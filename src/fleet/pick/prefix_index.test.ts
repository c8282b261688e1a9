import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Rng } from '../../base/rng.ts';
import { KeyedHash, mix32 } from './hash.ts';
import { PrefixIndex, PromptHasher } from './prefix_index.ts';

const BLOCK = 256;

describe('prompt hashes', () => {
  const hasher = new PromptHasher(0x0123456789abcdefn);
  const text = Array.from({ length: 5 * BLOCK + 17 }, (_, i) => String.fromCharCode(97 + (mix32(i) % 26))).join('');

  test('two lanes a whole block, each covering all before it', () => {
    const whole = hasher.hash('m', text);
    expect(whole.length).toBe(2 * 5);
    expect([...hasher.hash('m', text.slice(0, 3 * BLOCK))]).toEqual([...whole.slice(0, 6)]);
    expect(hasher.hash('m', text.slice(0, BLOCK - 1)).length).toBe(0);
    const changed = hasher.hash('m', `${text.slice(0, 2 * BLOCK)}!${text.slice(2 * BLOCK + 1)}`);
    expect([...changed.slice(0, 4)]).toEqual([...whole.slice(0, 4)]);
    for (let i = 4; i < 10; i++) expect(changed[i]).not.toBe(whole[i]);
  });

  test('bytes and text give the same; salt and seed do not', () => {
    const accents = 'ä€😀'.repeat(300);
    expect(hasher.hash('m', Buffer.from(accents))).toEqual(hasher.hash('m', accents));
    expect(hasher.hash('n', text)[0]).not.toBe(hasher.hash('m', text)[0]);
    expect(new PromptHasher(1n).hash('m', text)[0]).not.toBe(hasher.hash('m', text)[0]);
    // The salt ends somewhere: what moves over its end is another prompt.
    expect(hasher.hash('ab', 'cd'.repeat(BLOCK))[0]).not.toBe(hasher.hash('abcd', 'cd'.repeat(BLOCK))[0]);
  });

  test('a prompt is cut at 131,072 tokens', () => {
    const long = hasher.hash('m', 'x'.repeat(600_000));
    expect(long.length).toBe(2 * 2048);
    expect(hasher.hash('m', Buffer.alloc(600_000, 'x'))).toEqual(long);
  });

  test('many words at once and one by one are the same hash, and a bit changes half of it', () => {
    const hash = new KeyedHash(99n);
    const rng = new Rng(3);
    let flipped = 0;
    for (let run = 0; run < 200; run++) {
      const words = Int32Array.from({ length: 9 }, () => Math.floor(rng.next() * 2 ** 32));
      hash.start();
      hash.words(words, 0, words.length);
      hash.finish();
      const [lo, hi] = [hash.lo, hash.hi];
      hash.start();
      for (const word of words) hash.word(word);
      hash.finish();
      expect([hash.lo, hash.hi]).toEqual([lo, hi]);
      words[rng.int(0, 8)]! ^= 1 << rng.int(0, 31);
      hash.start();
      hash.words(words, 0, words.length);
      hash.finish();
      flipped += bits(hash.lo ^ lo) + bits(hash.hi ^ hi);
    }
    expect(flipped / 200).toBeGreaterThan(31);
    expect(flipped / 200).toBeLessThan(33);
  });
});

/** The definition: a list of blocks per endpoint in order of use. */
class PlainIndex {
  readonly held = new Map<string, string[]>();
  readonly capacities = new Map<string, number>();
  private readonly capacity: number;

  constructor(capacity: number) {
    this.capacity = capacity;
  }

  setCapacity(endpoint: string, blocks: number): void {
    this.capacities.set(endpoint, Math.min(blocks, this.capacity));
    this.record(endpoint, []);
  }

  record(endpoint: string, keys: readonly string[]): void {
    const capacity = this.capacities.get(endpoint) ?? this.capacity;
    const kept = keys.slice(0, capacity);
    const others = (this.held.get(endpoint) ?? []).filter((key) => !kept.includes(key));
    this.held.set(endpoint, [...kept, ...others].slice(0, capacity));
  }

  match(endpoint: string, keys: readonly string[]): number {
    const held = this.held.get(endpoint) ?? [];
    const missing = keys.findIndex((key) => !held.includes(key));
    return missing === -1 ? keys.length : missing;
  }
}

describe('prefix index', () => {
  /** Prompts as paths: the hash of a block names the path up to it. */
  const hashesOf = (path: readonly number[]) =>
    Uint32Array.from(path.flatMap((_, i) => [mix32(Number(path.slice(0, i + 1).join(''))), path.length > 99 ? 1 : 0]));
  const keysOf = (path: readonly number[]) => path.map((_, i) => path.slice(0, i + 1).join(''));
  const ENDPOINTS = ['a', 'b', 'c', '__proto__'];

  test('does what a plain list does', () => {
    const path = fc.array(fc.integer({ min: 1, max: 2 }), { minLength: 1, maxLength: 6 });
    const command = fc.record({
      kind: fc.constantFrom('record', 'record', 'record', 'match', 'remove', 'setCapacity'),
      endpoint: fc.constantFrom(...ENDPOINTS),
      path,
    });
    fc.assert(
      fc.property(fc.array(command, { maxLength: 80 }), fc.integer({ min: 1, max: 9 }), (commands, capacity) => {
        const index = new PrefixIndex({ blocksPerEndpoint: capacity });
        const plain = new PlainIndex(capacity);
        for (const { kind, endpoint, path: blocks } of commands) {
          if (kind === 'record') {
            index.record(endpoint, hashesOf(blocks));
            plain.record(endpoint, keysOf(blocks));
          } else if (kind === 'remove') {
            index.remove(endpoint);
            plain.held.delete(endpoint);
            plain.capacities.delete(endpoint);
          } else if (kind === 'setCapacity') {
            index.setCapacity(endpoint, blocks.length);
            plain.setCapacity(endpoint, blocks.length);
          }
          const matched = new Int32Array(ENDPOINTS.length);
          index.match(hashesOf(blocks), ENDPOINTS, matched);
          expect([...matched]).toEqual(ENDPOINTS.map((id) => plain.match(id, keysOf(blocks))));
          expect(index.size).toBe([...plain.held.values()].reduce((sum, keys) => sum + keys.length, 0));
        }
      }),
      { seed: 11, numRuns: 300 },
    );
  });

  test('holds no more than its bounds, and keeps the start of prompts longest', () => {
    const index = new PrefixIndex({ blocksPerEndpoint: 3000, maxBlocks: 5000 });
    const prompt = (number: number) => Uint32Array.from({ length: 200 }, (_, i) => mix32(number * 1000 + i));
    const matched = new Int32Array(3);
    for (let number = 0; number < 100; number++) {
      for (const endpoint of ['a', 'b']) index.record(endpoint, prompt(number));
      expect(index.size).toBeLessThanOrEqual(5000);
    }
    index.match(prompt(99), ['a', 'b'], matched);
    expect([...matched]).toEqual([100, 100, 0]);
    // 25 prompts of 100 fit for each; an older one has lost all.
    index.match(prompt(76), ['a', 'b'], matched);
    expect([...matched]).toEqual([100, 100, 0]);
    index.match(prompt(73), ['a', 'b'], matched);
    expect([...matched]).toEqual([0, 0, 0]);
    // Who comes late gets a part.
    for (let number = 0; number < 50; number++) index.record('c', prompt(number));
    index.match(prompt(40), ['c'], matched);
    expect(matched[0]).toBe(100);
    expect(index.size).toBe(5000);
    for (const endpoint of ['a', 'b', 'c']) index.remove(endpoint);
    expect(index.size).toBe(0);
    const long = Uint32Array.from({ length: 8000 }, (_, i) => mix32(i));
    index.record('d', long);
    index.match(long, ['d'], matched);
    expect(matched[0]).toBe(3000);
  });

  test('endpoints come and go without end', () => {
    const index = new PrefixIndex();
    const prompt = Uint32Array.from({ length: 64 }, (_, i) => mix32(i));
    const matched = new Int32Array(1);
    for (let i = 0; i < 2000; i++) {
      index.record(`e${i}`, prompt);
      index.match(prompt, [`e${i}`], matched);
      expect(matched[0]).toBe(32);
      if (i >= 40) index.remove(`e${i - 40}`);
    }
    expect(index.size).toBe(40 * 32);
  });
});

function bits(value: number): number {
  let count = 0;
  for (let rest = value; rest !== 0; rest &= rest - 1) count++;
  return count;
}
