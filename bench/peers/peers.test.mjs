import { describe, expect, it } from 'vitest';
import { formatReport, median, roofRate } from './report.mjs';
import { prompt, rate, scenarios } from './work.mjs';

const roof = { bandwidthGBs: 20, fp32GFlops: 90, bf16GFlops: 100, int8GOps: 200 };
const model = { shape: 'm', elements: 1e9, headElements: 1e8 };

describe('rates', () => {
  it('of a decode leave every prefill out', () => {
    const scenario = { kind: 'decode', sequences: 2, promptLen: 4, outputLen: 3 };
    // The second sequence has its first token at 200, the first one its last at 300: only what lies between counts.
    const times = [
      [100, 150, 300],
      [200, 250, 400],
    ];
    expect(rate(scenario, 0, times)).toBe(2 / 0.1);
    expect(() =>
      rate(scenario, 0, [
        [100, 150],
        [200, 250],
      ]),
    ).toThrow('--output-len');
  });

  it('of a prefill are prompt tokens until the first token', () => {
    expect(rate({ kind: 'prefill', promptLen: 512 }, 1000, [[3000]])).toBe(256);
  });
});

describe('the roof', () => {
  const [one, , many] = scenarios(['decode 1', 'decode 8', 'decode 32'], 8);
  const [prefill] = scenarios(['prefill 512'], 8);

  it('of one sequence is the bandwidth', () => {
    expect(roofRate(one, model, 'bf16', roof)).toBeCloseTo(10, 9);
    expect(roofRate(one, model, 'int8', roof)).toBeCloseTo(20, 9);
  });

  it('of many is the arithmetic, the last linear on logit rows only', () => {
    expect(roofRate(many, model, 'bf16', roof)).toBeCloseTo(50, 9);
    expect(roofRate(prefill, model, 'bf16', roof)).toBeCloseTo(512 / ((2 * (512 * 0.9e9 + 1e8)) / 1e11), 9);
  });
});

describe('the work', () => {
  it('is the same for both engines, and different for each sequence and run', () => {
    expect(prompt(1, 2, 40)).toEqual(prompt(1, 2, 40));
    const all = [0, 1, 2].flatMap((run) => [0, 1, 31].map((sequence) => prompt(run, sequence, 20).join()));
    expect(new Set(all).size).toBe(9);
    expect(Math.min(...prompt(3, 1, 5000))).toBeGreaterThanOrEqual(300);
    expect(Math.max(...prompt(3, 1, 5000))).toBeLessThan(2000);
  });
});

describe('the report', () => {
  it('has a row for each scenario, with medians, ratios and the share of the roof', () => {
    const asked = scenarios(['decode 1', 'prefill 512'], 8);
    const runs = (values, engine) =>
      values.map((value) => ({ rates: { 'decode 1': value, 'prefill 512': 100 }, about: { engine, binary: null } }));
    const measured = {
      model,
      format: 'bf16',
      results: { tokenmill: runs([4, 9, 8], 'cpu avx2'), llama: runs([2, 3, 4], 'llama.cpp') },
      starts: { tokenmill: [500, 700], llama: [1200, 1200] },
    };
    const machine = { cpu: 'a processor', threads: 2, node: 'v20' };
    const text = formatReport({
      date: '2026-01-01',
      machine,
      roof,
      measured: [measured],
      modes: null,
      command: 'c',
      peer: 'p',
      rounds: 3,
      scenarios: asked,
    });
    expect(text).toContain('| decode, 1 sequence | 8.00 tok/s | 3.00 tok/s | 2.67 x | 80% |');
    expect(text).toContain('| start to first token | 0.60 s | 1.20 s | 2.00 x |  |');
    expect(text).toContain('cpu avx2');
  });

  it('takes the middle', () => {
    expect(median([3, 1, 2])).toBe(2);
    expect(median([4, 1, 2, 3])).toBe(2.5);
  });
});
