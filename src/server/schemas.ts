/** Request bodies as zod schemas: they validate, type the handlers and make the OpenAPI document. Fields are vLLM's. */
import { z } from 'zod';
import { INT64 } from './lax.ts';
import { INTEGER } from './validation.ts';

const text = () => z.string().nullish();
const bool = () => z.boolean().nullish();
/** The message marks it: zod calls the wanted type `number` for integers too. */
const int = () => z.int({ error: INTEGER }).nullish();
const float = () => z.number().nullish();
const isInt64 = (value: unknown): boolean =>
  typeof value === 'bigint' ? BigInt.asIntN(64, value) === value : Number.isSafeInteger(value);

/** A safe integer, or a bigint beyond 2^53. */
const int64 = () =>
  z
    .custom<number | bigint>(isInt64, {
      error: ({ input }) =>
        typeof input === 'bigint' || Number.isInteger(input)
          ? 'Input should be an integer of 64 bits, written in digits'
          : INTEGER,
    })
    .meta({ type: 'integer', format: INT64 })
    .nullish();

const tokenIds = () => z.array(z.int({ error: INTEGER }).min(0)).nullish();

const samplingFields = {
  n: int().describe('Choices per prompt, 1 to 16384.'),
  temperature: float().describe('0 to 2; 0 is greedy. Default from generation_config.json, else 1.'),
  top_p: float().describe('Nucleus, (0, 1].'),
  top_k: int().describe('0 or -1 = off.'),
  min_p: float().describe('Least probability relative to the most likely token, [0, 1].'),
  presence_penalty: float().describe('[-2, 2].'),
  frequency_penalty: float().describe('[-2, 2].'),
  repetition_penalty: float().describe('Above 0; 1 = off.'),
  seed: int64().describe('Makes sampling reproducible, whatever else runs.'),
  stop: z
    .union([z.string(), z.array(z.string())], { error: 'Input should be a valid string or a list of strings' })
    .nullish()
    .describe('Up to 4 strings that end the output.'),
  stop_token_ids: tokenIds().describe('Token ids that end the output.'),
  include_stop_str_in_output: bool().describe('Keep the stop string at the end of the text.'),
  ignore_eos: bool().describe('Go on after the end-of-sequence token.'),
  min_tokens: int().describe('No end before this many tokens.'),
  logit_bias: z.record(z.string(), z.number()).nullish().describe('Token id -> value added to its logit, -100 to 100.'),
  allowed_token_ids: tokenIds().describe('Only these ids can be generated.'),
  bad_words: z.array(z.string()).nullish().describe('Words that are never generated.'),
  prompt_logprobs: int().describe('Logprobs of the prompt tokens; -1 = whole vocabulary. Not with stream.'),
  skip_special_tokens: bool().describe('Default true.'),
  spaces_between_special_tokens: bool().describe('Accepted; has no effect here.'),
  truncate_prompt_tokens: int().describe('Keep at most this many prompt tokens; -1 = as many as fit.'),
  truncation_side: z.enum(['left', 'right']).nullish().describe('`left` (default) keeps the end of the prompt.'),
  stream: bool().describe('Answer as server-sent events.'),
  stream_options: z
    .looseObject({ include_usage: bool(), continuous_usage_stats: bool() })
    .nullish()
    .describe('`include_usage`: a last chunk with token counts; `continuous_usage_stats`: counts on every chunk.'),
  priority: int().describe('Lower first, with --scheduling-policy priority. The header X-Vllm-Priority overrides it.'),
  cache_salt: text().describe('Prefix cache entries are shared only under the same salt.'),
  request_id: text().describe('Part of the id of the answer.'),
  return_token_ids: bool().describe('Also the ids of prompt and output.'),
  return_tokens_as_token_ids: bool().describe('Tokens in logprobs as `token_id:N`.'),
  user: text().describe('Accepted; has no effect here.'),
  session_id: text().describe('Accepted; has no effect here.'),
  length_penalty: float().describe('Accepted; has no effect here.'),
  stream_interval: int(),
  return_token_offsets: bool(),
};

