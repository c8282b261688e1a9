/** POST /v1/completions. */
import type { FastifyReply, FastifyRequest } from 'fastify';
import { TokenmillError } from '../base/errors.ts';
import type { TokenLogprob } from '../client/async_llm.ts';
import type { ActiveRequest } from './active.ts';
import { resolveModel, type ServerContext } from './context.ts';
import { type GenerationJob, type PromptDelta, runGeneration } from './generation.ts';
import { badValue } from './http_errors.ts';
import { type CompletionLogprobs, completionLogprobs, type LogprobRow, promptLogprobs } from './logprobs.ts';
import { priorityOf, truncatePrompt } from './prompt.ts';
import { refuseUnsupported } from './refused.ts';
import { clientId, randomId } from './request_id.ts';
import { checkCombinations, MAX_N, toSamplingParams } from './sampling.ts';
import { type CompletionBody, KNOWN_FIELDS, type Prompt } from './schemas.ts';
import { type Emit, streamAnswer } from './stream.ts';
import { chunkUsage, UsageCounter, usage } from './usage.ts';

const DEFAULT_MAX_TOKENS = 16;
const MAX_PROMPTS = 1024;

interface CompletionCall {
  readonly body: CompletionBody;
  readonly model: string;
  readonly created: number;
  readonly job: GenerationJob;
  readonly n: number;
  /** Shown before the output when echo is on. */
  readonly echo: boolean;
  /** echo with max_tokens 0: one token is generated, none is shown. */
  readonly promptOnly: boolean;
  /** Logprobs asked for; null = none. */
  readonly logprobs: number | null;
  readonly asIds: boolean;
}

function promptList(prompt: Prompt | null | undefined, vocabSize: number): (string | Int32Array)[] {
  if (prompt === null || prompt === undefined || prompt === '') {
    throw badValue('Either prompt or prompt_embeds must be provided and non-empty.', 'prompt');
  }
  if (typeof prompt === 'string') return [prompt];
  if (prompt.length === 0) throw badValue('Either prompt or prompt_embeds must be provided and non-empty.', 'prompt');
  const items =
    typeof prompt[0] === 'number' ? [prompt as readonly number[]] : (prompt as readonly (string | readonly number[])[]);
  if (items.length > MAX_PROMPTS)
    throw badValue(`prompt list length ${items.length} exceeds the maximum allowed count of ${MAX_PROMPTS}.`, 'prompt');
  return items.map((item) => {
    if (item.length === 0) throw badValue('A prompt must not be empty.', 'prompt');
    if (typeof item === 'string') return item;
    // Before the conversion, which would wrap ids beyond 32 bits around to valid ones.
    const outside = item.find((id) => id >= vocabSize);
    if (outside !== undefined)
      throw badValue(`Token id ${outside} is out of vocabulary (size ${vocabSize}).`, 'prompt', outside);
    return Int32Array.from(item);
  });
}

function prepare(context: ServerContext, request: FastifyRequest, body: CompletionBody): CompletionCall {
  const { llm, config } = context;
  checkCombinations(body);
  const prompts = promptList(body.prompt, llm.plan.vocabSize);
  refuseUnsupported(body);
  context.warnUnknownFields(body, KNOWN_FIELDS.completion);
  const model = resolveModel(context, body.model);
  const echo = body.echo ?? false;
  const maxTokens = body.max_tokens === undefined ? DEFAULT_MAX_TOKENS : body.max_tokens;
  const promptOnly = echo && maxTokens === 0;
  const logprobs = body.logprobs ?? null;
  const params = toSamplingParams(
    body,
    {
      maxTokens: promptOnly ? 1 : maxTokens,
      logprobs,
      promptLogprobs: body.prompt_logprobs ?? (echo ? logprobs : null),
    },
    llm.defaultSampling,
  );
  const n = params.n ?? 1;
  if (n * prompts.length > MAX_N)
    throw badValue(`n times the number of prompts must be at most ${MAX_N}, got ${n * prompts.length}.`, 'n', n);
  const addSpecialTokens = body.add_special_tokens ?? true;
  return {
    body,
    model,
    created: Math.floor(Date.now() / 1000),
    n,
    echo,
    promptOnly,
    logprobs,
    asIds: body.return_tokens_as_token_ids ?? config.returnTokensAsTokenIds,
    job: {
      id: `cmpl-${clientId(request.headers['x-request-id']) ?? clientId(body.request_id) ?? randomId()}`,
      prompts: prompts.map((prompt) => truncatePrompt(llm, prompt, addSpecialTokens, body, params.maxTokens ?? null)),
      addSpecialTokens,
      params,
      priority: priorityOf(request, body),
      cacheSalt: body.cache_salt ?? null,
    },
  };
}

