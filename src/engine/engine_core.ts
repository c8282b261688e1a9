/**
 * The engine: drain the inbox (`apply`), schedule, submit, collect, update, publish. Synchronous, without a clock, a timer
 * or text of its own; what it is given decides what it does.
 */
import type { Clock } from '../base/clock.ts';
import { type ErrorCode, type SerializedError, serializeError, TokenmillError } from '../base/errors.ts';
import { NO_SPANS, type Spans } from '../base/spans.ts';
import type { Executor, ExecutorOutput } from './executor.ts';
import { maxSequenceTokens, type Schedule, Scheduler, type SchedulerConfig } from './scheduler.ts';
import { Sequence } from './sequence.ts';
import type { StepWork } from './step_cost.ts';
import { checkStop } from './stop.ts';
import { TokenBudget, type TokenBudgetConfig, type Upcoming } from './token_budget.ts';
import type {
  EngineCommand,
  EngineRequest,
  EngineStats,
  FinishReason,
  PrefixCacheReset,
  RequestOutput,
  StepOutputs,
  TokenLogprobs,
} from './types.ts';

export interface EngineCoreConfig extends SchedulerConfig, TokenBudgetConfig {
  readonly vocabSize: number;
}

const NOT_STARTED = { scheduledMs: 0, firstTokenMs: 0, lastTokenMs: 0, preemptions: 0 } as const;

export class EngineCore {
  /** To look at, for tests and the simulator. */
  readonly scheduler: Scheduler;
  private readonly config: EngineCoreConfig;
  private readonly executor: Executor;
  private readonly clock: Clock;
  private readonly spans: Spans;
  private readonly maxTokens: number;
  private readonly budget: TokenBudget;
  private readonly sequences = new Map<string, Sequence>();
  private arrivals = 0;
  /** Answers that need no model: refusals, aborts, cache resets. The next step publishes them. */
  private outputs: RequestOutput[] = [];
  private resets: PrefixCacheReset[] = [];

  constructor(config: EngineCoreConfig, executor: Executor, clock: Clock, spans: Spans = NO_SPANS) {
    this.config = config;
    this.executor = executor;
    this.clock = clock;
    this.spans = spans;
    this.scheduler = new Scheduler(config);
    this.maxTokens = maxSequenceTokens(config);
    this.budget = new TokenBudget(config);
  }

  /** Takes one command; what it answers comes with the next step. False = shut down: nothing may be applied any more. */
  apply(command: EngineCommand): boolean {
    switch (command.kind) {
      case 'add':
        for (const request of command.requests) this.add(request);
        return true;
      case 'abort':
        for (const id of command.ids) this.abort(id);
        return true;
      case 'reset_prefix_cache':
        this.resets.push({ token: command.token, ok: this.scheduler.blocks.reset() });
        return true;
      case 'shutdown':
        this.abortAll();
        return false;
    }
  }

  /** Whether `step` has something to compute or to publish. */
  hasWork(): boolean {
    return this.scheduler.hasWork || this.outputs.length > 0 || this.resets.length > 0;
  }

  /** One turn of the loop. An AssertionError from here means the engine is broken and must end. */
  step(): StepOutputs {
    const { spans } = this;
    const startMs = this.clock.now();
    spans.begin('step');
    spans.begin('schedule');
    const tokenBudget = this.budget.next(upcoming(this.scheduler.running));
    const schedule = this.scheduler.schedule(tokenBudget);
    spans.end();
    let promptTokens = 0;
    let generatedTokens = 0;
    let stepMs = 0;
    if (schedule.sequences.length > 0) {
      for (const sequence of schedule.admitted) if (sequence.scheduledMs === 0) sequence.scheduledMs = startMs;
      this.executor.submit(schedule);
      const result = this.executor.collect();
      const endMs = this.clock.now();
      spans.begin('update');
      promptTokens = countPromptTokens(schedule);
      this.budget.observe(countWork(schedule), endMs - startMs);
      generatedTokens = this.update(schedule, result, endMs);
      spans.end();
      stepMs = endMs - startMs;
    }
    spans.end({ sequences: schedule.sequences.length, promptTokens, generatedTokens });
    const { running, waiting, blocks } = this.scheduler;
    const stats: EngineStats = {
      numRunning: running.length,
      numWaiting: waiting.size,
      kvUsage: blocks.usage,
      prefixQueries: schedule.prefixQueries,
      prefixHits: schedule.prefixHits,
      preemptions: schedule.preempted.length,
      promptTokens,
      generatedTokens,
      tokenBudget,
      stepMs,
    };
    const { outputs, resets } = this;
    this.outputs = [];
    this.resets = [];
    return { outputs, prefixCacheResets: resets, stats };
  }

