import { expect, test } from 'vitest';
import { AssertionError } from './assert.ts';
import { SpanRecorder } from './spans.ts';

function recorder(limit: number): SpanRecorder {
  let ms = 0;
  return new SpanRecorder({ now: () => ++ms }, 'step', limit);
}

test('spans nest, carry what their end says, and copy the marks of their children', () => {
  const spans = recorder(5);
  const marks = Float64Array.of(0, 0.2, 0.7);
  spans.begin('step');
  spans.begin('run');
  spans.children(['a', 'b'], marks);
  marks.fill(9);
  spans.end();
  spans.end({ tokens: 3 });
  expect(spans.spans).toEqual([
    { name: 'step', startMs: 1, endMs: 4, depth: 0, args: { tokens: 3 }, children: null },
    {
      name: 'run',
      startMs: 2,
      endMs: 3,
      depth: 1,
      args: null,
      children: { names: ['a', 'b'], marksMs: Float64Array.of(0, 0.2, 0.7) },
    },
  ]);
});

test('full when the step after the last one begins; what comes between and after the steps is kept till then', () => {
  const spans = recorder(2);
  for (let i = 0; i < 4; i++) {
    for (const name of ['step', 'publish']) {
      spans.begin(name);
      spans.begin('step');
      spans.end();
      spans.end();
    }
    expect(spans.isFull).toBe(i >= 2);
  }
  expect(spans.spans.filter(({ depth }) => depth === 0).map(({ name }) => name)).toEqual([
    'step',
    'publish',
    'step',
    'publish',
  ]);
});

test('an end without a beginning is a bug', () => {
  expect(() => recorder(1).end()).toThrow(AssertionError);
});
