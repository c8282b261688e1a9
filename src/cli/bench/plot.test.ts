import { describe, expect, it } from 'vitest';
import { cumulative, histogram, table } from './plot.ts';

const counts = (lines: string[]) => lines.map((line) => Number(line.split(' ').at(-1)));

describe('histogram', () => {
  it('puts every value into exactly one line', () => {
    const values = Array.from({ length: 100 }, (_, i) => i);
    const lines = histogram(values, 'ms');
    expect(counts(lines).reduce((a, b) => a + b)).toBe(100);
    expect(lines).toHaveLength(11);
  });

  it('keeps the tail apart', () => {
    const values = [...Array.from({ length: 999 }, (_, i) => i % 10), 1_000_000];
    const lines = histogram(values, 'ms', 9);
    expect(counts(lines).at(-1)).toBe(1);
    expect(lines.at(-1)).toContain('> 9.00 ms');
  });

  it('draws the fullest line at full width', () => {
    expect(histogram([1, 1, 1, 2], 's', 2, 8)[0]).toContain('████████ 3');
  });

  it('says so when all are equal or there are none', () => {
    expect(histogram([5, 5], 'ms')).toEqual(['all 2 at 5.00 ms']);
    expect(histogram([], 'ms')).toEqual(['(nothing measured)']);
  });
});

describe('cumulative', () => {
  it('ends at the largest value with a full bar', () => {
    expect(cumulative([3, 1, 2], 'ms', 4).at(-1)).toBe('100% │████ 3.00 ms');
  });
});

describe('table', () => {
  it('aligns columns', () => {
    expect(
      table([
        ['a', '1'],
        ['bbb', '22'],
      ]),
    ).toEqual(['a     1', 'bbb  22']);
  });
});
