/** The library's front door: batch in, batch out, chat and streams over one loaded model. Named after vLLM's LLM. */
import { randomUUID } from 'node:crypto';
import { setMaxListeners } from 'node:events';
import { TokenmillError } from '../base/errors.ts';
import { EMBEDDED_MODEL, type EngineConfig, FLAGS } from '../config/flags.ts';
import { parseOptions } from '../config/options.ts';
import type { EnginePlan } from '../config/plan.ts';
import type { FinishReason } from '../engine/types.ts';
import type { ChatMessage, ChatTemplateOptions, Tokenizer } from '../tokenizer/tokenizer.ts';
import type { AsyncLLM, GenerationDelta, GenerationRequest, TokenLogprob } from './async_llm.ts';
import type { LLMEngine } from './llm_engine.ts';
import { type LoadEngineOptions, loadEngine } from './load_engine.ts';
import type { SamplingParams } from './sampling_params.ts';

/** Text, or token ids. */
export type Prompt = string | readonly number[] | Int32Array;

/** Every flag of `tokenmill serve` as a camelCase option, e.g. `{ maxModelLen: 4096, quantization: 'int8' }`. */
export type LLMOptions = Partial<Omit<EngineConfig, 'model'>> & LoadEngineOptions;

export interface CallOptions {
  /** Aborts what is still running; unfinished answers end with finishReason `abort`. */
  readonly signal?: AbortSignal;
  /** Smaller = earlier, with schedulingPolicy `priority`. */
  readonly priority?: number;
  /** Separates prefix caches of different tenants. */
  readonly cacheSalt?: string;
}

export interface GenerateOptions extends CallOptions {
  /** A bar on stderr, or a callback with the number of finished prompts. */
  readonly progress?: boolean | ((done: number, total: number) => void);
}

export interface ChatOptions extends GenerateOptions, Partial<ChatTemplateOptions> {}

/** One answer. */
export interface CompletionOutput {
  readonly index: number;
  readonly text: string;
  readonly tokenIds: readonly number[];
  /** One entry per token when asked for. */
  readonly logprobs: readonly TokenLogprob[] | null;
  /** Sum of the tokens' logprobs when asked for. */
  readonly cumulativeLogprob: number | null;
  readonly finishReason: FinishReason;
  /** The stop string or stop token id that ended it; null for end of sequence and length. */
  readonly stopReason: string | number | null;
}

/** Times in milliseconds. */
export interface GenerationMetrics {
  readonly promptTokens: number;
  readonly cachedTokens: number;
  readonly outputTokens: number;
  /** From the call to the first step that computed something. */
  readonly queueMs: number;
  /** From the call to the first token. */
  readonly ttftMs: number;
  /** Mean time per token after the first; null with fewer than two. */
  readonly tpotMs: number | null;
  readonly e2eMs: number;
  readonly preemptions: number;
}

/** All answers to one prompt. */
export interface GenerationOutput {
  /** The text, rendered by the template for chats; null for token ids. */
  readonly prompt: string | null;
  readonly promptTokenIds: Int32Array;
  /** The first entry is null: nothing predicts the first token. */
  readonly promptLogprobs: readonly (TokenLogprob | null)[] | null;
  readonly outputs: readonly CompletionOutput[];
  /** Text of the first answer. */
  readonly text: string;
  readonly metrics: GenerationMetrics;
}

export class LLM {
  /** What was worked out from options, model and machine, each value with its reason. */
  readonly plan: EnginePlan;
  readonly tokenizer: Tokenizer;
  private readonly llm: LLMEngine;

  private constructor(llm: LLMEngine) {
    this.llm = llm;
    this.plan = llm.plan;
    this.tokenizer = llm.tokenizer;
  }

