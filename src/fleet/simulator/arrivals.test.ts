import { describe, expect, it } from 'vitest';
import { dailyArrivals } from './arrival_generators.ts';
import { readArrivals } from './arrivals.ts';
import { FastRng } from './fast_rng.ts';

async function* pieces(text: string, size: number): AsyncGenerator<string> {
  for (let at = 0; at < text.length; at += size) yield text.slice(at, at + size);
}

const read = (text: string, size = 7) => readArrivals(pieces(text, size));

describe('arrivals from a file', () => {
  it.each([1, 5, 1000])('are read in pieces of %d', async (size) => {
    const { count, atMs, promptTokens, outputTokens } = await read(
      'time_s,prompt_tokens,output_tokens,key\r\n0,10,20,a\r\n1.5,30,1,b\r\n\r\n1.5,7,8,c',
      size,
    );
    expect(count).toBe(3);
    expect([...atMs]).toEqual([0, 1500, 1500]);
    expect([...promptTokens]).toEqual([10, 30, 7]);
    expect([...outputTokens]).toEqual([20, 1, 8]);
  });

  it.each([
    ['', 'no arrivals'],
    ['0,1,1', 'line 1: no such header'],
    ['time_s,prompt_tokens\n0,1', 'line 1: no such header'],
    ['time_s,prompt_tokens,output_tokens\n', 'no arrivals'],
    ['time_s,prompt_tokens,output_tokens\n0,1', 'line 2: 2 fields'],
    ['time_s,prompt_tokens,output_tokens\nx,1,1', 'line 2: "x" is no time'],
    ['time_s,prompt_tokens,output_tokens\n-1,1,1', 'line 2: "-1" is no time'],
    ['time_s,prompt_tokens,output_tokens\n2,1,1\n1,1,1', 'line 3: 1 s comes before'],
    ['time_s,prompt_tokens,output_tokens\n0,0,1', '"0" is no number of tokens'],
    ['time_s,prompt_tokens,output_tokens\n0,1.5,1', '"1.5" is no number of tokens'],
    ['time_s,prompt_tokens,output_tokens\n0,1,1e99', '"1e99" is no number of tokens'],
    [`time_s,${'x'.repeat(5000)}`, 'longer than 1024'],
  ])('%j is refused with its line', async (text, message) => {
    await expect(read(text, 2000)).rejects.toThrow(message);
  });

  it('may be a million', async () => {
    async function* million(): AsyncGenerator<string> {
      yield 'time_s,prompt_tokens,output_tokens\n';
      for (let block = 0; block < 1000; block++) {
        yield Array.from({ length: 1000 }, (_, at) => `${block}.${String(at).padStart(3, '0')},100,50\n`).join('');
      }
    }
    expect((await readArrivals(million())).count).toBe(1_000_000);
  });
});

describe('arrivals made up', () => {
  it('rise and fall with the day, and are the same for the same seed', () => {
    const day = dailyArrivals({ seed: 3, highPerSecond: 4, lowPerSecond: 0.5, peakHour: 12, noise: 0.1 });
    expect(dailyArrivals({ seed: 3, highPerSecond: 4, lowPerSecond: 0.5, peakHour: 12, noise: 0.1 })).toEqual(day);
    const perHour = new Array<number>(24).fill(0);
    for (const at of day.atMs)
      perHour[Math.floor(at / 3_600_000)] = (perHour[Math.floor(at / 3_600_000)] as number) + 1;
    expect(perHour[12]).toBeGreaterThan(3600 * 3);
    expect(perHour[0]).toBeLessThan(3600);
    expect([...day.atMs].every((at, index) => index === 0 || at >= (day.atMs[index - 1] as number))).toBe(true);
  });

  it('have bursts on top', () => {
    const calm = { seed: 5, lowPerSecond: 1, highPerSecond: 1, noise: 0, dayNoise: 0 };
    const burst = dailyArrivals({ ...calm, bursts: { perDay: 5, factor: 4, durationS: 900 } });
    expect(burst.count).toBeGreaterThan(dailyArrivals(calm).count + 3000);
  });

  it('draw evenly', () => {
    const rng = new FastRng(1);
    const buckets = new Array<number>(10).fill(0);
    let sum = 0;
    for (let draw = 0; draw < 100_000; draw++) {
      const at = Math.floor(rng.next() * 10);
      buckets[at] = (buckets[at] as number) + 1;
      sum += rng.normal();
    }
    expect(Math.min(...buckets)).toBeGreaterThan(9600);
    expect(Math.abs(sum / 100_000)).toBeLessThan(0.02);
  });
});