/** Builds the answer's pieces out of deltas, for both the whole answer and its chunks. */
class CompletionWriter {
  private readonly context: ServerContext;
  private readonly call: CompletionCall;

  constructor(context: ServerContext, call: CompletionCall) {
    this.context = context;
    this.call = call;
  }

  /** Text of a prompt for echo: what was sent, or what its ids say. */
  promptText(prompt: number): string {
    const source = this.call.job.prompts[prompt] ?? '';
    return typeof source === 'string'
      ? source
      : this.context.llm.tokenizer.decode(source, { skipSpecialTokens: false });
  }

  promptRows(ids: Int32Array, entries: readonly (TokenLogprob | null)[] | null): LogprobRow[] {
    return [...ids].map((tokenId, i) => {
      const entry = entries?.[i] ?? null;
      const text = entry?.token ?? this.context.llm.tokenizer.decode([tokenId], { skipSpecialTokens: false });
      return { tokenId, text, entry };
    });
  }

  outputRows(entries: readonly TokenLogprob[] | null): LogprobRow[] {
    return (entries ?? []).map((entry) => ({ tokenId: entry.tokenId, text: entry.token, entry }));
  }

  logprobs(rows: readonly LogprobRow[], offset: number): CompletionLogprobs | null {
    return this.call.logprobs === null ? null : completionLogprobs(rows, this.call.logprobs, offset, this.call.asIds);
  }
}

interface ChoiceState {
  text: string;
  tokenIds: number[];
  rows: LogprobRow[];
  promptIds: Int32Array;
  promptLogprobs: readonly (TokenLogprob | null)[] | null;
  finishReason: string | null;
  stopReason: string | number | null;
}

function emptyChoice(): ChoiceState {
  return {
    text: '',
    tokenIds: [],
    rows: [],
    promptIds: new Int32Array(),
    promptLogprobs: null,
    finishReason: null,
    stopReason: null,
  };
}

async function collect(
  deltas: AsyncGenerator<PromptDelta>,
  call: CompletionCall,
  counter: UsageCounter,
  writer: CompletionWriter,
): Promise<ChoiceState[]> {
  const choices = Array.from({ length: call.job.prompts.length * call.n }, emptyChoice);
  for await (const { prompt, delta } of deltas) {
    const index = prompt * call.n + delta.index;
    const choice = choices[index];
    if (!choice) continue;
    counter.add(prompt, index, delta);
    choice.text += delta.text;
    for (const id of delta.tokenIds) choice.tokenIds.push(id);
    if (call.logprobs !== null) choice.rows.push(...writer.outputRows(delta.logprobs));
    choice.promptIds = delta.promptTokenIds;
    if (delta.promptLogprobs)
      for (let i = 0; i < call.n; i++) choices[prompt * call.n + i]!.promptLogprobs = delta.promptLogprobs;
    choice.finishReason = delta.finishReason;
    choice.stopReason = delta.stopReason;
    if (delta.finishReason === 'error')
      throw new TokenmillError('internal', 'The engine could not finish this request.');
  }
  return choices;
}

async function answer(
  context: ServerContext,
  call: CompletionCall,
  deltas: AsyncGenerator<PromptDelta>,
): Promise<[unknown, UsageCounter]> {
  const { body, job, n } = call;
  const writer = new CompletionWriter(context, call);
  const counter = new UsageCounter(job.prompts.length, n);
  const states = await collect(deltas, call, counter, writer);
  const choices = states.map((state, index) => {
    const prompt = Math.floor(index / n);
    const rows = call.promptOnly ? [] : state.rows;
    const shown = call.echo ? [...writer.promptRows(state.promptIds, state.promptLogprobs), ...rows] : rows;
    const ids = call.promptOnly ? [] : state.tokenIds;
    return {
      index,
      text: (call.echo ? writer.promptText(prompt) : '') + (call.promptOnly ? '' : state.text),
      logprobs: writer.logprobs(shown, 0),
      finish_reason: state.finishReason,
      stop_reason: state.stopReason,
      token_ids: body.return_token_ids ? ids : null,
      prompt_logprobs: promptLogprobs(state.promptLogprobs),
      prompt_token_ids: body.return_token_ids ? [...state.promptIds] : null,
      routed_experts: null,
    };
  });
  return [
    {
      id: job.id,
      object: 'text_completion',
      created: call.created,
      model: call.model,
      choices,
      service_tier: null,
      system_fingerprint: context.systemFingerprint,
      usage: usage(counter, context.config.enablePromptTokensDetails),
      kv_transfer_params: null,
      ec_transfer_params: null,
      metrics: null,
    },
    counter,
  ];
}

