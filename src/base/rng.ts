/**
 * Counter-based random numbers: a pure hash of (seed, counter), so a draw depends on nothing that came before it.
 * This is what makes sampling independent of batch, preemption and rank (promise P1).
 * Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014 (SplitMix64 finaliser).
 */
const GOLDEN_GAMMA = 0x9e3779b97f4a7c15n;
const MASK_64 = 0xffffffffffffffffn;

/** 64-bit hash of two 64-bit integers. */
export function hash64(seed: bigint, counter: bigint): bigint {
  let z = (BigInt.asUintN(64, seed) + GOLDEN_GAMMA * (BigInt.asUintN(64, counter) + 1n)) & MASK_64;
  z = ((z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n) & MASK_64;
  z = ((z ^ (z >> 27n)) * 0x94d049bb133111ebn) & MASK_64;
  return z ^ (z >> 31n);
}

/** Uniform in [0, 1) with 53 random bits, from (seed, counter). */
export function uniform(seed: bigint, counter: bigint): number {
  return Number(hash64(seed, counter) >> 11n) * 2 ** -53;
}

/** A sequential generator over {@link hash64}, for tests, benchmarks and random weights. */
export class Rng {
  private counter = 0n;
  private readonly seed: bigint;

  constructor(seed: number | bigint) {
    this.seed = BigInt(seed);
  }

  /** Uniform in [0, 1). */
  next(): number {
    return uniform(this.seed, this.counter++);
  }

  /** Integer in [min, max], both included. */
  int(min: number, max: number): number {
    return min + Math.floor(this.next() * (max - min + 1));
  }

  /** Standard normal, by Box-Muller. */
  normal(): number {
    const radius = Math.sqrt(-2 * Math.log(1 - this.next()));
    return radius * Math.cos(2 * Math.PI * this.next());
  }

  pick<T>(items: readonly T[]): T {
    return items[this.int(0, items.length - 1)] as T;
  }
}
