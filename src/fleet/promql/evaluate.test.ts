import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { TokenmillError } from '../../base/errors.ts';
import { evaluateQuery } from './evaluate.ts';
import { SampleStore } from './sample_store.ts';

function store(): SampleStore {
  const samples = new SampleStore();
  for (let at = 0; at <= 20; at++) {
    for (const replica of ['a', 'b']) {
      samples.add('vllm:num_requests_waiting', { replica, model_name: 'm' }, at * 15_000, replica === 'a' ? 3 : 4.5);
      samples.add('vllm:prompt_tokens_total', { replica }, at * 15_000, at * 30);
    }
  }
  return samples;
}

function ask(query: string, now = 300_000, samples = store()): unknown {
  const result = evaluateQuery(query, samples, now);
  if ('failed' in result) return result.failed;
  return result.elements.map(({ labels, value }) => [Object.fromEntries(labels), value]);
}

describe('PromQL', () => {
  it.each<[string, unknown]>([
    ['sum(vllm:num_requests_waiting{model_name="m"})', [[{}, 7.5]]],
    ['max by (replica) (vllm:num_requests_waiting{replica=~"b|c"})', [[{ replica: 'b' }, 4.5]]],
    ['round(sum(rate(vllm:prompt_tokens_total[1m])), 0.5)', [[{}, 4]]],
    ['sum(nothing) or vector(0)', [[{}, 0]]],
    ['sum(nothing)', []],
    ['count(vllm:num_requests_waiting > 4)', [[{}, 1]]],
    ['-2 ^ 2', [[{}, -4]]],
    ['2 ^ 3 ^ 2', [[{}, 512]]],
    ['1 + 2 * 3 % 4 - 1', [[{}, 2]]],
    ['1 > bool 2', [[{}, 0]]],
    ['time() / 60', [[{}, 5]]],
    ['0x1f + 1e-1', [[{}, 31.1]]],
    ['Inf', [[{}, Number.POSITIVE_INFINITY]]],
    ['scalar(vllm:num_requests_waiting)', [[{}, Number.NaN]]],
    ['absent(up{job="x", replica=~"y"})', [[{ job: 'x' }, 1]]],
    ['sum(vllm:num_requests_waiting) # of all', [[{}, 7.5]]],
    ['SUM BY (model_name) (vllm:num_requests_waiting)', [[{ model_name: 'm' }, 7.5]]],
  ])('%s', (query, expected) => {
    expect(ask(query)).toEqual(expected);
  });

  it('takes a sample for five minutes, and not when the series ended before', () => {
    const samples = new SampleStore();
    samples.add('up', {}, 1000, 1);
    expect(ask('up', 300_999, samples)).toEqual([[{ __name__: 'up' }, 1]]);
    expect(ask('up', 301_000, samples)).toEqual([]);
    samples.end('up', {}, 2000);
    expect(ask('up', 1999, samples)).toEqual([[{ __name__: 'up' }, 1]]);
    expect(ask('up', 2000, samples)).toEqual([]);
  });

  it('leaves out what is exactly as old as the range, as version 3 does', () => {
    expect(ask('count_over_time(vllm:num_requests_waiting{replica="a"}[1m])')).toEqual([
      [{ model_name: 'm', replica: 'a' }, 4],
    ]);
  });

  it('stretches a counter that began within the range by half a gap, and not below zero', () => {
    const samples = new SampleStore();
    for (const [at, value] of [6, 16, 26, 36].entries()) samples.add('c_total', {}, 200_000 + at * 10_000, value);
    // 30 in 30 s, half of 10 s in front, the end is reached: 10 s behind.
    expect(ask('increase(c_total[2m])', 240_000, samples)).toEqual([[{}, 45]]);
    const small = new SampleStore();
    for (const [at, value] of [2, 12, 22, 32].entries()) small.add('c_total', {}, 200_000 + at * 10_000, value);
    expect(ask('increase(c_total[2m])', 240_000, small)).toEqual([[{}, 42]]);
  });

  it.each([
    ['vllm:num_requests_waiting + on (model_name) vllm:num_requests_waiting', 'fit each other'],
    ['vllm:num_requests_waiting * on (model_name) sum by (model_name) (vllm:num_requests_waiting)', 'group_left'],
  ])('%s cannot be answered from these samples', (query, message) => {
    expect(ask(query)).toContain(message);
  });

  it.each([
    ['', 'unexpected end at column 1'],
    ['sum(', 'unexpected end at column 5'],
    ['up[5m]', 'a range of samples where one value is needed at column 1'],
    ['rate(up)', '"rate" needs a matrix, not a vector, at column 6'],
    ['rate(up[5m:1m])', 'a subquery is not supported at column 8'],
    ['rate(up[5m])[1h:]', 'a subquery is not supported'],
    ['up @ 5', 'the modifier "@" is not supported at column 4'],
    ['predict_linear(up[5m], 60)', 'the function "predict_linear" is not supported'],
    ['label_replace(up, "a", "b", "c", "d")', 'the function "label_replace" is not supported'],
    ['stddev(up)', '"stddev" is not supported at column 1'],
    ['up atan2 up', '"atan2" is not supported at column 4'],
    ['1 > 2', '">" between scalars needs "bool" at column 3'],
    ['up and 1', '"and" needs vectors on both sides at column 4'],
    ['{a=~".*"}', 'a selector that fits every series at column 1'],
    ['up{a=5}', 'where a string was expected at column 6'],
    ['up{a="x}', 'unexpected "\\"" at column 6'],
    ['up{a=~"(a+)+"}', 'a repeated group that holds a repetition at column 7'],
    ['up{a=~"(?=a)"}', 'a group other than'],
    ['up{a=~"["}', 'no meaning as a regular expression'],
    ['up offset 5', 'where a duration was expected at column 11'],
    ['up[1m5h]', 'is no duration'],
    ['topk(up, up)', '"topk" needs a number first at column 6'],
    ['sum(1)', '"sum" needs a vector at column 5'],
    ['a b', 'unexpected "b" at column 3'],
    ['1 + bool 2', '"bool" belongs to a comparison at column 3'],
    [`${'('.repeat(100)}1`, 'nested deeper than 64'],
    ['1'.repeat(9000), 'longer than the 8192 characters'],
  ])('refuses %s', (query, message) => {
    expect(() => ask(query)).toThrow(message);
  });
});

