/**
 * Tokenmill: LLM inference for Node.js.
 *
 * ```ts
 * import { LLM, SamplingParams } from 'tokenmill';
 *
 * await using llm = await LLM.load();
 * const [answer] = await llm.generate(['Once upon a time'], new SamplingParams({ temperature: 0, maxTokens: 32 }));
 * console.log(answer.text);
 * ```
 */
export { ERRORS, type ErrorCode, TokenmillError } from './base/errors.ts';
export type { AsyncLLM, GenerationDelta, GenerationRequest, LogprobEntry, TokenLogprob } from './client/async_llm.ts';
export type { EngineHealth } from './client/engine_client.ts';
export type { LoadProgress } from './client/engine_thread.ts';
export {
  type CallOptions,
  type ChatOptions,
  type CompletionOutput,
  type GenerateOptions,
  type GenerationMetrics,
  type GenerationOutput,
  LLM,
  type LLMOptions,
  type Prompt,
} from './client/llm.ts';
export type { DownloadProgress } from './client/model_source.ts';
export { SamplingParams } from './client/sampling_params.ts';
export type { EngineConfig } from './config/flags.ts';
export type { EnginePlan } from './config/plan.ts';
export type { FinishReason, RequestTiming } from './engine/types.ts';
export type { ChatMessage, ChatTemplateOptions, Tokenizer } from './tokenizer/tokenizer.ts';