  /** Checks the block manager's invariants; throws AssertionError. For tests and the simulator. */
  check(): void {
    this.scheduler.blocks.check(this.sequences.values());
  }

  private add(request: EngineRequest): void {
    const refusal = this.refusal(request);
    if (refusal !== null) {
      this.outputs.push(lastWords(request.id, 'error', serializeError(refusal), null));
      return;
    }
    const sequence = new Sequence(request, this.arrivals++);
    this.sequences.set(request.id, sequence);
    this.scheduler.add(sequence);
  }

  /** Why this request can never run; null when it can. */
  private refusal(request: EngineRequest): TokenmillError | null {
    const { vocabSize, maxModelLen, numBlocks, blockSize, maxNumBatchedTokens } = this.config;
    const tokens = request.promptTokenIds.length;
    const refuse = (code: ErrorCode, message: string, remedy?: string): TokenmillError =>
      new TokenmillError(code, message, remedy === undefined ? {} : { remedy });
    if (this.sequences.has(request.id))
      return refuse('invalid_request', `A request with id ${request.id} is in flight.`);
    if (tokens === 0) return refuse('invalid_request', 'The prompt is empty.');
    const stranger = request.promptTokenIds.find((id) => id < 0 || id >= vocabSize);
    if (stranger !== undefined) {
      return refuse('invalid_request', `Token id ${stranger} is out of vocabulary (0 to ${vocabSize - 1}).`);
    }
    if (tokens >= maxModelLen) {
      return refuse(
        'context_length_exceeded',
        `The prompt has ${tokens} tokens; the model's context of ${maxModelLen} leaves no room for an answer.`,
        'Shorten the prompt.',
      );
    }
    if (tokens > numBlocks * blockSize) {
      return refuse(
        'out_of_memory',
        `The prompt has ${tokens} tokens; the whole KV cache holds ${numBlocks * blockSize}.`,
        'Raise --gpu-memory-utilization or --kv-cache-memory-bytes, or shorten the prompt.',
      );
    }
    if (tokens > this.maxTokens) {
      return refuse(
        'invalid_request',
        `The prompt has ${tokens} tokens; without chunked prefill a step takes ${maxNumBatchedTokens}.`,
        'Raise --max-num-batched-tokens or turn chunked prefill on.',
      );
    }
    return null;
  }

  private abort(id: string): void {
    const sequence = this.sequences.get(id);
    if (sequence === undefined) return;
    this.scheduler.remove(sequence);
    this.sequences.delete(id);
    this.outputs.push(lastWords(id, 'abort', null, sequence));
  }

  private abortAll(): void {
    for (const id of [...this.sequences.keys()]) this.abort(id);
  }

  /** Writes the step's results into the sequences. Returns how many tokens were generated. */
  private update(schedule: Schedule, result: ExecutorOutput, nowMs: number): number {
    const { sequences, tokenCounts } = schedule;
    let generated = 0;
    for (let i = 0; i < sequences.length; i++) {
      const sequence = sequences[i] as Sequence;
      const before = sequence.tokensComputed;
      sequence.tokensComputed = before + (tokenCounts[i] as number);
      const error = result.errors[i] ?? null;
      if (error !== null) {
        // Its keys and values may be no numbers either: nobody else may find them.
        this.fail(sequence, error);
        continue;
      }
      this.scheduler.blocks.cacheFullBlocks(sequence, before);
      const promptLogprobs = result.promptLogprobs[i] ?? null;
      if (promptLogprobs !== null) sequence.promptLogprobs?.push(...promptLogprobs);
      const tokenId = result.tokenIds[i] as number;
      if (tokenId < 0) continue;
      generated++;
      this.advance(sequence, tokenId, result.logprobs[i] ?? null, nowMs);
    }
    this.scheduler.dropFinished();
    return generated;
  }