it('answers or refuses whatever it is given, and never fails otherwise', () => {
  const word = fc.constantFrom(
    ...['sum', 'by', '(', ')', '[5m]', '[', ']', '{', '}', 'up', 'vllm:num_requests_waiting', 'offset', '1m', '-', '+'],
    ...[
      '*',
      '/',
      '%',
      '^',
      '==',
      '>',
      'bool',
      'and',
      'or',
      'on',
      'ignoring',
      'group_left',
      ',',
      '"x"',
      "'",
      'rate',
      '1',
    ],
    ...[
      'replica',
      '=~',
      '!=',
      'topk',
      'histogram_quantile',
      'vector',
      'scalar',
      'time',
      'absent',
      '0.5',
      'NaN',
      '@',
      '#',
    ],
  );
  const samples = store();
  let answered = 0;
  fc.assert(
    fc.property(fc.array(word, { maxLength: 14 }), (words) => {
      try {
        expect(evaluateQuery(words.join(' '), samples, 300_000)).toBeTypeOf('object');
        answered++;
      } catch (error) {
        expect(error).toBeInstanceOf(TokenmillError);
      }
    }),
    { numRuns: 5000, seed: 8 },
  );
  expect(answered).toBeGreaterThan(10);
});

describe('sample store', () => {
  it('keeps the newest samples of each series', () => {
    const samples = new SampleStore({ maxSamplesPerSeries: 20 });
    for (let at = 1; at <= 100; at++) samples.add('up', { a: '1' }, at * 1000, at);
    const [series] = samples.select('up', []);
    expect(series?.range(0, 1e9).values).toEqual(Array.from({ length: 20 }, (_, at) => 81 + at));
  });

  it('drops what comes out of order', () => {
    const samples = new SampleStore();
    samples.add('up', {}, 2000, 1);
    samples.add('up', {}, 1000, 5);
    expect(samples.select('up', [])[0]?.range(0, 1e9).values).toEqual([1]);
  });

  it('gives the place of a series that is long gone to another, and refuses one too many', () => {
    const samples = new SampleStore({ maxSeries: 2, keepMs: 60_000 });
    samples.add('a', {}, 0, 1);
    samples.add('b', {}, 50_000, 1);
    samples.add('c', { __proto__: 'x' } as never, 70_000, 1);
    expect(samples.size).toBe(2);
    expect(() => samples.add('d', {}, 71_000, 1)).toThrow('More than 2 series');
  });
});