/** Turns deltas into chunk JSON; the parts that never change are joined once. */
class ChunkStream {
  private readonly context: ServerContext;
  private readonly call: CompletionCall;
  private readonly writer: CompletionWriter;
  private readonly head: string;
  private readonly fingerprint: string;
  private readonly includeUsage: boolean;
  private readonly continuous: boolean;
  private readonly started: boolean[];
  private readonly textLengths: number[];
  /** Comes with choice 0; echo shows it before the other choices too. */
  private readonly promptLogprobs: (readonly (TokenLogprob | null)[])[] = [];
  readonly counter: UsageCounter;

  constructor(context: ServerContext, call: CompletionCall) {
    const { body, job, n } = call;
    this.context = context;
    this.call = call;
    this.writer = new CompletionWriter(context, call);
    this.head = `{"id":${JSON.stringify(job.id)},"object":"text_completion","created":${call.created},"model":${JSON.stringify(call.model)},"choices":[`;
    this.fingerprint = `"system_fingerprint":${JSON.stringify(context.systemFingerprint)}`;
    this.includeUsage = body.stream_options?.include_usage === true || context.config.enableForceIncludeUsage;
    this.continuous = this.includeUsage && body.stream_options?.continuous_usage_stats === true;
    this.started = new Array(job.prompts.length * n).fill(false);
    this.textLengths = new Array(job.prompts.length * n).fill(0);
    this.counter = new UsageCounter(job.prompts.length, n);
  }

  onDelta({ prompt, delta }: PromptDelta, emit: Emit): void {
    const { call } = this;
    if (delta.finishReason === 'error')
      throw new TokenmillError('internal', 'The engine could not finish this request.');
    const index = prompt * call.n + delta.index;
    this.counter.add(prompt, index, delta);
    const first = !this.started[index];
    if (first && delta.tokenIds.length === 0 && delta.finishReason === null) return;
    this.started[index] = true;
    const echoNow = first && call.echo;
    if (delta.promptLogprobs) this.promptLogprobs[prompt] = delta.promptLogprobs;
    const output = call.promptOnly ? '' : delta.text;
    const text = echoNow ? this.writer.promptText(prompt) + output : output;
    const rows = call.promptOnly ? [] : this.writer.outputRows(delta.logprobs);
    const shown = echoNow
      ? [...this.writer.promptRows(delta.promptTokenIds, this.promptLogprobs[prompt] ?? null), ...rows]
      : rows;
    const logprobs = this.writer.logprobs(shown, this.textLengths[index] ?? 0);
    this.textLengths[index] = (this.textLengths[index] ?? 0) + text.length;
    const ids = call.body.return_token_ids ? JSON.stringify(call.promptOnly ? [] : delta.tokenIds) : 'null';
    const promptIds = first && call.body.return_token_ids ? JSON.stringify([...delta.promptTokenIds]) : 'null';
    const finish = delta.finishReason === null ? 'null' : `"${delta.finishReason}"`;
    let json = `${this.head}{"index":${index},"text":${JSON.stringify(text)},"logprobs":${JSON.stringify(logprobs)},"finish_reason":${finish},"stop_reason":${JSON.stringify(delta.stopReason)},"prompt_token_ids":${promptIds},"token_ids":${ids}}]`;
    if (this.continuous) json += `,"usage":${JSON.stringify(chunkUsage(this.counter.of(prompt, index), false))}`;
    if (!this.includeUsage && delta.finishReason !== null) json += `,${this.fingerprint}`;
    emit(`${json}}`);
  }

  onEnd(emit: Emit): void {
    if (!this.includeUsage) return;
    const total = chunkUsage(this.counter, this.context.config.enablePromptTokensDetails);
    emit(`${this.head}],"usage":${JSON.stringify(total)},${this.fingerprint}}`);
  }
}

export function completionHandler(context: ServerContext) {
  return async (request: FastifyRequest<{ Body: CompletionBody }>, reply: FastifyReply): Promise<unknown> => {
    const active: ActiveRequest = context.active.open(request.raw, reply.raw, context.clock.now());
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
