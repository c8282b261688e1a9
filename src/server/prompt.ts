/** Small things both generation routes need from a request. */
import type { FastifyRequest } from 'fastify';
import type { AsyncLLM } from '../client/async_llm.ts';
import { badValue } from './http_errors.ts';
import type { SamplingBody } from './schemas.ts';

/** X-Vllm-Priority, else the body's field, else 0. */
export function priorityOf(request: FastifyRequest, body: SamplingBody): number {
  const header = request.headers['x-vllm-priority'];
  if (header === undefined) return body.priority ?? 0;
  const value = Number(header);
  if (!/^[+-]?\d{1,19}$/.test(String(header).trim()))
    throw badValue('The header X-Vllm-Priority must be an integer.', 'priority');
  return value;
}

/** A text without spaces takes about a microsecond a character, in which nothing else is served. */
const MAX_CHARACTERS = 2 ** 20;

/** For texts that no context length bounds. Throws `invalid_request` for one that would hold up everyone else. */
export function encodeBounded(llm: AsyncLLM, text: string, addSpecialTokens: boolean): Int32Array {
  if (text.length <= MAX_CHARACTERS) return llm.tokenizer.encode(text, { addSpecialTokens });
  throw badValue(
    `The text has ${text.length} characters; at most ${MAX_CHARACTERS} are tokenized at once.`,
    'prompt',
    text.length,
  );
}

/**
 * Applies `truncate_prompt_tokens`; without it prompts pass unchanged and the AsyncLLM refuses what is too long.
 * @param maxTokens what is generated at most, for which -1 leaves room; null leaves room for one token
 */
export function truncatePrompt(
  llm: AsyncLLM,
  prompt: string | Int32Array,
  addSpecialTokens: boolean,
  body: SamplingBody,
  maxTokens: number | null,
): string | Int32Array {
  const asked = body.truncate_prompt_tokens;
  if (asked === null || asked === undefined) return prompt;
  const { maxModelLen } = llm.plan;
  if (asked < -1 || asked === 0)
    throw badValue(`truncate_prompt_tokens must be -1 or at least 1, got ${asked}.`, 'truncate_prompt_tokens', asked);
  if (asked > maxModelLen) {
    throw badValue(
      `truncate_prompt_tokens value (${asked}) is greater than max_model_len (${maxModelLen}). Please request a smaller truncation size.`,
      'truncate_prompt_tokens',
      asked,
    );
  }
  const keep = asked === -1 ? Math.max(1, maxModelLen - (maxTokens ?? 1)) : asked;
  const ids = typeof prompt === 'string' ? encodeBounded(llm, prompt, addSpecialTokens) : prompt;
  if (ids.length <= keep) return ids;
  return body.truncation_side === 'right' ? ids.slice(0, keep) : ids.slice(ids.length - keep);
}