  /** One more token: append, stop or go on, tell the client. */
  private advance(sequence: Sequence, tokenId: number, logprobs: TokenLogprobs | null, nowMs: number): void {
    const first = sequence.outputLength === 0;
    sequence.append(tokenId);
    if (first) sequence.firstTokenMs = nowMs;
    sequence.lastTokenMs = nowMs;
    const stop = checkStop(sequence, this.maxTokens);
    this.outputs.push({
      id: sequence.id,
      newTokenIds: [tokenId],
      logprobs: logprobs === null ? null : [logprobs],
      promptLogprobs: first ? sequence.promptLogprobs : null,
      finishReason: stop === null ? null : stop.reason,
      stopTokenId: stop === null ? null : stop.stopTokenId,
      cachedTokens: sequence.cachedTokens,
      error: null,
      timing: timing(sequence),
    });
    if (stop !== null) this.end(sequence);
  }

  private fail(sequence: Sequence, error: SerializedError): void {
    this.outputs.push(lastWords(sequence.id, 'error', error, sequence));
    this.end(sequence);
  }

  private end(sequence: Sequence): void {
    this.scheduler.release(sequence);
    this.sequences.delete(sequence.id);
  }
}

/** The last output of a request that gets no token with it; `sequence` is null when it never became one. */
function lastWords(
  id: string,
  finishReason: FinishReason,
  error: SerializedError | null,
  sequence: Sequence | null,
): RequestOutput {
  return {
    id,
    newTokenIds: [],
    logprobs: null,
    promptLogprobs: null,
    finishReason,
    stopTokenId: null,
    cachedTokens: sequence?.cachedTokens ?? 0,
    error,
    timing: sequence === null ? NOT_STARTED : timing(sequence),
  };
}

function timing(sequence: Sequence): RequestOutput['timing'] {
  const { scheduledMs, firstTokenMs, lastTokenMs, preemptions } = sequence;
  return { scheduledMs, firstTokenMs, lastTokenMs, preemptions };
}

function countPromptTokens(schedule: Schedule): number {
  let count = 0;
  for (let i = 0; i < schedule.sequences.length; i++) {
    const { tokensComputed, promptLength } = schedule.sequences[i] as Sequence;
    const end = Math.min(tokensComputed + (schedule.tokenCounts[i] as number), promptLength);
    count += Math.max(0, end - tokensComputed);
  }
  return count;
}

function upcoming(running: readonly Sequence[]): Upcoming {
  let decodeRows = 0;
  let decodeAttended = 0;
  let prefillStart = 0;
  for (const { tokensKnown, tokensComputed } of running) {
    if (tokensKnown - tokensComputed > 1) prefillStart = Math.max(prefillStart, tokensComputed);
    else {
      decodeRows++;
      decodeAttended += tokensKnown;
    }
  }
  return { decodeRows, decodeAttended, prefillStart };
}

/** Of a step whose results are not yet written into its sequences. */
function countWork({ sequences, tokenCounts }: Schedule): StepWork {
  let decodeRows = 0;
  let prefillTokens = 0;
  let attended = 0;
  for (let i = 0; i < sequences.length; i++) {
    const count = tokenCounts[i] as number;
    const { tokensComputed } = sequences[i] as Sequence;
    if (count === 1) decodeRows++;
    else prefillTokens += count;
    attended += count * (tokensComputed + (count + 1) / 2);
  }
  return { decodeRows, prefillTokens, attended };
}
