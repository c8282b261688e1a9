/**
 * A model that fits on a page, for engine tests. Its "KV cache" holds one number a slot: a hash of the token there and of
 * the number before it, read through the block table. The next token is a hash of all numbers of the context. So a wrong
 * block, a stale prefix hit or a token computed twice or never changes what is generated.
 */
import { assert } from '../../base/assert.ts';
import type { Clock } from '../../base/clock.ts';
import type { SerializedError } from '../../base/errors.ts';
import type { Executor, ExecutorOutput, ScheduledSequence, SchedulerOutput } from '../executor.ts';
import { type EngineRequest, type EngineSampling, GREEDY_SAMPLING, type TokenLogprobs } from '../types.ts';

export const FAKE_VOCAB = 1000;

function mix(a: number, b: number): number {
  let z = Math.imul(a ^ 0x9e3779b9, 0x85ebca6b) ^ Math.imul(b + 0x7f4a7c15, 0xc2b2ae35);
  z = Math.imul(z ^ (z >>> 15), 0x27d4eb2f);
  return (z ^ (z >>> 13)) | 0;
}

export class FakeExecutor implements Executor {
  readonly kv: Int32Array;
  readonly steps: { readonly id: string; readonly start: number; readonly count: number }[][] = [];
  /** Requests whose next row is "not a number". */
  readonly poisoned = new Set<string>();
  private readonly blockSize: number;
  private step: SchedulerOutput | null = null;

  constructor(numBlocks: number, blockSize: number) {
    this.kv = new Int32Array(numBlocks * blockSize);
    this.blockSize = blockSize;
  }

  submit(step: SchedulerOutput): void {
    this.step = step;
  }

  collect(): ExecutorOutput {
    const { sequences, tokenCounts } = this.step as SchedulerOutput;
    this.steps.push(
      sequences.map((s, i) => ({ id: idOf(s), start: s.tokensComputed, count: tokenCounts[i] as number })),
    );
    const tokenIds = new Int32Array(sequences.length).fill(-1);
    const promptLogprobs: (TokenLogprobs[] | null)[] = [];
    const errors: (SerializedError | null)[] = [];
    for (const [i, sequence] of sequences.entries()) {
      const end = sequence.tokensComputed + (tokenCounts[i] as number);
      assert(end > sequence.tokensComputed && end <= sequence.tokens.length, 'a step computes what is known and is not');
      for (let p = sequence.tokensComputed; p < end; p++) this.write(sequence, p);
      const due = end === sequence.tokens.length;
      promptLogprobs.push(this.promptRows(sequence, end));
      const failed = due && this.poisoned.has(idOf(sequence));
      errors.push(failed ? { code: 'internal', message: 'not numbers', param: null } : null);
      if (due && !failed) tokenIds[i] = this.next(sequence, end);
    }
    return { tokenIds, logprobs: sequences.map(() => null), promptLogprobs, errors };
  }

  close(): void {}

  private slot(sequence: ScheduledSequence, position: number): number {
    const block = sequence.blocks.data[Math.floor(position / this.blockSize)] as number;
    return block * this.blockSize + (position % this.blockSize);
  }

  private write(sequence: ScheduledSequence, position: number): void {
    const before = position === 0 ? 1 : (this.kv[this.slot(sequence, position - 1)] as number);
    this.kv[this.slot(sequence, position)] = mix(before, sequence.tokens.data[position] as number);
  }

  private next(sequence: ScheduledSequence, end: number): number {
    let hash = 7;
    for (let p = 0; p < end; p++) hash = mix(hash, this.kv[this.slot(sequence, p)] as number);
    return (hash >>> 0) % FAKE_VOCAB;
  }

  private promptRows(sequence: ScheduledSequence, end: number): TokenLogprobs[] | null {
    const list: TokenLogprobs[] = [];
    const last = Math.min(end, sequence.promptLength - 1);
    for (let p = Math.max(sequence.tokensComputed, sequence.promptRowsFrom); p < last; p++) {
      const id = sequence.tokens.data[p + 1] as number;
      list.push({ tokenIds: [id], logprobs: [-this.next(sequence, p + 1)], ranks: [1] });
    }
    return list.length > 0 ? list : null;
  }
}

/** Milliseconds of a step: per step, per sequence that computes one token, per other token, per position attended to. */
export interface FakeCosts {
  readonly step: number;
  readonly row: number;
  readonly token: number;
  readonly position: number;
}

/** Its steps take virtual time. */
export class TimedExecutor extends FakeExecutor {
  readonly clock: Clock = { now: () => this.ms };
  costs: FakeCosts = { step: 1, row: 0, token: 0, position: 0 };
  private ms = 0;

  override collect(): ExecutorOutput {
    const output = super.collect();
    const { step, row, token, position } = this.costs;
    this.ms += step;
    for (const { start, count } of this.steps.at(-1) ?? []) {
      this.ms += (count === 1 ? row : token * count) + position * count * (start + (count + 1) / 2);
    }
    return output;
  }
}

function idOf(sequence: ScheduledSequence): string {
  return (sequence as ScheduledSequence & { readonly id: string }).id;
}

/** What a request alone must get: the definition, without blocks. */
export function expectedTokens(prompt: ArrayLike<number>, count: number): number[] {
  const tokens = Array.from(prompt);
  const kv: number[] = [];
  const result: number[] = [];
  while (result.length < count) {
    for (let p = kv.length; p < tokens.length; p++) kv.push(mix(kv[p - 1] ?? 1, tokens[p] as number));
    const next = (kv.reduce(mix, 7) >>> 0) % FAKE_VOCAB;
    result.push(next);
    tokens.push(next);
  }
  return result;
}

/** Virtual time: a millisecond a look. */
export function testClock(): Clock {
  let ms = 0;
  return { now: () => ++ms };
}

export const GREEDY: EngineSampling = { ...GREEDY_SAMPLING, maxTokens: 8 };

export function makeRequest(
  id: string,
  promptTokenIds: Int32Array,
  sampling: Partial<EngineSampling> = {},
  rest: Partial<EngineRequest> = {},
): EngineRequest {
  return {
    id,
    promptTokenIds,
    sampling: { ...GREEDY, ...sampling },
    priority: 0,
    cacheSalt: null,
    arrivalMs: 0,
    skipPrefixCache: false,
    ...rest,
  };
}

/** `length` token ids that differ by `salt`. */
export function makePrompt(salt: number, length: number): Int32Array {
  return Int32Array.from({ length }, (_, i) => (mix(salt, i) >>> 0) % FAKE_VOCAB);
}
