import { expect, test } from 'vitest';
import { ConfigFields } from './fields.ts';
import { inverseFrequencies, parseRope, ropeRows, scaledMaxPosition } from './rope.ts';

const parse = (scaling: unknown, maxPosition = 256) =>
  parseRope(new ConfigFields(JSON.parse(JSON.stringify({ rope_scaling: scaling })), 'test'), 16, maxPosition);

test('a row holds cosines, then sines, of position times frequency', () => {
  const rope = parse(null);
  const table = ropeRows(rope, 0, 3, 3);
  expect(table.length).toBe(3 * 16);
  expect(table[0]).toBe(1);
  expect(table[8]).toBe(0);
  expect(table[2 * 16 + 1]).toBeCloseTo(Math.cos(2 * 10000 ** (-2 / 16)), 6);
  expect(table[2 * 16 + 9]).toBeCloseTo(Math.sin(2 * 10000 ** (-2 / 16)), 6);
});

test('rows are the same whichever are computed with them', () => {
  const rope = parse({
    rope_type: 'longrope',
    factor: 4,
    short_factor: Array(8).fill(2),
    long_factor: Array(8).fill(3),
  });
  const all = ropeRows(rope, 0, 40, 256);
  expect(ropeRows(rope, 17, 33, 256)).toEqual(all.subarray(17 * 16, 33 * 16));
});

test('yarn keeps fast waves, slows slow ones by the factor, and scales attention', () => {
  const rope = parse({ rope_type: 'yarn', factor: 4, original_max_position_embeddings: 64 });
  const [plain, scaled] = [inverseFrequencies(parse(null), 256), inverseFrequencies(rope, 256)];
  expect(scaled[0]).toBe(plain[0]);
  expect(scaled[7]! * 4).toBeCloseTo(plain[7]!, 6);
  expect(ropeRows(rope, 0, 1, 256)[0]).toBeCloseTo(0.1 * Math.log(4) + 1, 6);
  const named = parse({ rope_type: 'yarn', factor: 4, mscale: 2, mscale_all_dim: 1, truncate: false });
  expect(ropeRows(named, 0, 1, 256)[0]).toBeCloseTo((0.2 * Math.log(4) + 1) / (0.1 * Math.log(4) + 1), 6);
  expect(ropeRows(parse({ rope_type: 'yarn', factor: 4, attention_factor: 1.5 }), 0, 1, 256)[0]).toBe(1.5);
});

test('longest context by kind of scaling', () => {
  expect(scaledMaxPosition(parse({ type: 'linear', factor: 4 }), 256)).toBe(1024);
  expect(scaledMaxPosition(parse({ type: 'dynamic', factor: 2 }), 256)).toBe(512);
  expect(scaledMaxPosition(parse({ type: 'yarn', factor: 4, original_max_position_embeddings: 64 }), 256)).toBe(256);
  const llama3 = {
    rope_type: 'llama3',
    factor: 8,
    low_freq_factor: 1,
    high_freq_factor: 4,
    original_max_position_embeddings: 64,
  };
  expect(scaledMaxPosition(parse(llama3), 256)).toBe(256);
});

test.each([
  [{ rope_type: 'linear' }, 'factor is missing'],
  [{ rope_type: 'linear', factor: 0 }, 'factor is 0'],
  [{ rope_type: 'longrope', factor: 4, short_factor: [1], long_factor: [1] }, 'a list of 8 numbers'],
  [
    { rope_type: 'longrope', factor: 4, short_factor: Array(8).fill(0), long_factor: Array(8).fill(1) },
    'short_factor is [0',
  ],
  [{ rope_type: 'llama3', factor: 8, low_freq_factor: 4, high_freq_factor: 4 }, 'more than low_freq_factor'],
  [{ rope_type: 'yarn', factor: 4, truncate: 1 }, 'truncate is 1'],
])('%j is refused', (scaling, message) => {
  expect(() => parse(scaling)).toThrow(message);
});