/** Known fields whose use is refused by name (refused.ts); here so that the document lists them. */
const refusedFields = {
  use_beam_search: bool(),
  logprob_token_ids: tokenIds(),
  response_format: z.looseObject({ type: z.string() }).nullish().describe('Only `text` in this version.'),
  structured_outputs: z.looseObject({}).nullish(),
  repetition_detection: z.looseObject({}).nullish(),
  thinking_token_budget: int(),
  watermarking: bool(),
  kv_transfer_params: z.looseObject({}).nullish(),
  ec_transfer_params: z.looseObject({}).nullish(),
  vllm_xargs: z.looseObject({}).nullish(),
  routed_experts_prompt_start: int().describe('Accepted; has no effect here.'),
  mm_payload: text().describe('Accepted; has no effect here.'),
  return_mm_kwargs: bool().describe('Accepted; has no effect here.'),
};

const PROMPT_WORDS =
  'Input should be a valid string, a list of strings, a list of token ids or a list of lists of token ids';

export type Prompt = string | readonly string[] | readonly number[] | readonly (readonly number[])[];

const isTokenId = (value: unknown): boolean => Number.isInteger(value) && (value as number) >= 0;

function isPrompt(value: unknown): value is Prompt | null | undefined {
  if (value === null || value === undefined || typeof value === 'string') return true;
  if (!Array.isArray(value)) return false;
  if (value.every(isTokenId) || value.every((item) => typeof item === 'string')) return true;
  return value.every((item) => Array.isArray(item) && item.every(isTokenId));
}

const idsSchema = { type: 'array', items: { type: 'integer', minimum: 0 } } as const;

/** One check instead of a union: a wrong list of a million ids must cost one issue, not four million. */
const prompt = z
  .custom<Prompt | null | undefined>(isPrompt, { error: PROMPT_WORDS })
  .optional()
  .meta({
    description: 'Text or token ids, one or many.',
    anyOf: [
      { type: 'string' },
      { type: 'array', items: { type: 'string' } },
      idsSchema,
      { type: 'array', items: idsSchema },
      { type: 'null' },
    ],
  });

const idList = z
  .custom<readonly number[]>((value) => Array.isArray(value) && value.every(isTokenId), {
    error: 'Input should be a list of token ids',
  })
  .meta(idsSchema);

export const CompletionRequest = z
  .looseObject({
    model: text().describe('A served name; default the first.'),
    prompt,
    max_tokens: int().describe(
      'Most tokens to generate; default 16, null = the rest of the context, 0 only with echo.',
    ),
    logprobs: int().describe('Logprobs of this many likely tokens beside the chosen one; -1 = all.'),
    echo: bool().describe('Repeat the prompt before the output.'),
    suffix: text(),
    add_special_tokens: bool().describe('Default true.'),
    best_of: int(),
    prompt_embeds: z.unknown().optional(),
    ...samplingFields,
    ...refusedFields,
  })
  .meta({ id: 'CompletionRequest' });

const contentPart = z.looseObject({ type: z.string() });

const message = z.looseObject({
  role: z.string(),
  content: z
    .union([z.string(), z.array(z.union([z.string(), contentPart]))], {
      error: 'Input should be a valid string or a list of content parts',
    })
    .nullish(),
  name: text(),
  tool_call_id: text(),
  tool_calls: z.array(z.looseObject({})).nullish(),
  reasoning: text(),
  reasoning_content: text(),
});

const tool = z.looseObject({ type: z.string().optional(), function: z.looseObject({ name: z.string() }) });

const chatTemplateFields = {
  add_generation_prompt: bool().describe('Default true.'),
  continue_final_message: bool().describe('Continue the last message instead of answering it.'),
  add_special_tokens: bool().describe('Default false: templates write them.'),
  chat_template: text(),
  chat_template_kwargs: z.looseObject({}).nullish().describe('Variables for the template, such as enable_thinking.'),
  media_io_kwargs: z.looseObject({}).nullish(),
  mm_processor_kwargs: z.looseObject({}).nullish(),
  tools: z.array(tool).nullish().describe('Shown to the template; needs `tool_choice: "none"`.'),
};

