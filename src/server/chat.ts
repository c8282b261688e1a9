/** POST /v1/chat/completions. */
import type { FastifyReply, FastifyRequest } from 'fastify';
import { TokenmillError } from '../base/errors.ts';
import type { TokenLogprob } from '../client/async_llm.ts';
import { answerRole, checkTools, echoedText, renderMessages } from './chat_messages.ts';
import { resolveModel, type ServerContext } from './context.ts';
import { type GenerationJob, type PromptDelta, runGeneration } from './generation.ts';
import { badValue } from './http_errors.ts';
import { chatLogprobs, promptLogprobs } from './logprobs.ts';
import { priorityOf, truncatePrompt } from './prompt.ts';
import { refuseUnsupported } from './refused.ts';
import { clientId, randomId } from './request_id.ts';
import { checkCombinations, toSamplingParams } from './sampling.ts';
import { type ChatBody, KNOWN_FIELDS } from './schemas.ts';
import { type Emit, streamAnswer } from './stream.ts';
import { chunkUsage, UsageCounter, usage } from './usage.ts';

interface ChatCall {
  readonly body: ChatBody;
  readonly model: string;
  readonly created: number;
  readonly job: GenerationJob;
  readonly n: number;
  readonly role: string;
  /** Shown before the output with `echo`. */
  readonly echoed: string;
  readonly promptText: string;
  readonly topLogprobs: number;
  readonly asIds: boolean;
}

/** Top logprobs asked for; null = no logprobs. Throws `invalid_request`. */
function logprobsOf(body: ChatBody): number | null {
  const top = body.top_logprobs ?? 0;
  if (top < -1) throw badValue('`top_logprobs` must be a positive value or -1.', 'top_logprobs', top);
  if (top !== 0 && !body.logprobs)
    throw badValue('when using `top_logprobs`, `logprobs` must be set to true.', 'top_logprobs');
  return body.logprobs ? top : null;
}

function prepare(context: ServerContext, request: FastifyRequest, body: ChatBody): ChatCall {
  const { llm, config } = context;
  checkCombinations(body);
  const logprobs = logprobsOf(body);
  refuseUnsupported(body);
  checkTools(body);
  context.warnUnknownFields(body, KNOWN_FIELDS.chat);
  const model = resolveModel(context, body.model);
  const params = toSamplingParams(
    body,
    {
      maxTokens: body.max_completion_tokens ?? body.max_tokens ?? null,
      logprobs,
      promptLogprobs: body.prompt_logprobs ?? null,
    },
    llm.defaultSampling,
  );
  const promptText = renderMessages(llm, body);
  const addSpecialTokens = body.add_special_tokens ?? false;
  const role = answerRole(config, body);
  return {
    body,
    model,
    created: Math.floor(Date.now() / 1000),
    n: params.n ?? 1,
    role,
    echoed: body.echo ? echoedText(body, role) : '',
    promptText,
    topLogprobs: logprobs ?? 0,
    asIds: body.return_tokens_as_token_ids ?? config.returnTokensAsTokenIds,
    job: {
      id: `chatcmpl-${clientId(request.headers['x-request-id']) ?? clientId(body.request_id) ?? randomId()}`,
      prompts: [truncatePrompt(llm, promptText, addSpecialTokens, body, params.maxTokens ?? null)],
      addSpecialTokens,
      params,
      priority: priorityOf(request, body),
      cacheSalt: body.cache_salt ?? null,
    },
  };
}

interface ChoiceState {
  text: string;
  tokenIds: number[];
  logprobs: TokenLogprob[];
  finishReason: string | null;
  stopReason: string | number | null;
}

function chatChoice(call: ChatCall, state: ChoiceState, index: number) {
  const { body } = call;
  return {
    index,
    message: {
      role: call.role,
      content: call.echoed + state.text,
      refusal: null,
      annotations: null,
      audio: null,
      function_call: null,
      reasoning: null,
    },
    logprobs: body.logprobs ? chatLogprobs(state.logprobs, call.topLogprobs, call.asIds) : null,
    finish_reason: state.finishReason,
    stop_reason: state.stopReason,
    token_ids: body.return_token_ids ? state.tokenIds : null,
    routed_experts: null,
  };
}

async function answer(
  context: ServerContext,
  call: ChatCall,
  deltas: AsyncGenerator<PromptDelta>,
): Promise<[unknown, UsageCounter]> {
  const { body, job, n } = call;
  const counter = new UsageCounter(1, n);
  const states: ChoiceState[] = Array.from({ length: n }, () => ({
    text: '',
    tokenIds: [],
    logprobs: [],
    finishReason: null,
    stopReason: null,
  }));
  let promptIds: Int32Array = new Int32Array();
  let promptRows: readonly (TokenLogprob | null)[] | null = null;
  for await (const { prompt, delta } of deltas) {
    const state = states[delta.index];
    if (!state) continue;
    if (delta.finishReason === 'error')
      throw new TokenmillError('internal', 'The engine could not finish this request.');
    counter.add(prompt, delta.index, delta);
    state.text += delta.text;
    for (const id of delta.tokenIds) state.tokenIds.push(id);
    if (body.logprobs) state.logprobs.push(...(delta.logprobs ?? []));
    state.finishReason = delta.finishReason;
    state.stopReason = delta.stopReason;
    promptIds = delta.promptTokenIds;
    promptRows ??= delta.promptLogprobs;
  }
  const whole = {
    id: job.id,
    object: 'chat.completion',
    created: call.created,
    model: call.model,
    choices: states.map((state, index) => chatChoice(call, state, index)),
    service_tier: null,
    system_fingerprint: context.systemFingerprint,
    usage: usage(counter, context.config.enablePromptTokensDetails),
    prompt_logprobs: promptLogprobs(promptRows),
    prompt_token_ids: body.return_token_ids ? [...promptIds] : null,
    prompt_text: body.return_prompt_text ? call.promptText : null,
    kv_transfer_params: null,
    ec_transfer_params: null,
    metrics: null,
  };
  return [whole, counter];
}

