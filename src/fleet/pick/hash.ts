/**
 * HalfSipHash-1-3 (Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012; the 32-bit form is what Linux keys its hash
 * tables with): fast, and who does not know the key cannot make texts collide. Results depend on the machine's byte order and
 * are not kept.
 */
export class KeyedHash {
  private readonly key0: number;
  private readonly key1: number;
  private readonly state = new Int32Array(4);
  private readonly last = new Int32Array(4);
  /** The two lanes of the last `finish`, 0..2^32 - 1. */
  lo = 0;
  hi = 0;

  constructor(seed: bigint) {
    this.key0 = Number(BigInt.asIntN(32, seed));
    this.key1 = Number(BigInt.asIntN(32, seed >> 32n));
  }

  start(): void {
    const { state, key0, key1 } = this;
    state[0] = key0;
    state[1] = key1 ^ 0xee;
    state[2] = 0x6c796765 ^ key0;
    state[3] = 0x74656463 ^ key1;
  }

  /** Takes in `words[from .. to - 1]`. */
  words(words: Int32Array, from: number, to: number): void {
    const { state } = this;
    let v0 = state[0] as number;
    let v1 = state[1] as number;
    let v2 = state[2] as number;
    let v3 = state[3] as number;
    for (let i = from; i < to; i++) {
      const word = words[i] as number;
      v3 ^= word;
      v0 = (v0 + v1) | 0;
      v1 = ((v1 << 5) | (v1 >>> 27)) ^ v0;
      v0 = (v0 << 16) | (v0 >>> 16);
      v2 = (v2 + v3) | 0;
      v3 = ((v3 << 8) | (v3 >>> 24)) ^ v2;
      v0 = (v0 + v3) | 0;
      v3 = ((v3 << 7) | (v3 >>> 25)) ^ v0;
      v2 = (v2 + v1) | 0;
      v1 = ((v1 << 13) | (v1 >>> 19)) ^ v2;
      v2 = (v2 << 16) | (v2 >>> 16);
      v0 ^= word;
    }
    state[0] = v0;
    state[1] = v1;
    state[2] = v2;
    state[3] = v3;
  }

  word(word: number): void {
    const { state } = this;
    state[3] = (state[3] as number) ^ word;
    round(state);
    state[0] = (state[0] as number) ^ word;
  }

  /** A text, its length included: two texts one after another are not the one they make together. */
  text(text: string): void {
    for (let i = 0; i < text.length; i += 2) {
      const next = i + 1 < text.length ? text.charCodeAt(i + 1) : 0;
      this.word(text.charCodeAt(i) | (next << 16));
    }
    this.word(text.length);
  }

  /** Sets `lo` and `hi` from all that was taken in so far, of which more may follow. */
  finish(): void {
    const { last } = this;
    last.set(this.state);
    last[2] = (last[2] as number) ^ 0xee;
    for (let i = 0; i < 3; i++) round(last);
    this.lo = ((last[1] as number) ^ (last[3] as number)) >>> 0;
    last[1] = (last[1] as number) ^ 0xdd;
    for (let i = 0; i < 3; i++) round(last);
    this.hi = ((last[1] as number) ^ (last[3] as number)) >>> 0;
  }

  /** Hash of some texts, a whole number below 2^53. */
  hash53(...texts: readonly string[]): number {
    this.start();
    for (const text of texts) this.text(text);
    this.finish();
    return (this.hi >>> 11) * 2 ** 32 + this.lo;
  }
}

function round(v: Int32Array): void {
  let v0 = v[0] as number;
  let v1 = v[1] as number;
  let v2 = v[2] as number;
  let v3 = v[3] as number;
  v0 = (v0 + v1) | 0;
  v1 = ((v1 << 5) | (v1 >>> 27)) ^ v0;
  v0 = (v0 << 16) | (v0 >>> 16);
  v2 = (v2 + v3) | 0;
  v3 = ((v3 << 8) | (v3 >>> 24)) ^ v2;
  v0 = (v0 + v3) | 0;
  v3 = ((v3 << 7) | (v3 >>> 25)) ^ v0;
  v2 = (v2 + v1) | 0;
  v1 = ((v1 << 13) | (v1 >>> 19)) ^ v2;
  v2 = (v2 << 16) | (v2 >>> 16);
  v[0] = v0;
  v[1] = v1;
  v[2] = v2;
  v[3] = v3;
}

/** Well mixed 32 bits of 32 (the finaliser of MurmurHash3), 0..2^32 - 1. */
export function mix32(value: number): number {
  let z = value | 0;
  z = Math.imul(z ^ (z >>> 16), 0x85ebca6b);
  z = Math.imul(z ^ (z >>> 13), 0xc2b2ae35);
  return (z ^ (z >>> 16)) >>> 0;
}