const REASONING_EFFORTS = ['none', 'minimal', 'low', 'medium', 'high', 'xhigh', 'max'] as const;

export const ChatCompletionRequest = z
  .looseObject({
    messages: z.array(message).max(65_536).describe('The conversation: `role` and `content`, oldest first.'),
    model: text().describe('A served name; default the first.'),
    max_completion_tokens: int().describe('Most tokens to generate; default the rest of the context.'),
    max_tokens: int().describe('Older name of max_completion_tokens.'),
    logprobs: bool().describe('Logprobs of the output tokens.'),
    top_logprobs: int().describe('Needs logprobs; -1 = whole vocabulary.'),
    tool_choice: z
      .union([z.string(), z.looseObject({})], { error: 'Input should be a valid string or tool' })
      .nullish()
      .describe('Only `none` in this version.'),
    parallel_tool_calls: bool().describe('Accepted; has no effect here.'),
    reasoning_effort: z.enum(REASONING_EFFORTS).nullish().describe('Handed to the template.'),
    include_reasoning: bool().describe('Accepted; has no effect here.'),
    echo: bool().describe('Repeat the last message before the output when it has the same role.'),
    documents: z.array(z.looseObject({})).nullish().describe('Handed to the template.'),
    return_prompt_text: bool().describe('Also the prompt as the template rendered it.'),
    functions: z.unknown().optional(),
    function_call: z.unknown().optional(),
    modalities: z.array(z.string()).nullish(),
    audio: z.unknown().optional(),
    ...chatTemplateFields,
    ...samplingFields,
    ...refusedFields,
  })
  .meta({ id: 'ChatCompletionRequest' });

const tokenizeFields = {
  model: text().describe('A served name; default the first.'),
  return_token_strs: bool().describe('Also the tokens as the vocabulary spells them.'),
};

const TokenizeCompletionRequest = z
  .looseObject({
    ...tokenizeFields,
    prompt: z.string().describe('Text.'),
    add_special_tokens: bool().describe('Default true.'),
  })
  .meta({ id: 'TokenizeCompletionRequest' });
const TokenizeChatRequest = z
  .looseObject({ ...tokenizeFields, messages: z.array(message).max(65_536), ...chatTemplateFields })
  .meta({ id: 'TokenizeChatRequest' });

export const TokenizeRequest = z.union([TokenizeChatRequest, TokenizeCompletionRequest], {
  error: 'Input should have `prompt` (a string) or `messages` (a list)',
});

export const DetokenizeRequest = z
  .looseObject({ model: text().describe('A served name; default the first.'), tokens: idList.describe('Token ids.') })
  .meta({ id: 'DetokenizeRequest' });

export type CompletionBody = z.infer<typeof CompletionRequest>;
export type ChatBody = z.infer<typeof ChatCompletionRequest>;
export type TokenizeCompletionBody = z.infer<typeof TokenizeCompletionRequest>;
export type TokenizeChatBody = z.infer<typeof TokenizeChatRequest>;
export type TokenizeBody = z.infer<typeof TokenizeRequest>;
export type DetokenizeBody = z.infer<typeof DetokenizeRequest>;
export type ChatTemplateBody = Pick<ChatBody, 'messages' | keyof typeof chatTemplateFields> &
  Partial<Pick<ChatBody, 'documents' | 'reasoning_effort'>>;
export type SamplingBody = Pick<ChatBody, keyof typeof samplingFields>;

export const KNOWN_FIELDS: Readonly<Record<'completion' | 'chat' | 'tokenize' | 'detokenize', ReadonlySet<string>>> = {
  completion: new Set(Object.keys(CompletionRequest.shape)),
  chat: new Set(Object.keys(ChatCompletionRequest.shape)),
  tokenize: new Set([...Object.keys(TokenizeChatRequest.shape), 'prompt']),
  detokenize: new Set(Object.keys(DetokenizeRequest.shape)),
};
