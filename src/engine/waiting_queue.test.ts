import { expect, test } from 'vitest';
import { Rng } from '../base/rng.ts';
import { Sequence } from './sequence.ts';
import { makePrompt, makeRequest } from './testdata/fake_executor.ts';
import { fcfsOrder, priorityOrder, WaitingQueue } from './waiting_queue.ts';

test.each([
  ['fcfs', fcfsOrder],
  ['priority', priorityOrder],
])('%s: always gives the first of what a sorted list would', (_name, order) => {
  const rng = new Rng(5);
  const queue = new WaitingQueue(order);
  const sorted: Sequence[] = [];
  for (let i = 0; i < 3000; i++) {
    if (rng.next() < 0.55) {
      const rest = { priority: rng.int(0, 3), arrivalMs: rng.int(0, 50) };
      const sequence = new Sequence(makeRequest(`${i}`, makePrompt(1, 1), {}, rest), i);
      queue.push(sequence);
      sorted.push(sequence);
      sorted.sort(order);
    } else if (sorted.length > 0) {
      const index = rng.next() < 0.5 ? 0 : rng.int(0, sorted.length - 1);
      queue.remove(sorted[index] as Sequence);
      sorted.splice(index, 1);
    }
    expect(queue.size).toBe(sorted.length);
    expect(queue.peek()).toBe(sorted[0]);
  }
});
