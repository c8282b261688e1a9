import type { Sequence } from './sequence.ts';

/** Negative when `a` goes before `b`. Total: no two sequences are equal. */
export type Order = (a: Sequence, b: Sequence) => number;

/** First come, first served. A preempted sequence came before all that wait, so it is in front again by itself. */
export const fcfsOrder: Order = (a, b) => a.number - b.number;

/** Smaller priority value first, then earlier arrival. */
export const priorityOrder: Order = (a, b) =>
  a.request.priority - b.request.priority || a.request.arrivalMs - b.request.arrivalMs || a.number - b.number;

/** Binary heap of waiting sequences that can also remove one from the middle (abort), all in O(log n). */
export class WaitingQueue {
  private readonly order: Order;
  private readonly heap: Sequence[] = [];

  constructor(order: Order) {
    this.order = order;
  }

  get size(): number {
    return this.heap.length;
  }

  peek(): Sequence | undefined {
    return this.heap[0];
  }

  push(sequence: Sequence): void {
    this.heap.push(sequence);
    this.up(this.heap.length - 1, sequence);
  }

  /** Removes a sequence that is in the queue. */
  remove(sequence: Sequence): void {
    const index = sequence.heapIndex;
    sequence.heapIndex = -1;
    const last = this.heap.pop() as Sequence;
    if (last === sequence) return;
    this.up(index, last);
    this.down(last.heapIndex, last);
  }

  private place(index: number, sequence: Sequence): void {
    this.heap[index] = sequence;
    sequence.heapIndex = index;
  }

  private up(start: number, sequence: Sequence): void {
    let index = start;
    while (index > 0) {
      const parentIndex = (index - 1) >> 1;
      const parent = this.heap[parentIndex] as Sequence;
      if (this.order(parent, sequence) <= 0) break;
      this.place(index, parent);
      index = parentIndex;
    }
    this.place(index, sequence);
  }

  private down(start: number, sequence: Sequence): void {
    let index = start;
    for (;;) {
      let childIndex = 2 * index + 1;
      let child = this.heap[childIndex];
      if (child === undefined) break;
      const right = this.heap[childIndex + 1];
      if (right !== undefined && this.order(right, child) < 0) {
        child = right;
        childIndex++;
      }
      if (this.order(sequence, child) <= 0) break;
      this.place(index, child);
      index = childIndex;
    }
    this.place(index, sequence);
  }
}
