import { expect, test } from 'vitest';
import { parseExposition } from './exposition.ts';

test('names, labels, escapes and values as Prometheus writes them', () => {
  const text = [
    '# HELP vllm:x What.',
    '# TYPE vllm:x gauge',
    'vllm:x{model_name="a b",engine="0"} 3',
    'up 1 1700000000000',
    String.raw`weird{path="C:\\dir",q="say \"hi\"",line="a\nb",} +Inf`,
    'h_bucket{le="0.5"} 1.5e3',
    'none NaN',
    '',
  ].join('\n');
  expect(parseExposition(text, 100)).toEqual([
    { name: 'vllm:x', labels: { model_name: 'a b', engine: '0' }, value: 3 },
    { name: 'up', labels: {}, value: 1 },
    { name: 'weird', labels: { path: 'C:\\dir', q: 'say "hi"', line: 'a\nb' }, value: Number.POSITIVE_INFINITY },
    { name: 'h_bucket', labels: { le: '0.5' }, value: 1500 },
    { name: 'none', labels: {}, value: Number.NaN },
  ]);
});

test.each([
  '{} 1',
  'x{a=b} 1',
  'x{a="b" 1',
  'x{a="b"}',
  'x one',
  'x 0x',
  '1x 2',
  `x{${Array.from({ length: 40 }, (_, i) => `l${i}="v"`).join(',')}} 1`,
  `x{a="${'y'.repeat(5000)}"} 1`,
])('%.40s is left out', (line) => {
  expect(parseExposition(`${line}\nfine 1\n`, 100).map(({ name }) => name)).toEqual(['fine']);
});

test('a label called __proto__ is a label, and there are no more samples than asked for', () => {
  const [sample] = parseExposition('x{__proto__="y"} 1', 10);
  expect(Object.entries(sample?.labels ?? {})).toEqual([['__proto__', 'y']]);
  expect(Object.getPrototypeOf(sample?.labels)).toBe(Object.prototype);
  expect(parseExposition('x 1\n'.repeat(50), 7)).toHaveLength(7);
});
