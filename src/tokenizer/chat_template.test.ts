import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { JinjaChatTemplate } from './chat_template.ts';
import { DEFAULT_LIMITS } from './jinja/budget.ts';
import { loadChatTemplate, loadTokenizer } from './load_tokenizer.ts';
import type { ChatMessage } from './tokenizer.ts';

const FOLDER = new URL('./testdata/tokenizer', import.meta.url).pathname;
const CHATML =
  '{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>{{ m.content | trim }}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}';
const config = { bos_token: { content: '<s>' }, eos_token: '</s>' };
const chat: ChatMessage[] = [
  { role: 'user', content: 'Say four words' },
  { role: 'assistant', content: 'one two ' },
];

test('the template of tokenizer_config.json renders and encodes as transformers does', async () => {
  const golden = JSON.parse(readFileSync(`${FOLDER}/golden.json`, 'utf8')) as {
    chat: { messages: ChatMessage[]; add_generation_prompt: boolean; text: string; ids: number[] }[];
  };
  const tokenizer = await loadTokenizer(FOLDER);
  const template = await loadChatTemplate(FOLDER);
  for (const { messages, add_generation_prompt, text, ids } of golden.chat) {
    expect(template?.render(messages, { addGenerationPrompt: add_generation_prompt })).toBe(text);
    expect([...tokenizer.encode(text, { addSpecialTokens: false })]).toEqual(ids);
  }
});

describe('continueFinalMessage', () => {
  const template = new JinjaChatTemplate(CHATML, config);

  test('ends with the final content, trimmed when the template trims', () => {
    const text = template.render(chat, { addGenerationPrompt: false, continueFinalMessage: true });
    expect(text).toBe('<s><|user|>Say four words<|end|><|assistant|>one two');
  });

  test('keeps the space of a template that does not trim', () => {
    const raw = new JinjaChatTemplate(CHATML.replace(' | trim', ''), config);
    expect(raw.render(chat, { addGenerationPrompt: false, continueFinalMessage: true })).toMatch(/one two $/);
  });

  test('excludes add_generation_prompt', () => {
    expect(() => template.render(chat, { addGenerationPrompt: true, continueFinalMessage: true })).toThrow(
      expect.objectContaining({ code: 'invalid_request', status: 400 }),
    );
  });

  test('a template that drops the message is an error', () => {
    const dropping = new JinjaChatTemplate('nothing', config);
    expect(() => dropping.render(chat, { addGenerationPrompt: false, continueFinalMessage: true })).toThrow(
      expect.objectContaining({ code: 'template_error' }),
    );
  });
});

test('among named templates, tools choose tool_use', () => {
  const template = new JinjaChatTemplate(
    new Map([
      ['default', 'plain'],
      ['tool_use', 'with {{ tools | length }}'],
    ]),
    config,
  );
  expect(template.render(chat, { addGenerationPrompt: false })).toBe('plain');
  expect(template.render(chat, { addGenerationPrompt: false, tools: [{}, {}] })).toBe('with 2');
});

test('kwargs are variables; the conversation cannot be replaced by them', () => {
  const template = new JinjaChatTemplate('{{ enable_thinking }} {{ messages | length }}', config);
  const kwargs = { enable_thinking: false, messages: [] };
  expect(template.render(chat, { addGenerationPrompt: false, kwargs })).toBe('False 2');
});

test('what a template refuses reaches the caller as it says it', () => {
  const template = new JinjaChatTemplate("{{ raise_exception('Roles must alternate') }}", config);
  expect(() => template.render(chat, { addGenerationPrompt: false })).toThrow(
    expect.objectContaining({ code: 'template_error', status: 400, message: 'Roles must alternate' }),
  );
});

test('a template that loops is stopped', () => {
  const source = '{% for a in range(99999) %}{% for b in range(99999) %}{{ a }}{% endfor %}{% endfor %}';
  const template = new JinjaChatTemplate(source, config, { limits: { ...DEFAULT_LIMITS, maxSteps: 100_000 } });
  expect(() => template.render(chat, { addGenerationPrompt: false })).toThrow(/more than 100000 steps/);
});

test('a template that does not parse is an error when it is loaded', () => {
  expect(() => new JinjaChatTemplate('{% if %}', config)).toThrow(expect.objectContaining({ code: 'template_error' }));
});
