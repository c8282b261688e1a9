import { expect, test } from 'vitest';
import { GrowableInt32 } from './growable.ts';

test('keeps its values while it grows', () => {
  const list = new GrowableInt32(1);
  for (let i = 0; i < 1000; i++) list.push(i * 3);
  expect(list.length).toBe(1000);
  expect([...list.data.subarray(0, 1000)]).toEqual(Array.from({ length: 1000 }, (_, i) => i * 3));
  expect(list.at(999)).toBe(2997);
});

test('copies what it is made from', () => {
  const source = Int32Array.of(4, 5, 6);
  const list = GrowableInt32.from(source, 0);
  list.push(7);
  source[0] = 9;
  expect([...list.data.subarray(0, list.length)]).toEqual([4, 5, 6, 7]);
  list.clear();
  expect(list.length).toBe(0);
});