/** Turns deltas into chunk JSON: a role chunk per choice, text, and the usage chunk. */
class ChunkStream {
  private readonly context: ServerContext;
  private readonly call: ChatCall;
  private readonly head: string;
  private readonly fingerprint: string;
  private readonly includeUsage: boolean;
  private readonly continuous: boolean;
  private opened = false;
  readonly counter: UsageCounter;

  constructor(context: ServerContext, call: ChatCall) {
    const { body, job, n } = call;
    this.context = context;
    this.call = call;
    this.head = `{"id":${JSON.stringify(job.id)},"object":"chat.completion.chunk","created":${call.created},"model":${JSON.stringify(call.model)},"choices":[`;
    this.fingerprint = `"system_fingerprint":${JSON.stringify(context.systemFingerprint)}`;
    this.includeUsage = body.stream_options?.include_usage === true || context.config.enableForceIncludeUsage;
    this.continuous = this.includeUsage && body.stream_options?.continuous_usage_stats === true;
    this.counter = new UsageCounter(1, n);
  }

  onDelta({ prompt, delta }: PromptDelta, emit: Emit): void {
    const { call } = this;
    const { index } = delta;
    if (delta.finishReason === 'error')
      throw new TokenmillError('internal', 'The engine could not finish this request.');
    if (!this.opened) this.open(delta.promptTokenIds, delta.cachedTokens, emit);
    if (delta.tokenIds.length === 0 && delta.text === '' && delta.finishReason === null) return;
    this.counter.add(prompt, index, delta);
    const logprobs =
      call.body.logprobs && delta.logprobs
        ? JSON.stringify(chatLogprobs(delta.logprobs, call.topLogprobs, call.asIds))
        : 'null';
    const ids = call.body.return_token_ids ? JSON.stringify(delta.tokenIds) : 'null';
    const finish =
      delta.finishReason === null
        ? '"finish_reason":null'
        : `"finish_reason":"${delta.finishReason}","stop_reason":${JSON.stringify(delta.stopReason)}`;
    let json = `${this.head}{"index":${index},"delta":{"content":${JSON.stringify(delta.text)}},"logprobs":${logprobs},${finish},"token_ids":${ids}}]`;
    json += this.usageOf(prompt, index);
    if (!this.includeUsage && delta.finishReason !== null) json += `,${this.fingerprint}`;
    emit(`${json}}`);
  }

  onEnd(emit: Emit): void {
    if (!this.includeUsage) return;
    const total = chunkUsage(this.counter, this.context.config.enablePromptTokensDetails);
    emit(`${this.head}],"usage":${JSON.stringify(total)},${this.fingerprint}}`);
  }

  private open(promptIds: Int32Array, cachedTokens: number, emit: Emit): void {
    const { call } = this;
    this.opened = true;
    this.counter.add(0, 0, { promptTokenIds: promptIds, cachedTokens, tokenIds: [] });
    const ids = call.body.return_token_ids ? JSON.stringify([...promptIds]) : 'null';
    const text = call.body.return_prompt_text ? JSON.stringify(call.promptText) : 'null';
    const role = JSON.stringify(call.role);
    for (let index = 0; index < call.n; index++) {
      const used = this.usageOf(0, index);
      emit(
        `${this.head}{"index":${index},"delta":{"role":${role},"content":""},"logprobs":null,"finish_reason":null}]${used},"prompt_token_ids":${ids},"prompt_text":${text}}`,
      );
    }
    if (call.echoed === '') return;
    for (let index = 0; index < call.n; index++) {
      emit(
        `${this.head}{"index":${index},"delta":{"content":${JSON.stringify(call.echoed)}},"logprobs":null,"finish_reason":null}]${this.usageOf(0, index)}}`,
      );
    }
  }

  private usageOf(prompt: number, index: number): string {
    if (!this.continuous) return '';
    const { promptTokens, completionTokens } = this.counter.of(prompt, index);
    return `,"usage":{"prompt_tokens":${promptTokens},"total_tokens":${promptTokens + completionTokens},"completion_tokens":${completionTokens},"completion_tokens_details":null}`;
  }
}

export function chatHandler(context: ServerContext) {
  return async (request: FastifyRequest<{ Body: ChatBody }>, reply: FastifyReply): Promise<unknown> => {
    const active = context.active.open(request.raw, reply.raw, context.clock.now());
    try {
      const call = prepare(context, request, request.body);
      const deltas = runGeneration(context, call.job, active);
      if (call.body.stream) {
        const chunks = new ChunkStream(context, call);
        await streamAnswer(context, reply, active, deltas, {
          onDelta: (delta, emit) => chunks.onDelta(delta, emit),
          onEnd: (emit) => chunks.onEnd(emit),
        });
        request.tokenCounts = { prompt: chunks.counter.promptTokens, completion: chunks.counter.completionTokens };
        return reply;
      }
      const [body, counter] = await answer(context, call, deltas);
      request.tokenCounts = { prompt: counter.promptTokens, completion: counter.completionTokens };
      return reply.send(body);
    } finally {
      active.end();
    }
  };
}
