import { Template } from '@huggingface/jinja';
import { TokenmillError } from '../base/errors.ts';
import type { ChatMessage, ChatTemplate, ChatTemplateOptions } from './tokenizer.ts';

/** Templates by name, as tokenizer_config.json lists them (`default`, `tool_use`, `rag`). */
export type NamedTemplates = ReadonlyMap<string, string>;

export class JinjaChatTemplate implements ChatTemplate {
  private readonly template: Template;
  private readonly config: Record<string, unknown>;

  constructor(source: string | NamedTemplates, config: Record<string, unknown>) {
    this.config = config;
    this.template = new Template(typeof source === 'string' ? source : (source.get('default') as string));
  }

  render(messages: readonly ChatMessage[], options: ChatTemplateOptions): string {
    try {
      return this.template.render({
        bos_token: tokenContent(this.config['bos_token']),
        eos_token: tokenContent(this.config['eos_token']),
        messages,
        tools: options.tools ?? null,
        documents: options.documents ?? null,
        add_generation_prompt: options.addGenerationPrompt,
        ...options.kwargs,
      });
    } catch (cause) {
      throw new TokenmillError('template_error', `The chat template failed: ${(cause as Error).message}.`, { cause });
    }
  }
}

function tokenContent(value: unknown): string {
  if (typeof value === 'string') return value;
  const content = (value as { content?: unknown } | null | undefined)?.content;
  return typeof content === 'string' ? content : '';
}
