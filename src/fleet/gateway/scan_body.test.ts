import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { bodyFacts } from './request_facts.ts';
import { booleanField, numberField, parsedField, scanBody, stringField, withField } from './scan_body.ts';

const WANTED = new Set(['model', 'stream', 'n', '__proto__', 'k"ey']);

describe('scanBody', () => {
  it('finds what JSON.parse finds, in any JSON', () => {
    const key = fc.oneof(fc.constantFrom(...WANTED), fc.string());
    const object = fc.array(fc.tuple(key, fc.jsonValue()), { maxLength: 8 });
    fc.assert(
      fc.property(object, fc.constantFrom(undefined, 1, '\t'), (entries, indent) => {
        const members = entries.map(
          ([name, value]) => `${JSON.stringify(name)}: ${JSON.stringify(value, null, indent)}`,
        );
        const bytes = Buffer.from(` {${members.join(' ,\n')} } `);
        const found = scanBody(bytes, WANTED);
        const expected = new Map(entries.filter(([name]) => WANTED.has(name)).map(([name, value]) => [name, value]));
        expect(new Set(Object.keys(found))).toEqual(new Set(expected.keys()));
        for (const [name, value] of expected) {
          expect(JSON.stringify(parsedField(bytes, found[name], 1e6))).toBe(JSON.stringify(value));
          if (typeof value === 'string') expect(stringField(bytes, found[name], 1e6)).toBe(value);
          if (typeof value === 'number') expect(numberField(bytes, found[name])).toBe(value);
          expect(booleanField(bytes, found[name])).toBe(value === true);
        }
      }),
      { seed: 5, numRuns: 500 },
    );
  });

  it.each([
    '',
    '[]',
    '{',
    '{"a"',
    '{"a":',
    '{"a":}',
    '{"a":1',
    '{"a":"x',
    '{"a":[1}',
    '{"a":1,,"b":2}',
    '{a:1}',
    '{"a":1}x',
    `{"a":${'['.repeat(200)}${']'.repeat(200)}}`,
  ])('refuses %j', (text) => {
    expect(() => scanBody(Buffer.from(text), WANTED)).toThrow(/not valid JSON/);
  });

  it('bounds the number of keys', () => {
    const many = `{${Array.from({ length: 1100 }, (_, i) => `"k${i}":1`).join(',')}}`;
    expect(() => scanBody(Buffer.from(many), WANTED)).toThrow(/more than 1024 keys/);
  });

  it('replaces a value or adds the field, and leaves every other byte as it was', () => {
    const edit = (text: string): string => {
      const bytes = Buffer.from(text);
      return withField(bytes, 'model', scanBody(bytes, WANTED)['model'], 'n"ew').toString();
    };
    expect(edit('{ "a": [1, 2],"model" : "old" , "b":1.0}')).toBe('{ "a": [1, 2],"model" : "n\\"ew" , "b":1.0}');
    expect(edit(' {"a":1}')).toBe(' {"model":"n\\"ew","a":1}');
    expect(edit('{}')).toBe('{"model":"n\\"ew"}');
    expect(edit('{"model":"x","model":"y"}')).toBe('{"model":"x","model":"n\\"ew"}');
  });
});

describe('bodyFacts', () => {
  it('reads what a request says of itself', () => {
    const body = {
      model: 'm',
      stream: true,
      messages: [{ role: 'user', content: 'hi' }],
      user: 'u',
      prompt_cache_key: 'k',
      priority: -3,
      max_tokens: 9,
    };
    const facts = bodyFacts(Buffer.from(JSON.stringify(body)), 'application/json; charset=utf-8');
    expect(facts).toMatchObject({ model: 'm', stream: true, user: 'u', cacheKey: 'k', priority: -3, maxTokens: 9 });
    expect(facts.prompt?.toString()).toBe(JSON.stringify(body.messages));
    expect(bodyFacts(Buffer.from('model=m'), 'application/x-www-form-urlencoded').model).toBeNull();
    expect(bodyFacts(null, undefined).model).toBeNull();
  });
});
