/**
 * Random schedules for promise P1: many requests through one engine with a random configuration, and what each of them got.
 * Whoever calls compares that with the same request run alone. All of it follows from one seed.
 */
import type { Clock } from '../base/clock.ts';
import { Rng } from '../base/rng.ts';
import { EngineCore, type EngineCoreConfig } from './engine_core.ts';
import type { Executor } from './executor.ts';
import type { EngineRequest, EngineSampling, FinishReason, TokenLogprobs } from './types.ts';

export interface SimulationLimits {
  readonly vocabSize: number;
  readonly maxModelLen: number;
  readonly blockSizes: readonly number[];
  /** Requests of one schedule, of which some are aborted midway. */
  readonly requests: number;
}

export interface Arrival {
  readonly request: EngineRequest;
  /** Steps after the start at which it is added. */
  readonly step: number;
  /** Steps after its arrival at which it is aborted; null = never. */
  readonly abortAfter: number | null;
}

export interface Simulation {
  readonly seed: number;
  readonly config: EngineCoreConfig;
  readonly arrivals: readonly Arrival[];
}

/** All that a request was told. */
export interface Transcript {
  readonly tokenIds: number[];
  readonly logprobs: TokenLogprobs[];
  promptLogprobs: readonly (TokenLogprobs | null)[] | null;
  finishReason: FinishReason | null;
}

export interface SimulationResult {
  readonly transcripts: ReadonlyMap<string, Transcript>;
  readonly steps: number;
  readonly preemptions: number;
  readonly prefixHits: number;
  /** Most sequences running at once. */
  readonly largestBatch: number;
}

/** Virtual time in which steps take anything from no time to long, so that a budget by time takes every value. */
function unsteadyClock(seed: number): Clock {
  const rng = new Rng(seed);
  let ms = 0;
  return {
    now: () => {
      ms += rng.next() < 0.1 ? 1000 * rng.next() : rng.int(0, 10);
      return ms;
    },
  };
}

export function randomSimulation(seed: number, limits: SimulationLimits): Simulation {
  const rng = new Rng(seed);
  const arrivals = Array.from({ length: limits.requests }, (_, i) => ({
    request: randomRequest(rng, `r${i}`, limits),
    step: rng.next() < 0.5 ? 0 : rng.int(0, 20),
    abortAfter: rng.next() < 0.15 ? rng.int(0, 12) : null,
  }));
  return { seed, config: randomConfig(rng, limits), arrivals };
}

/** Few enough blocks that sequences get in each other's way, enough for the longest alone. */
function randomConfig(rng: Rng, limits: SimulationLimits): EngineCoreConfig {
  const { maxModelLen, vocabSize } = limits;
  const blockSize = rng.pick(limits.blockSizes);
  const enableChunkedPrefill = rng.next() < 0.85;
  return {
    vocabSize,
    maxModelLen,
    blockSize,
    numBlocks: Math.ceil((maxModelLen * rng.pick([1, 1, 1.3, 3])) / blockSize),
    maxNumSeqs: rng.pick([1, 5, 8, 16, 16]),
    maxNumBatchedTokens: enableChunkedPrefill ? rng.pick([1, 7, 16, 33, 64, 200]) : maxModelLen,
    enablePrefixCaching: rng.next() < 0.75,
    enableChunkedPrefill,
    schedulingPolicy: rng.pick(['fcfs', 'priority'] as const),
    longPrefillTokenThreshold: rng.pick([0, 0, 0, 9]),
    targetItlMs: enableChunkedPrefill ? rng.pick([0, 10, 100]) : 0,
    watermark: rng.pick([0, 0, 0.1]),
  };
}

function randomRequest(rng: Rng, id: string, limits: SimulationLimits): EngineRequest {
  const length = rng.int(1, Math.floor(limits.maxModelLen * rng.pick([0.2, 0.3, 0.6])));
  const shared = rng.next() < 0.7 ? rng.int(Math.floor(length / 2), length) : 0;
  // Two prefixes that requests of every schedule start with.
  const common = new Rng(rng.int(1, 2));
  const promptTokenIds = Int32Array.from({ length }, (_, i) =>
    (i < shared ? common : rng).int(0, limits.vocabSize - 1),
  );
  return {
    id,
    promptTokenIds,
    sampling: randomSampling(rng, limits),
    priority: rng.int(-1, 1),
    cacheSalt: rng.next() < 0.1 ? 'salt' : null,
    arrivalMs: rng.int(0, 100),
    skipPrefixCache: rng.next() < 0.05,
  };
}