  /**
   * Loads a model: a folder, a Hugging Face id, or nothing for the embedded one.
   * @throws TokenmillError naming cause and cure: missing or damaged files, unknown architecture, no memory, no network ...
   */
  static async load(model: string = EMBEDDED_MODEL, options: LLMOptions = {}): Promise<LLM> {
    const { inProcess, onDownload, onLoad, signal, ...flags } = options;
    const config = parseOptions({ ...flags, model }, FLAGS, process.env);
    const load = {
      inProcess: inProcess ?? false,
      ...(onDownload ? { onDownload } : {}),
      ...(onLoad ? { onLoad } : {}),
      ...(signal ? { signal } : {}),
    };
    return new LLM(await loadEngine(config, load));
  }

  /** The interface below this class, on which the server stands. */
  get engine(): AsyncLLM {
    return this.llm;
  }

  /** Completes one prompt. */
  generate(prompt: Prompt, params?: SamplingParams, options?: GenerateOptions): Promise<GenerationOutput>;
  /** Completes many prompts in one batch; `params` is one for all or one for each. Answers come in the order of the prompts. */
  generate(
    prompts: readonly Prompt[],
    params?: SamplingParams | readonly SamplingParams[],
    options?: GenerateOptions,
  ): Promise<GenerationOutput[]>;
  async generate(
    prompts: Prompt | readonly Prompt[],
    params: SamplingParams | readonly SamplingParams[] = {},
    options: GenerateOptions = {},
  ): Promise<GenerationOutput | GenerationOutput[]> {
    if (isPrompt(prompts)) return (await this.runAll([job(prompts, true)], params, options))[0]!;
    return this.runAll(
      prompts.map((prompt) => job(prompt, true)),
      params,
      options,
    );
  }

  /** Answers one conversation. */
  chat(messages: readonly ChatMessage[], params?: SamplingParams, options?: ChatOptions): Promise<GenerationOutput>;
  /** Answers many conversations in one batch. */
  chat(
    conversations: readonly (readonly ChatMessage[])[],
    params?: SamplingParams | readonly SamplingParams[],
    options?: ChatOptions,
  ): Promise<GenerationOutput[]>;
  async chat(
    conversations: readonly ChatMessage[] | readonly (readonly ChatMessage[])[],
    params: SamplingParams | readonly SamplingParams[] = {},
    options: ChatOptions = {},
  ): Promise<GenerationOutput | GenerationOutput[]> {
    const batch = Array.isArray(conversations[0]);
    const all = (batch ? conversations : [conversations]) as readonly (readonly ChatMessage[])[];
    const outputs = await this.runAll(
      all.map((messages) => job(this.renderChat(messages, options), false)),
      params,
      options,
    );
    return batch ? outputs : outputs[0]!;
  }

  /** Streams the answer to a prompt or a conversation: new text and tokens as they come. Leaving the loop aborts it. */
  stream(
    input: Prompt | readonly ChatMessage[],
    params: SamplingParams = {},
    options: ChatOptions = {},
  ): AsyncIterable<GenerationDelta> {
    const { prompt, addSpecialTokens } = isPrompt(input)
      ? job(input, true)
      : job(this.renderChat(input, options), false);
    return this.llm.generate(this.request(prompt, addSpecialTokens, params, options));
  }

  /** The prompt that the chat template makes of a conversation. */
  renderChat(messages: readonly ChatMessage[], options: Partial<ChatTemplateOptions> = {}): string {
    const { addGenerationPrompt, continueFinalMessage, tools, documents, kwargs } = options;
    return this.llm.renderChat(messages, {
      addGenerationPrompt: addGenerationPrompt ?? !(continueFinalMessage ?? false),
      ...(continueFinalMessage === undefined ? {} : { continueFinalMessage }),
      ...(tools === undefined ? {} : { tools }),
      ...(documents === undefined ? {} : { documents }),
      ...(kwargs === undefined ? {} : { kwargs }),
    });
  }

  /** Token ids of a text, with the special tokens the model's tokenizer adds unless told otherwise. */
  tokenize(text: string, options: { readonly addSpecialTokens?: boolean } = {}): Int32Array {
    return this.tokenizer.encode(text, { addSpecialTokens: options.addSpecialTokens ?? true });
  }

