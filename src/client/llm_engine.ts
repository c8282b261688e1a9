/** AsyncLLM over any EngineClient: tokenizing, admission, n, deltas, abort. Runs on the main thread. */
import type { Clock } from '../base/clock.ts';
import { deserializeError, TokenmillError } from '../base/errors.ts';
import type { EnginePlan } from '../config/plan.ts';
import type { EngineRequest, EngineStats, RequestOutput } from '../engine/types.ts';
import type { ChatMessage, ChatTemplate, ChatTemplateOptions, Tokenizer } from '../tokenizer/tokenizer.ts';
import type { AsyncLLM, GenerationDelta, GenerationRequest } from './async_llm.ts';
import { Choice } from './choice.ts';
import { DeltaQueue } from './delta_queue.ts';
import type { EngineClient, EngineHealth } from './engine_client.ts';
import type { LoadTimings } from './engine_thread.ts';
import { promptTooLong, type ValidSampling, validateSampling } from './sampling.ts';
import type { SamplingParams } from './sampling_params.ts';

/** Seconds after which a refused client may try again: about the time a short answer takes. */
const RETRY_AFTER_S = 1;

export interface LLMEngineParts {
  readonly client: EngineClient;
  readonly plan: EnginePlan;
  readonly timings: LoadTimings;
  readonly tokenizer: Tokenizer;
  readonly chatTemplate: ChatTemplate | null;
  readonly defaultSampling: Partial<SamplingParams>;
  readonly eosTokenId: number | null;
  readonly extraEosTokenIds: readonly number[];
  readonly clock: Clock;
  /** Seeds for requests without one. */
  readonly drawSeed: () => bigint;
}

export class LLMEngine implements AsyncLLM {
  readonly plan: EnginePlan;
  readonly tokenizer: Tokenizer;
  readonly createdS: number;
  readonly defaultSampling: Partial<SamplingParams>;
  private readonly parts: LLMEngineParts;
  private sequences = 0;
  /** Prompt tokens of requests that have no token yet. */
  private queuedTokens = 0;
  private probes = 0;
  private longestTokenBytes = 0;

  constructor(parts: LLMEngineParts) {
    this.parts = parts;
    this.plan = parts.plan;
    this.tokenizer = parts.tokenizer;
    this.defaultSampling = parts.defaultSampling;
    this.createdS = Math.floor(parts.clock.now() / 1000);
  }

  /** How long loading took. */
  get timings(): LoadTimings {
    return this.parts.timings;
  }

  get inFlight(): number {
    return this.sequences;
  }

  get hasChatTemplate(): boolean {
    return this.parts.chatTemplate !== null;
  }

  /** Resolves with the reason when the engine dies; stays pending otherwise. */
  get died(): Promise<TokenmillError> {
    return this.parts.client.died;
  }

  async *generate(request: GenerationRequest): AsyncGenerator<GenerationDelta> {
    const arrivalMs = this.parts.clock.now();
    const promptTokenIds = this.encode(request);
    const sampling = this.validate(request.params, promptTokenIds.length);
    const flight = this.admit(request, promptTokenIds, sampling);
    const abort = (): void => this.parts.client.abort(flight.unfinishedIds());
    request.signal?.addEventListener('abort', abort, { once: true });
    try {
      this.parts.client.add(engineRequests(request, promptTokenIds, sampling, arrivalMs), (output) =>
        flight.onOutput(output),
      );
      if (request.signal?.aborted) abort();
      yield* flight.queue.drain();
    } finally {
      request.signal?.removeEventListener('abort', abort);
      const left = flight.unfinishedIds();
      if (left.length > 0) this.parts.client.abort(left);
      flight.release();
    }
  }

  renderChat(messages: readonly ChatMessage[], options: ChatTemplateOptions): string {
    const template = this.parts.chatTemplate;
    if (template === null) {
      throw new TokenmillError('template_error', 'This model has no chat template.', {
        remedy: 'Give one with --chat-template, or use completions.',
      });
    }
    if (messages.length === 0) {
      throw new TokenmillError(
        'template_error',
        'Cannot apply chat template to an empty conversation. Provide at least one message.',
      );
    }
    const defaults = this.plan.config.defaultChatTemplateKwargs;
    return template.render(messages, { ...options, kwargs: { ...defaults, ...options.kwargs } });
  }

