import { existsSync, readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { JinjaError } from './errors.ts';
import { Template } from './template.ts';

/** Real templates of the field with what transformers renders; not ours, so read from outside the repository. */
const FOLDER = new URL('../../../../shared/vocab/templates/', import.meta.url);
const present = existsSync(FOLDER);

interface Case {
  readonly input: {
    readonly messages: unknown[];
    readonly tools?: unknown[];
    readonly add_generation_prompt?: boolean;
  };
  readonly text?: string;
  readonly error?: string;
}

const renders = present
  ? (JSON.parse(readFileSync(new URL('renders.json', FOLDER), 'utf8')) as Record<string, Record<string, Case>>)
  : {};

test.skipIf(present)('templates of the field: skipped, ../shared/vocab/templates is not there', () => {});

for (const [file, cases] of Object.entries(renders)) {
  for (const [name, { input, text, error }] of Object.entries(cases)) {
    test(`${file} ${name}`, () => {
      const render = () =>
        new Template(readFileSync(new URL(file, FOLDER), 'utf8')).render(
          {
            bos_token: '<s>',
            eos_token: '</s>',
            messages: input.messages,
            tools: input.tools ?? null,
            documents: null,
            add_generation_prompt: input.add_generation_prompt ?? true,
          },
          { now: () => new Date(2026, 0, 2) },
        );
      if (error === undefined) expect(render()).toBe(text);
      else expect(outcome(render)).toBe(error);
    });
  }
}

function outcome(render: () => string): string {
  try {
    return render();
  } catch (thrown) {
    if (thrown instanceof JinjaError) return `${thrown.kind}: ${thrown.message}`;
    throw thrown;
  }
}