  /** Text of token ids. */
  detokenize(ids: ArrayLike<number>, options: { readonly skipSpecialTokens?: boolean } = {}): string {
    return this.tokenizer.decode(ids, { skipSpecialTokens: options.skipSpecialTokens ?? true });
  }

  /** Aborts what runs and frees the model's memory. */
  close(): Promise<void> {
    return this.llm.close();
  }

  /** `await using llm = await LLM.load()` closes it at the end of the block. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  private request(
    prompt: string | Int32Array,
    addSpecialTokens: boolean,
    params: SamplingParams,
    options: CallOptions,
  ): GenerationRequest {
    return {
      id: randomUUID(),
      prompt,
      addSpecialTokens,
      params: { ...this.llm.defaultSampling, ...params },
      ...(options.priority === undefined ? {} : { priority: options.priority }),
      ...(options.cacheSalt === undefined ? {} : { cacheSalt: options.cacheSalt }),
      ...(options.signal === undefined ? {} : { signal: options.signal }),
    };
  }

  /** Keeps as many requests in flight as the queue admits; the engine batches them. */
  private async runAll(
    jobs: readonly Job[],
    params: SamplingParams | readonly SamplingParams[],
    options: GenerateOptions,
  ): Promise<GenerationOutput[]> {
    const paramsOf = paramsPerPrompt(params, jobs.length);
    const stop = new AbortController();
    const signal = options.signal ? AbortSignal.any([options.signal, stop.signal]) : stop.signal;
    // Every request of the batch listens.
    setMaxListeners(0, signal);
    const progress = await openProgress(options.progress ?? false, jobs.length);
    const outputs: GenerationOutput[] = new Array(jobs.length);
    let next = 0;
    let done = 0;
    const worker = async (): Promise<void> => {
      for (let i = next++; i < jobs.length; i = next++) {
        outputs[i] = await this.run(jobs[i]!, paramsOf(i), { ...options, signal });
        progress.update(++done, outputs[i]!);
      }
    };
    const widest = Math.max(1, ...jobs.map((_, i) => paramsOf(i).n ?? 1));
    const workers = Math.max(1, Math.min(jobs.length, Math.floor(this.plan.config.maxNumQueuedReqs / 2 / widest)));
    try {
      await Promise.all(Array.from({ length: workers }, worker));
    } finally {
      stop.abort();
      progress.close();
    }
    return outputs;
  }

  private async run(
    { prompt, addSpecialTokens }: Job,
    params: SamplingParams,
    options: CallOptions,
  ): Promise<GenerationOutput> {
    const arrivalMs = performance.timeOrigin + performance.now();
    const answers: Answer[] = [];
    let last: GenerationDelta | null = null;
    let promptLogprobs: GenerationOutput['promptLogprobs'] = null;
    for await (const delta of this.llm.generate(this.request(prompt, addSpecialTokens, params, options))) {
      last = delta;
      promptLogprobs ??= delta.promptLogprobs;
      answers[delta.index] ??= new Answer(delta.index);
      answers[delta.index]!.add(delta);
    }
    if (last === null) throw new TokenmillError('internal', 'The engine ended a request without an answer.');
    const outputs = answers.map((answer) => answer.output());
    return {
      prompt: typeof prompt === 'string' ? prompt : null,
      promptTokenIds: last.promptTokenIds,
      promptLogprobs,
      outputs,
      text: outputs[0]!.text,
      metrics: metrics(last, answers, arrivalMs),
    };
  }
}

interface Job {
  readonly prompt: string | Int32Array;
  readonly addSpecialTokens: boolean;
}

function job(prompt: Prompt, addSpecialTokens: boolean): Job {
  return { prompt: typeof prompt === 'string' ? prompt : Int32Array.from(prompt), addSpecialTokens };
}

/** An empty list is an empty batch, not an empty prompt. */
function isPrompt(input: unknown): input is Prompt {
  return (
    typeof input === 'string' || input instanceof Int32Array || (Array.isArray(input) && typeof input[0] === 'number')
  );
}