  health(): EngineHealth {
    return this.parts.client.health();
  }

  onStats(listener: (stats: EngineStats) => void): () => void {
    return this.parts.client.onStats(listener);
  }

  async probe(signal?: AbortSignal): Promise<void> {
    const prompt = Int32Array.of(this.tokenizer.bosTokenId ?? this.parts.eosTokenId ?? 0);
    const params: SamplingParams = { temperature: 0, maxTokens: 1, ignoreEos: true };
    const request = {
      id: `probe-${this.probes++}`,
      prompt,
      params,
      skipPrefixCache: true,
      ...(signal ? { signal } : {}),
    };
    let tokens = 0;
    for await (const delta of this.generate(request)) tokens += delta.tokenIds.length;
    if (tokens !== 1) throw new TokenmillError('overloaded', 'The probe got no token.', { param: 'probe' });
  }

  resetPrefixCache(): Promise<boolean> {
    return this.parts.client.resetPrefixCache();
  }

  close(): Promise<void> {
    return this.parts.client.close();
  }

  private encode({ prompt, addSpecialTokens }: GenerationRequest): Int32Array {
    if (typeof prompt !== 'string') return this.checkIds(prompt);
    const { maxModelLen } = this.plan;
    // Before tokenizing: a text longer than the context's longest tokens cannot fit, and tokenizing it would take seconds.
    const characters = prompt.length;
    if (characters > maxModelLen * 4 && characters > maxModelLen * this.longestToken()) {
      throw promptTooLong(Math.ceil(characters / this.longestToken()), maxModelLen, false);
    }
    return this.tokenizer.encode(prompt, { addSpecialTokens: addSpecialTokens ?? true });
  }

  private checkIds(ids: Int32Array): Int32Array {
    const { vocabSize, maxModelLen } = this.plan;
    if (ids.length >= maxModelLen) throw promptTooLong(ids.length, maxModelLen);
    const stranger = ids.find((id) => id < 0 || id >= vocabSize);
    if (stranger === undefined) return ids;
    throw new TokenmillError('invalid_request', `Token id ${stranger} is out of vocabulary (0 to ${vocabSize - 1}).`, {
      param: 'prompt',
    });
  }

  private longestToken(): number {
    if (this.longestTokenBytes > 0) return this.longestTokenBytes;
    for (let id = 0; id < this.tokenizer.vocabSize; id++) {
      this.longestTokenBytes = Math.max(this.longestTokenBytes, this.tokenizer.tokenBytes(id).length);
    }
    return this.longestTokenBytes;
  }

  private validate(params: SamplingParams, promptLength: number): ValidSampling {
    const { vocabSize, maxModelLen, maxLogprobs, config } = this.plan;
    const { tokenizer, eosTokenId, extraEosTokenIds, drawSeed } = this.parts;
    return validateSampling(params, {
      vocabSize,
      maxModelLen,
      maxLogprobs,
      logprobsMode: config.logprobsMode,
      promptLength,
      eosTokenId,
      extraEosTokenIds,
      tokenizer,
      drawSeed,
    });
  }

