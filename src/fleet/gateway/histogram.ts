import type { Histogram } from './routing_table.ts';

const TTFT_BOUNDS_MS = [
  5, 10, 25, 50, 75, 100, 150, 200, 300, 400, 500, 750, 1000, 1500, 2000, 3000, 5000, 7500, 10_000, 20_000, 40_000,
  80_000,
];
const TPOT_BOUNDS_MS = [1, 2, 3, 5, 7.5, 10, 15, 20, 25, 30, 40, 50, 75, 100, 150, 200, 300, 500, 1000, 2500];

/** Counts by bucket; `snapshot` is the form of the gateway's stats. */
export class HistogramCounts {
  private readonly bounds: readonly number[];
  private readonly counts: number[];
  private sum = 0;

  constructor(bounds: readonly number[]) {
    this.bounds = bounds;
    this.counts = new Array<number>(bounds.length + 1).fill(0);
  }

  observe(value: number): void {
    let low = 0;
    let high = this.bounds.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (value <= (this.bounds[middle] as number)) high = middle;
      else low = middle + 1;
    }
    this.counts[low] = (this.counts[low] as number) + 1;
    this.sum += value;
  }

  snapshot(): Histogram {
    return { bounds: this.bounds, counts: [...this.counts], sum: this.sum };
  }
}

export const ttftHistogram = (): HistogramCounts => new HistogramCounts(TTFT_BOUNDS_MS);
export const tpotHistogram = (): HistogramCounts => new HistogramCounts(TPOT_BOUNDS_MS);