function paramsPerPrompt(
  params: SamplingParams | readonly SamplingParams[],
  prompts: number,
): (index: number) => SamplingParams {
  if (!Array.isArray(params)) return () => params as SamplingParams;
  if (params.length !== prompts) {
    throw new TokenmillError(
      'invalid_request',
      `There are ${prompts} prompts but ${params.length} sampling parameters.`,
      {
        remedy: 'Give one for all or one for each.',
      },
    );
  }
  return (index) => params[index]!;
}

/** Collects the deltas of one choice. */
class Answer {
  firstDelta: GenerationDelta | null = null;
  lastDelta: GenerationDelta | null = null;
  readonly tokenIds: number[] = [];
  private readonly index: number;
  private text = '';
  private logprobs: TokenLogprob[] | null = null;

  constructor(index: number) {
    this.index = index;
  }

  add(delta: GenerationDelta): void {
    this.firstDelta ??= delta;
    this.lastDelta = delta;
    this.text += delta.text;
    for (const id of delta.tokenIds) this.tokenIds.push(id);
    if (delta.logprobs === null) return;
    this.logprobs ??= [];
    for (const entry of delta.logprobs) this.logprobs.push(entry);
  }

  output(): CompletionOutput {
    return {
      index: this.index,
      text: this.text,
      tokenIds: this.tokenIds,
      logprobs: this.logprobs,
      cumulativeLogprob: this.logprobs === null ? null : this.logprobs.reduce((sum, entry) => sum + entry.logprob, 0),
      finishReason: this.lastDelta?.finishReason ?? 'abort',
      stopReason: this.lastDelta?.stopReason ?? null,
    };
  }
}

function metrics(last: GenerationDelta, answers: readonly Answer[], arrivalMs: number): GenerationMetrics {
  const timings = answers.map((answer) => answer.lastDelta!.timing);
  const scheduledMs = Math.min(...timings.map((timing) => timing.scheduledMs || Number.POSITIVE_INFINITY));
  const firstMs = Math.min(...timings.map((timing) => timing.firstTokenMs || Number.POSITIVE_INFINITY));
  const lastMs = Math.max(...timings.map((timing) => timing.lastTokenMs));
  const first = answers[0]!;
  const timing = timings[0]!;
  const since = (ms: number): number => (Number.isFinite(ms) && ms > 0 ? Math.max(0, ms - arrivalMs) : 0);
  return {
    promptTokens: last.promptTokenIds.length,
    cachedTokens: first.lastDelta!.cachedTokens,
    outputTokens: answers.reduce((sum, answer) => sum + answer.tokenIds.length, 0),
    queueMs: since(scheduledMs),
    ttftMs: since(firstMs),
    tpotMs: first.tokenIds.length > 1 ? (timing.lastTokenMs - timing.firstTokenMs) / (first.tokenIds.length - 1) : null,
    e2eMs: since(lastMs),
    preemptions: timings.reduce((sum, one) => sum + one.preemptions, 0),
  };
}

interface Progress {
  update(done: number, output: GenerationOutput): void;
  close(): void;
}

async function openProgress(
  option: boolean | ((done: number, total: number) => void),
  total: number,
): Promise<Progress> {
  if (typeof option === 'function') return { update: (done) => option(done, total), close: () => {} };
  if (!option) return { update: () => {}, close: () => {} };
  const { default: cliProgress } = await import('cli-progress');
  const bar = new cliProgress.SingleBar({
    format: '{bar} {percentage}% | {value}/{total} prompts | {rate} tokens/s | ETA {eta_formatted}',
    stream: process.stderr,
    hideCursor: true,
    clearOnComplete: false,
  });
  const startMs = performance.now();
  let tokens = 0;
  bar.start(total, 0, { rate: '0' });
  return {
    update: (done, output) => {
      tokens += output.metrics.outputTokens;
      bar.update(done, { rate: ((1000 * tokens) / (performance.now() - startMs)).toFixed(1) });
    },
    close: () => bar.stop(),
  };
}
