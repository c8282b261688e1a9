import { TokenmillError } from '../base/errors.ts';
import type { TemplateLimits } from './jinja/budget.ts';
import { JinjaError } from './jinja/errors.ts';
import { Template } from './jinja/template.ts';
import type { ChatMessage, ChatTemplate, ChatTemplateOptions } from './tokenizer.ts';
import { tokenContent } from './tokenizer_config.ts';

/** Templates by name, as tokenizer_config.json lists them (`default`, `tool_use`, `rag`). */
export type NamedTemplates = ReadonlyMap<string, string>;

export interface JinjaChatTemplateOptions {
  readonly limits?: TemplateLimits;
  /** The clock behind `strftime_now`; the process clock unless a test says otherwise. */
  readonly now?: () => Date;
}

/** Beyond this a chat template is not one; parsing is linear in it. */
const MAX_TEMPLATE_CHARS = 1024 * 1024;

/** Special tokens that transformers passes to every template. */
const TOKEN_VARIABLES = ['bos_token', 'eos_token', 'unk_token', 'sep_token', 'pad_token', 'cls_token', 'mask_token'];

/**
 * Renders conversations as `apply_chat_template` of transformers does.
 * @throws TokenmillError `template_error`, from the constructor when the source does not parse, from `render` when the
 * template refuses the conversation, fails, or reaches its limits.
 */
export class JinjaChatTemplate implements ChatTemplate {
  private readonly templates: ReadonlyMap<string, Template>;
  private readonly tokens: Readonly<Record<string, string>>;
  private readonly options: JinjaChatTemplateOptions;

  /** @param config tokenizer_config.json, for the special tokens. */
  constructor(
    source: string | NamedTemplates,
    config: Readonly<Record<string, unknown>>,
    options: JinjaChatTemplateOptions = {},
  ) {
    const sources = typeof source === 'string' ? new Map([['default', source]]) : source;
    this.templates = new Map(Array.from(sources, ([name, text]) => [name, parse(text)]));
    this.tokens = specialTokens(config);
    this.options = options;
  }

  render(messages: readonly ChatMessage[], options: ChatTemplateOptions): string {
    const { addGenerationPrompt, continueFinalMessage, tools, documents, kwargs } = options;
    if (continueFinalMessage && addGenerationPrompt) {
      throw new TokenmillError(
        'invalid_request',
        'continue_final_message and add_generation_prompt cannot both be set.',
        { param: 'continue_final_message', remedy: 'Set add_generation_prompt to false to continue the last message.' },
      );
    }
    const variables = {
      ...this.tokens,
      ...kwargs,
      messages,
      tools: tools ?? null,
      documents: documents ?? null,
      add_generation_prompt: addGenerationPrompt,
    };
    const text = failing(() => this.pick(tools).render(variables, this.options));
    return continueFinalMessage ? cutAfterFinalMessage(text, messages) : text;
  }

  /** As transformers chooses among several: `tool_use` when there are tools and it exists, else `default`. */
  private pick(tools: readonly unknown[] | undefined): Template {
    const chosen = (tools && this.templates.get('tool_use')) ?? this.templates.get('default');
    if (chosen) return chosen;
    throw new TokenmillError('template_error', `None of the chat templates is the default one.`, {
      remedy: `Pass one with --chat-template; the model has: ${[...this.templates.keys()].join(', ')}.`,
    });
  }
}

function parse(source: string): Template {
  if (source.length > MAX_TEMPLATE_CHARS) {
    throw new TokenmillError('template_error', `The chat template has more than ${MAX_TEMPLATE_CHARS} characters.`);
  }
  return failing(() => new Template(source));
}

function failing<T>(run: () => T): T {
  try {
    return run();
  } catch (cause) {
    if (cause instanceof JinjaError) {
      // What raise_exception says is meant for the caller as it is.
      const message =
        cause.kind === 'TemplateError' ? cause.message : `${cause.kind} in the chat template: ${cause.message}`;
      throw new TokenmillError('template_error', message, { cause });
    }
    if (cause instanceof RangeError) {
      throw new TokenmillError('template_error', 'The chat template nests values or calls too deep.', { cause });
    }
    throw cause;
  }
}

function specialTokens(config: Readonly<Record<string, unknown>>): Record<string, string> {
  const tokens: Record<string, string> = {};
  for (const name of TOKEN_VARIABLES) {
    const content = tokenContent(config[name]);
    if (content !== null) tokens[name] = content;
  }
  return tokens;
}

/**
 * The prompt up to the end of the last message's content, so that the model goes on with it. Like transformers, the
 * content is looked for with its spaces trimmed, because many templates trim; spaces that survived stay.
 */
function cutAfterFinalMessage(text: string, messages: readonly ChatMessage[]): string {
  const content = finalText(messages.at(-1)?.content);
  if (content === null) {
    throw new TokenmillError('invalid_request', 'continue_final_message needs a last message with text content.', {
      param: 'continue_final_message',
    });
  }
  const trimmed = content.trim();
  const at = text.lastIndexOf(trimmed);
  if (at < 0) {
    throw new TokenmillError(
      'template_error',
      'The chat template leaves out the final message, so it cannot be continued.',
      {
        param: 'continue_final_message',
        remedy: 'Put the text to continue into the content of the last message, or set add_generation_prompt.',
      },
    );
  }
  const end = at + trimmed.length;
  const whole = at + content.trimStart().length;
  return text.slice(at, whole) === content.trimStart() ? text.slice(0, whole) : text.slice(0, end);
}

function finalText(content: unknown): string | null {
  if (typeof content === 'string') return content;
  if (!Array.isArray(content)) return null;
  for (const part of [...content].reverse()) {
    const text = (part as { text?: unknown } | null)?.text;
    if (typeof text === 'string') return text;
  }
  return null;
}
