/** Hash table from two non-negative 32-bit integers to one, in typed arrays: merges of BPE and edges of tries. */
export class PairTable {
  private keys: Int32Array;
  private values: Int32Array;
  private mask: number;
  private count = 0;

  constructor(expected = 16) {
    const size = 2 ** Math.ceil(Math.log2(Math.max(16, expected * 2)));
    this.keys = new Int32Array(size * 2).fill(-1);
    this.values = new Int32Array(size);
    this.mask = size - 1;
  }

  /** The value of (a, b), or -1. */
  get(a: number, b: number): number {
    const { keys, mask } = this;
    for (let slot = hash(a, b) & mask; ; slot = (slot + 1) & mask) {
      const first = keys[slot * 2] as number;
      if (first === -1) return -1;
      if (first === a && keys[slot * 2 + 1] === b) return this.values[slot] as number;
    }
  }

  set(a: number, b: number, value: number): void {
    if (this.count * 2 > this.mask) this.grow();
    const { keys, mask } = this;
    let slot = hash(a, b) & mask;
    while (keys[slot * 2] !== -1 && !(keys[slot * 2] === a && keys[slot * 2 + 1] === b)) slot = (slot + 1) & mask;
    if (keys[slot * 2] === -1) this.count++;
    keys[slot * 2] = a;
    keys[slot * 2 + 1] = b;
    this.values[slot] = value;
  }

  private grow(): void {
    const { keys, values } = this;
    this.keys = new Int32Array(keys.length * 2).fill(-1);
    this.values = new Int32Array(values.length * 2);
    this.mask = values.length * 2 - 1;
    this.count = 0;
    for (let slot = 0; slot < values.length; slot++) {
      if (keys[slot * 2] !== -1)
        this.set(keys[slot * 2] as number, keys[slot * 2 + 1] as number, values[slot] as number);
    }
  }
}

function hash(a: number, b: number): number {
  const mixed = Math.imul(a, 0x9e3779b1) ^ Math.imul(b, 0x85ebca6b);
  return (mixed ^ (mixed >>> 15)) & 0x3fffffff;
}

/** Set of strings with values, walked one UTF-16 unit at a time. */
export class Trie {
  private readonly edges = new PairTable();
  /** Value at each node, -1 where no string ends. */
  private readonly ends: number[] = [-1];

  add(text: string, value: number): void {
    let node = 0;
    for (let i = 0; i < text.length; i++) {
      let next = this.edges.get(node, text.charCodeAt(i));
      if (next < 0) {
        next = this.ends.push(-1) - 1;
        this.edges.set(node, text.charCodeAt(i), next);
      }
      node = next;
    }
    this.ends[node] = value;
  }

  /** Node reached from `node` over `unit`, or -1. Start at node 0. */
  step(node: number, unit: number): number {
    return this.edges.get(node, unit);
  }

  valueAt(node: number): number {
    return this.ends[node] as number;
  }
}
