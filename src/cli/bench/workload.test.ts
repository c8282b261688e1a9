import { describe, expect, it } from 'vitest';
import { Rng } from '../../base/rng.ts';
import { loadTokenizer } from '../../tokenizer/load_tokenizer.ts';
import { parseDataset, randomWork, textOfLength } from './workload.ts';

describe('random work', () => {
  it('varies lengths within the ratio and repeats with the seed', () => {
    const work = { count: 500, inputLen: 100, outputLen: 10, prefixLen: 0, rangeRatio: 0.2 };
    const items = randomWork(work, new Rng(3));
    const lengths = items.map(({ prompt }) => prompt.length);
    expect(Math.min(...lengths)).toBe(80);
    expect(Math.max(...lengths)).toBe(120);
    expect(randomWork(work, new Rng(3))).toEqual(items);
  });

  it('makes text of exactly the asked length with a tokenizer', async () => {
    const tokenizer = await loadTokenizer('models/tokenmill-tiny');
    const rng = new Rng(5);
    const [item] = randomWork({ count: 1, inputLen: 60, outputLen: 1, prefixLen: 0, rangeRatio: 0 }, rng);
    const text = textOfLength(item?.prompt ?? [], tokenizer, rng);
    expect(tokenizer.encode(text, { addSpecialTokens: false })).toHaveLength(60);
  });
});

describe('datasets', () => {
  it('reads lines, records and conversations', () => {
    expect(parseDataset('a.txt', 'one\n\ntwo\r\n')).toEqual(['one', 'two']);
    const records = [
      '{"prompt":"p"}',
      '"bare"',
      '{"messages":[{"role":"system","content":"s"},{"role":"user","content":"u"}]}',
      '{"conversations":[{"from":"human","value":"h"},{"from":"gpt","value":"g"}]}',
      '{"other":1}',
    ];
    expect(parseDataset('a.jsonl', records.join('\n'))).toEqual(['p', 'bare', 'u', 'h']);
    expect(parseDataset('a.json', `[${records.join(',')}]`)).toEqual(['p', 'bare', 'u', 'h']);
  });

  it('refuses what holds no prompts', () => {
    expect(() => parseDataset('a.txt', '\n')).toThrow('no lines');
    expect(() => parseDataset('a.jsonl', '{')).toThrow('not JSON');
    expect(() => parseDataset('a.json', '{"prompt":"p"}')).toThrow('not a JSON array');
    expect(() => parseDataset('a.jsonl', '{"x":1}')).toThrow('no record');
  });
});
