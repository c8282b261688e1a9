/** Shapes of the answers, for the OpenAPI document only: answers are written by hand and checked against recorded ones in tests. */
import { z } from 'zod';

export const STATUS_WORDS: Readonly<Record<number, string>> = {
  400: 'A field has a wrong type or value, or asks for what is not supported',
  401: 'Missing or wrong API key',
  404: 'Unknown model',
  413: 'The body is too large',
  429: 'The queue is full; see Retry-After',
  500: 'The engine failed',
  503: 'Draining, overloaded or unhealthy; see Retry-After',
};

export const ErrorResponse = z
  .object({ error: z.object({ message: z.string(), type: z.string(), param: z.string().nullable(), code: z.int() }) })
  .meta({ id: 'ErrorResponse' });

const Usage = z
  .object({
    prompt_tokens: z.int(),
    total_tokens: z.int(),
    completion_tokens: z.int(),
    prompt_tokens_details: z.object({ cached_tokens: z.int() }).nullable(),
    completion_tokens_details: z.null(),
  })
  .meta({ id: 'UsageInfo' });

const finish = {
  finish_reason: z.enum(['stop', 'length', 'abort']).nullable(),
  stop_reason: z.union([z.string(), z.int()]).nullable(),
  token_ids: z.array(z.int()).nullable(),
};

const PromptLogprobs = z
  .array(z.record(z.string(), z.object({ logprob: z.number(), rank: z.int(), decoded_token: z.string() })).nullable())
  .nullable();

const tail = { kv_transfer_params: z.null(), ec_transfer_params: z.null(), metrics: z.null() };
const head = {
  id: z.string(),
  created: z.int(),
  model: z.string(),
  service_tier: z.null(),
  system_fingerprint: z.string(),
};

export const CompletionResponse = z
  .object({
    ...head,
    object: z.literal('text_completion'),
    choices: z.array(
      z.object({
        index: z.int(),
        text: z.string(),
        logprobs: z
          .object({
            text_offset: z.array(z.int()),
            token_logprobs: z.array(z.number().nullable()),
            tokens: z.array(z.string()),
            top_logprobs: z.array(z.record(z.string(), z.number()).nullable()),
          })
          .nullable(),
        ...finish,
        prompt_logprobs: PromptLogprobs,
        prompt_token_ids: z.array(z.int()).nullable(),
        routed_experts: z.null(),
      }),
    ),
    usage: Usage,
    ...tail,
  })
  .meta({ id: 'CompletionResponse' });

const ChatLogprob = z.object({ token: z.string(), logprob: z.number(), bytes: z.array(z.int()) });

export const ChatCompletionResponse = z
  .object({
    ...head,
    object: z.literal('chat.completion'),
    choices: z.array(
      z.object({
        index: z.int(),
        message: z.object({
          role: z.string(),
          content: z.string().nullable(),
          refusal: z.null(),
          annotations: z.null(),
          audio: z.null(),
          function_call: z.null(),
          reasoning: z.string().nullable(),
        }),
        logprobs: z.object({ content: z.array(ChatLogprob.extend({ top_logprobs: z.array(ChatLogprob) })) }).nullable(),
        ...finish,
        routed_experts: z.null(),
      }),
    ),
    usage: Usage,
    prompt_logprobs: PromptLogprobs,
    prompt_token_ids: z.array(z.int()).nullable(),
    prompt_text: z.string().nullable(),
    ...tail,
  })
  .meta({ id: 'ChatCompletionResponse' });

export const ModelCard = z
  .object({
    id: z.string(),
    object: z.literal('model'),
    created: z.int(),
    owned_by: z.string(),
    root: z.string(),
    parent: z.string().nullable(),
    max_model_len: z.int(),
    permission: z.array(z.looseObject({ id: z.string() })),
  })
  .meta({ id: 'ModelCard' });
export const ModelList = z.object({ object: z.literal('list'), data: z.array(ModelCard) }).meta({ id: 'ModelList' });

export const TokenizeResponse = z
  .object({
    count: z.int(),
    max_model_len: z.int(),
    tokens: z.array(z.int()),
    token_strs: z.array(z.string()).nullable(),
  })
  .meta({ id: 'TokenizeResponse' });
export const DetokenizeResponse = z.object({ prompt: z.string() }).meta({ id: 'DetokenizeResponse' });
export const VersionResponse = z.object({ version: z.string() });
export const LoadResponse = z.object({ server_load: z.int() });
export const ReadyResponse = z.object({ ready: z.literal(true) });
export const ResetResponse = z.object({ success: z.boolean() });
export const PlanResponse = z.looseObject({
  modelPath: z.string(),
  maxModelLen: z.int(),
  reasons: z.record(z.string(), z.string()),
});
export const Text = z.string();
export const Empty = z.null();