  /** Throws `queue_full` or `overloaded`; otherwise counts the request in until `release`. */
  private admit(request: GenerationRequest, promptTokenIds: Int32Array, sampling: ValidSampling): Flight {
    const { maxNumQueuedReqs, maxNumQueuedTokens, streamInterval } = this.plan.config;
    const health = this.health();
    if (!health.healthy) throw new TokenmillError('engine_dead', health.reason ?? 'The engine is not healthy.');
    const n = sampling.engine.length;
    const tokens = n * promptTokenIds.length;
    if (n > maxNumQueuedReqs) {
      throw new TokenmillError(
        'invalid_request',
        `n=${n} is more than the ${maxNumQueuedReqs} requests that may be in flight.`,
        {
          param: 'n',
          remedy: 'Ask for fewer choices or raise --max-num-queued-reqs.',
        },
      );
    }
    if (this.sequences + n > maxNumQueuedReqs) {
      throw new TokenmillError(
        'queue_full',
        `${this.sequences} requests are in flight; the limit is ${maxNumQueuedReqs}.`,
        {
          param: 'max_num_queued_reqs',
          remedy: 'Retry later.',
          retryAfterS: RETRY_AFTER_S,
        },
      );
    }
    if (maxNumQueuedTokens !== null && this.queuedTokens > 0 && this.queuedTokens + tokens > maxNumQueuedTokens) {
      throw new TokenmillError(
        'overloaded',
        `${this.queuedTokens} prompt tokens are waiting; the limit is ${maxNumQueuedTokens}.`,
        {
          param: 'max_num_queued_tokens',
          remedy: 'Retry later.',
          retryAfterS: RETRY_AFTER_S,
        },
      );
    }
    this.sequences += n;
    this.queuedTokens += tokens;
    const choices = sampling.engine.map(
      (_, index) =>
        new Choice({ index, tokenizer: this.tokenizer, promptTokenIds, text: sampling.text, streamInterval }),
    );
    return new Flight(request.id, choices, {
      stop: (id) => this.parts.client.abort([id]),
      firstToken: () => {
        this.queuedTokens -= promptTokenIds.length;
      },
      finished: () => {
        this.sequences--;
      },
    });
  }
}

interface FlightEvents {
  /** A stop string ended the choice: the engine need not go on. */
  readonly stop: (id: string) => void;
  /** Called once a choice: its prompt is computed, or never will be. */
  readonly firstToken: () => void;
  readonly finished: () => void;
}

/** A request between admission and its end. */
class Flight {
  readonly queue = new DeltaQueue<GenerationDelta>();
  private readonly choices = new Map<string, Choice>();
  private readonly waiting = new Set<string>();
  private readonly unfinished = new Set<string>();
  private readonly events: FlightEvents;

  constructor(id: string, choices: readonly Choice[], events: FlightEvents) {
    this.events = events;
    choices.forEach((choice, index) => {
      this.choices.set(childId(id, index, choices.length), choice);
    });
    for (const child of this.choices.keys()) {
      this.waiting.add(child);
      this.unfinished.add(child);
    }
  }

  onOutput(output: RequestOutput): void {
    const choice = this.choices.get(output.id);
    if (choice === undefined || !this.unfinished.has(output.id)) return;
    this.leaveQueue(output.id);
    let delta: GenerationDelta | null;
    try {
      if (output.error !== null) throw deserializeError(output.error);
      delta = choice.push(output);
    } catch (error) {
      if (output.finishReason === null) this.events.stop(output.id);
      this.finish(output.id);
      this.queue.fail(error);
      return;
    }
    if (choice.finishReason !== null) {
      if (output.finishReason === null) this.events.stop(output.id);
      this.finish(output.id);
    }
    if (delta !== null) this.queue.push(delta);
    if (this.unfinished.size === 0) this.queue.close();
  }

  unfinishedIds(): string[] {
    return [...this.unfinished];
  }

  /** Counts out what did not finish. */
  release(): void {
    for (const id of this.unfinishedIds()) {
      this.leaveQueue(id);
      this.finish(id);
    }
  }

  private leaveQueue(id: string): void {
    if (this.waiting.delete(id)) this.events.firstToken();
  }

  private finish(id: string): void {
    if (this.unfinished.delete(id)) this.events.finished();
  }
}

function childId(id: string, index: number, n: number): string {
  return n === 1 ? id : `${id}#${index}`;
}

function engineRequests(
  request: GenerationRequest,
  promptTokenIds: Int32Array,
  sampling: ValidSampling,
  arrivalMs: number,
): EngineRequest[] {
  return sampling.engine.map((engine, index) => ({
    id: childId(request.id, index, sampling.engine.length),
    promptTokenIds,
    sampling: engine,
    priority: request.priority ?? 0,
    cacheSalt: request.cacheSalt ?? null,
    arrivalMs,
    // Logits of cached prompt tokens are not computed, so their logprobs would be missing.
    skipPrefixCache: (request.skipPrefixCache ?? false) || engine.promptLogprobs !== null,
  }));
}
