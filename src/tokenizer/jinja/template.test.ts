import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { DEFAULT_LIMITS } from './budget.ts';
import { JinjaError } from './errors.ts';
import { Template } from './template.ts';

interface Cases {
  readonly variables: Record<string, unknown>;
  readonly cases: readonly { readonly source: string; readonly text?: string; readonly error?: string }[];
}

const { variables, cases } = JSON.parse(
  readFileSync(new URL('./testdata/jinja2_cases.json', import.meta.url), 'utf8'),
) as Cases;

function outcome(source: string): { text: string } | { error: string } {
  try {
    return { text: new Template(source).render(variables) };
  } catch (thrown) {
    if (!(thrown instanceof JinjaError)) throw thrown;
    return { error: `${thrown.kind}: ${thrown.message}` };
  }
}

/** Our syntax errors name the line instead of repeating jinja2's words. */
const kindOnly = (error: string): string => (error.startsWith('TemplateSyntaxError') ? 'TemplateSyntaxError' : error);

describe('what jinja2 says', () => {
  test.each(cases)('$source', ({ source, text, error }) => {
    const got = outcome(source);
    if (error === undefined) expect(got).toEqual({ text });
    else expect('error' in got ? kindOnly(got.error) : got).toEqual(kindOnly(error));
  });
});

describe('limits', () => {
  const limits = { ...DEFAULT_LIMITS, maxSteps: 200_000, maxChars: 100_000 };
  const limited = [
    ['nested loops', '{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}'],
    ['endless output', "{% for a in range(9999) %}{{ 'x' * 1000 }}{% endfor %}"],
    [
      'a string that doubles',
      "{% set ns = namespace(s='x') %}{% for a in range(99) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
    ],
    ['a repeated string', "{{ 'x' * 10 ** 9 }}"],
    [
      'a list that doubles',
      '{% set ns = namespace(l=[1]) %}{% for a in range(99) %}{% set ns.l = ns.l + ns.l %}{% endfor %}',
    ],
    [
      'shared parts printed',
      '{% set ns = namespace(l=[]) %}{% for a in range(99) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l }}',
    ],
    [
      'shared parts compared',
      '{% set ns = namespace(l=[], m=[]) %}{% for a in range(99) %}{% set ns.l = [ns.l, ns.l] %}{% set ns.m = [ns.m, ns.m] %}{% endfor %}{{ ns.l == ns.m }}',
    ],
    [
      'shared parts as JSON',
      '{% set ns = namespace(l=[]) %}{% for a in range(99) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l | tojson }}',
    ],
    ['a macro that calls itself', '{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}'],
    ['a wide field', "{{ '%999999999d' % 1 }}"],
    ['a wide format', "{{ '{:>999999999}'.format(1) }}"],
    ['a wide indent', "{{ 'a\nb' | indent(999999999) }}"],
    ['a wide center', "{{ 'a' | center(999999999) }}"],
    ['many joins', "{% for a in range(9999) %}{% set x = range(9999) | join(',') %}{% endfor %}"],
    ['replace that grows', "{{ ('x' * 1000).replace('x', 'y' * 1000) }}"],
  ] as const;
  test.each(limited)('%s', (_name, source) => {
    expect(() => new Template(source).render({}, { limits })).toThrow(
      expect.objectContaining({ name: 'JinjaError', kind: 'LimitError' }),
    );
  });

  test('deep nesting of the source is a syntax error', () => {
    for (const source of [
      `{{ ${'('.repeat(9999)}1${')'.repeat(9999)} }}`,
      `{{ ${'not '.repeat(9999)}1 }}`,
      '{% if 1 %}'.repeat(9999),
    ]) {
      expect(() => new Template(source)).toThrow(/nest deeper/);
    }
  });

  test('a long template that does little is no problem', () => {
    const source = '{% if messages %}{{ messages[0].content }}{% endif %}\n'.repeat(2000);
    expect(new Template(source).render({ messages: [{ content: 'hi' }] })).toHaveLength(4000);
  });
});

describe('the sandbox', () => {
  test.each([
    "{{ ''.__class__.__mro__ }}",
    '{{ messages.__class__.__init__ }}',
    "{{ messages['__proto__'].x }}",
    '{{ messages.constructor.constructor }}',
    '{{ range.constructor.constructor }}',
    "{{ cycler('a').constructor.constructor }}",
    '{{ messages.append(1) }}',
  ])('%s', (source) => {
    expect(() => new Template(source).render({ messages: ['x'] })).toThrow(JinjaError);
  });

  test('keys that mean something in JavaScript are plain keys', () => {
    const message = JSON.parse('{"__proto__": {"role": "user"}, "constructor": "c"}');
    const source = "{{ m.role is defined }} {{ m['constructor'] }} {{ m | tojson }}";
    expect(new Template(source).render({ m: message })).toBe(
      'False c {"__proto__": {"role": "user"}, "constructor": "c"}',
    );
  });
});

test('strftime_now takes the clock it is given', () => {
  const now = () => new Date(2026, 2, 5, 7, 8, 9);
  expect(
    new Template("{{ strftime_now('%Y-%m-%d %d %b %Y %-d %B %A %H:%M:%S %I %p %j %y') }}").render({}, { now }),
  ).toBe('2026-03-05 05 Mar 2026 5 March Thursday 07:08:09 07 AM 064 26');
});

test('names may have letters of any script', () => {
  expect(
    new Template('{% set naïve = 1 %}{% set né_2e = 2 %}{% set 名 = 3 %}{{ [naïve, né_2e, 名] }}').render({}),
  ).toBe('[1, 2, 3]');
  for (const source of ['{{ a§ }}', '{{ a ! b }}', '{{ ² }}'])
    expect(() => new Template(source)).toThrow('unexpected char');
});

test('the generation tag of transformers renders its body', () => {
  expect(new Template('a{% generation %}{{ x }}{% endgeneration %}b').render({ x: 1 })).toBe('a1b');
});

test.each(['include', 'extends', 'import', 'block', 'do'])('the tag %s is refused by name', (tag) => {
  expect(() => new Template(`{% ${tag} 'x' %}`)).toThrow(`the tag '${tag}' is not allowed`);
});
