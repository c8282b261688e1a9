/** Messages as templates expect them: text parts joined, tool call arguments parsed, old names mapped. */
import type { AsyncLLM } from '../client/async_llm.ts';
import type { ServerConfig } from './config.ts';
import { badValue, unsupported } from './http_errors.ts';
import type { ChatTemplateBody } from './schemas.ts';

type Message = Parameters<AsyncLLM['renderChat']>[0][number];
type RawMessage = ChatTemplateBody['messages'][number];
type ToolBody = Pick<ChatTemplateBody, 'tools'> & { readonly tool_choice?: unknown };

function contentText(content: RawMessage['content']): string | null | undefined {
  if (!Array.isArray(content)) return content;
  const parts = content.map((part) => {
    if (typeof part === 'string') return part;
    if (part.type !== 'text' && part.type !== 'input_text' && part.type !== 'refusal') {
      throw unsupported(
        `A content part of type \`${part.type.slice(0, 40)}\``,
        'messages',
        'This server takes text only.',
      );
    }
    const text = part['text'] ?? part['refusal'];
    if (typeof text !== 'string')
      throw badValue(`A content part of type \`${part.type}\` needs the string \`text\`.`, 'messages');
    return text;
  });
  return parts.join('\n');
}

function parseArguments(call: Readonly<Record<string, unknown>>): unknown {
  const fn = call['function'];
  if (typeof fn !== 'object' || fn === null) return call;
  const args = (fn as Record<string, unknown>)['arguments'];
  if (typeof args !== 'string') return call;
  try {
    return { ...call, function: { ...fn, arguments: args === '' ? {} : JSON.parse(args) } };
  } catch {
    throw badValue('`arguments` of a tool call in the conversation is not valid JSON.', 'messages');
  }
}

function normalize(message: RawMessage): Message {
  const { content, reasoning_content: reasoningContent, tool_calls: toolCalls, ...rest } = message;
  const out: Record<string, unknown> & { role: string } = { ...rest };
  const text = contentText(content);
  if (text !== undefined) out['content'] = text;
  if (reasoningContent !== undefined && reasoningContent !== null) {
    out['reasoning'] ??= reasoningContent;
    out['reasoning_content'] = reasoningContent;
  }
  if (toolCalls && toolCalls.length > 0) out['tool_calls'] = toolCalls.map(parseArguments);
  return out;
}

/** Refuses what needs the tool call parser; `tool_choice: "none"` shows the tools to the model and leaves its text alone. */
export function checkTools(body: ToolBody): void {
  const { tools, tool_choice: choice } = body;
  if (tools && tools.length === 0) {
    throw badValue(
      '`tools` must not be an empty array. Either provide at least one tool or omit the field entirely.',
      'tools',
    );
  }
  const effective = choice === undefined ? (tools ? 'auto' : 'none') : (choice ?? 'none');
  if (effective === 'none') return;
  if (!tools) throw badValue('When using `tool_choice`, `tools` must be set.', 'tool_choice');
  const isNamed = typeof effective === 'object';
  if (!isNamed && effective !== 'auto' && effective !== 'required') {
    throw badValue(
      `Invalid value for \`tool_choice\`: ${String(effective).slice(0, 100)}! Only named tools, "none", "auto" or "required" are supported.`,
      'tool_choice',
    );
  }
  const shown = isNamed ? 'A named `tool_choice`' : `\`tool_choice: "${effective}"\``;
  throw unsupported(shown, 'tool_choice', 'Send `tool_choice: "none"` and read the call from the text.');
}

/** The rendered conversation. Throws `template_error`, `invalid_request`, `unsupported_feature`. */
export function renderMessages(llm: AsyncLLM, body: ChatTemplateBody): string {
  if (body.messages.length === 0)
    throw badValue('Cannot apply chat template to an empty conversation. Provide at least one message.');
  const continueFinal = body.continue_final_message ?? false;
  if (continueFinal && body.add_generation_prompt === true) {
    throw badValue('Cannot set both `continue_final_message` and `add_generation_prompt` to True.');
  }
  const kwargs: Record<string, unknown> = {};
  if (body.reasoning_effort) kwargs['reasoning_effort'] = body.reasoning_effort;
  Object.assign(kwargs, body.chat_template_kwargs ?? {});
  return llm.renderChat(body.messages.map(normalize), {
    addGenerationPrompt: body.add_generation_prompt ?? !continueFinal,
    continueFinalMessage: continueFinal,
    kwargs,
    ...(body.tools ? { tools: body.tools } : {}),
    ...(body.documents ? { documents: body.documents } : {}),
  });
}

/** What `echo` repeats: the last message when its role is the answer's. */
export function echoedText(body: ChatTemplateBody, role: string): string {
  const last = body.messages.at(-1);
  return last?.role === role ? (contentText(last.content) ?? '') : '';
}

/** The role of the answer: a continued message keeps its own. */
export function answerRole(config: ServerConfig, body: ChatTemplateBody): string {
  const generated = body.add_generation_prompt ?? !(body.continue_final_message ?? false);
  return generated ? config.responseRole : (body.messages.at(-1)?.role ?? config.responseRole);
}
