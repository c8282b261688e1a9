/** A growing Int32Array: amortised O(1) push, no boxed numbers, and `data` can be copied into other typed arrays as it is. */
export class GrowableInt32 {
  /** Backing store; only the first `length` elements mean anything. Replaced when it grows, so never keep a reference. */
  data: Int32Array;
  length = 0;
  /** How often it was emptied: while this stays the same, elements are only added. */
  clears = 0;

  constructor(capacity = 16) {
    this.data = new Int32Array(Math.max(1, capacity));
  }

  static from(values: ArrayLike<number>, spare = 16): GrowableInt32 {
    const result = new GrowableInt32(values.length + spare);
    result.data.set(values);
    result.length = values.length;
    return result;
  }

  push(value: number): void {
    if (this.length === this.data.length) {
      const grown = new Int32Array(this.data.length * 2);
      grown.set(this.data);
      this.data = grown;
    }
    this.data[this.length++] = value;
  }

  /** Element `index`; the caller keeps 0 <= index < length. */
  at(index: number): number {
    return this.data[index] as number;
  }

  clear(): void {
    this.length = 0;
    this.clears++;
  }
}
