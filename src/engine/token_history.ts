import { GrowableInt32 } from '../base/growable.ts';

/**
 * Which ids a sequence has seen, and how often it wrote each: all that the repetition, frequency and presence penalties
 * need, as a sparse list to edit a logit row with.
 */
export class TokenHistory {
  /** Distinct ids of prompt and output. */
  readonly ids = new GrowableInt32();
  /** How often `ids[i]` occurs in the output; 0 = in the prompt only. */
  readonly outputCounts = new GrowableInt32();
  private readonly indexOf = new Map<number, number>();

  constructor(promptTokenIds: Int32Array) {
    for (const id of promptTokenIds) this.slot(id);
  }

  addOutput(id: number): void {
    const slot = this.slot(id);
    this.outputCounts.data[slot] = this.outputCounts.at(slot) + 1;
  }

  private slot(id: number): number {
    const known = this.indexOf.get(id);
    if (known !== undefined) return known;
    const slot = this.ids.length;
    this.indexOf.set(id, slot);
    this.ids.push(id);
    this.outputCounts.push(0);
    return slot;
  }
}