function randomSampling(rng: Rng, { vocabSize, maxModelLen }: SimulationLimits): EngineSampling {
  const id = (): number => rng.int(0, vocabSize - 1);
  const ids = (count: number): number[] => Array.from({ length: count }, id);
  const maybe = <T>(share: number, make: () => T, otherwise: T): T => (rng.next() < share ? make() : otherwise);
  return {
    temperature: rng.pick([0, 0, 0.7, 1, 1.6]),
    topK: maybe(0.3, () => rng.int(1, 40), 0),
    topP: maybe(0.3, () => 0.3 + 0.7 * rng.next(), 1),
    minP: maybe(0.2, () => 0.2 * rng.next(), 0),
    presencePenalty: maybe(0.2, () => rng.next() * 2 - 1, 0),
    frequencyPenalty: maybe(0.2, () => rng.next() * 2 - 1, 0),
    repetitionPenalty: maybe(0.3, () => 0.8 + rng.next(), 1),
    seed: BigInt(rng.int(0, 2 ** 31)),
    maxTokens: rng.int(1, Math.floor(maxModelLen * 0.4)),
    minTokens: maybe(0.2, () => rng.int(0, 6), 0),
    eosTokenIds: maybe(0.3, () => ids(8), []),
    stopTokenIds: maybe(0.2, () => ids(8), []),
    logitBias: maybe(0.2, () => new Map(ids(4).map((token) => [token, rng.next() * 8 - 4])), null),
    allowedTokenIds: maybe(0.1, () => ids(30), null),
    badWords: maybe(0.2, () => [ids(1), ids(2)], []),
    logprobs: maybe(0.7, () => rng.int(0, 5), null),
    promptLogprobs: maybe(0.1, () => rng.int(0, 2), null),
    logprobsMode: rng.pick([
      'raw_logprobs',
      'raw_logprobs',
      'processed_logprobs',
      'raw_logits',
      'processed_logits',
    ] as const),
  };
}

/**
 * Runs a schedule to its end. Checks after every step that no block is lost; throws AssertionError when one is.
 * The executor must have been made for `simulation.config`.
 */
export function simulate(simulation: Simulation, executor: Executor): SimulationResult {
  const core = new EngineCore(simulation.config, executor, unsteadyClock(simulation.seed));
  const transcripts = new Map<string, Transcript>();
  const totals = { steps: 0, preemptions: 0, prefixHits: 0, largestBatch: 0 };
  for (const { request } of simulation.arrivals) {
    transcripts.set(request.id, { tokenIds: [], logprobs: [], promptLogprobs: null, finishReason: null });
  }
  const last = Math.max(...simulation.arrivals.map((a) => a.step + (a.abortAfter ?? 0)));
  for (let step = 0; step <= last || core.hasWork(); step++) {
    for (const { request, step: at, abortAfter } of simulation.arrivals) {
      if (at === step) core.apply({ kind: 'add', requests: [request] });
      if (abortAfter !== null && at + abortAfter === step) core.apply({ kind: 'abort', ids: [request.id] });
    }
    if (!core.hasWork()) continue;
    const { outputs, stats } = core.step();
    core.check();
    totals.steps++;
    totals.preemptions += stats.preemptions;
    totals.prefixHits += stats.prefixHits;
    totals.largestBatch = Math.max(totals.largestBatch, stats.numRunning);
    for (const output of outputs) {
      const transcript = transcripts.get(output.id) as Transcript;
      transcript.tokenIds.push(...output.newTokenIds);
      transcript.logprobs.push(...(output.logprobs ?? []));
      transcript.promptLogprobs ??= output.promptLogprobs;
      transcript.finishReason = output.finishReason;
    }
  }
  return { transcripts, ...totals };
}

/** The schedule in which `request` is all there is: one prompt, one chunk, nothing cached, nothing short. */
export function aloneSimulation(request: EngineRequest, limits: SimulationLimits): Simulation {
  const { vocabSize, maxModelLen } = limits;
  return {
    seed: 0,
    config: {
      vocabSize,
      maxModelLen,
      blockSize: 16,
      numBlocks: Math.ceil(maxModelLen / 16),
      maxNumSeqs: 1,
      maxNumBatchedTokens: maxModelLen,
      enablePrefixCaching: false,
      enableChunkedPrefill: true,
      schedulingPolicy: 'fcfs',
      longPrefillTokenThreshold: 0,
      targetItlMs: 0,
      watermark: 0,
    },
    arrivals: [{ request, step: 0, abortAfter: null }],
  };
}

/**
 * Where what a request got in a schedule differs from what it got alone; null when nowhere. Numbers must be bit-equal. An
 * aborted one must have got the start of it.
 */
export function firstDifference(got: Transcript, alone: Transcript): string | null {
  const aborted = got.finishReason === 'abort';
  if (!aborted && got.finishReason !== alone.finishReason)
    return `ended ${got.finishReason}, alone ${alone.finishReason}`;
  if (!aborted && got.tokenIds.length !== alone.tokenIds.length) {
    return `${got.tokenIds.length} tokens, alone ${alone.tokenIds.length}`;
  }
  for (const [i, id] of got.tokenIds.entries()) {
    if (id !== alone.tokenIds[i]) return `token ${i} is ${id}, alone ${alone.tokenIds[i]}`;
    const difference = logprobDifference(got.logprobs[i] ?? null, alone.logprobs[i] ?? null);
    if (difference !== null) return `token ${i}: ${difference}`;
  }
  if (aborted && got.tokenIds.length === 0) return null;
  for (const [i, expected] of (alone.promptLogprobs ?? []).entries()) {
    const difference = logprobDifference(got.promptLogprobs?.[i] ?? null, expected);
    if (difference !== null) return `prompt token ${i}: ${difference}`;
  }
  return null;
}

function logprobDifference(got: TokenLogprobs | null, alone: TokenLogprobs | null): string | null {
  if (got === null || alone === null) return got === alone ? null : 'logprobs on one side only';
  for (const key of ['tokenIds', 'logprobs', 'ranks'] as const) {
    if (got[key].length !== alone[key].length) return `${got[key].length} ${key}, alone ${alone[key].length}`;
    for (const [i, value] of got[key].entries()) {
      if (!Object.is(value, alone[key][i])) return `${key}[${i}] is ${value}, alone ${alone[key][i]}`;
    }
  }
  return null;
}
