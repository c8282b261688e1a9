import { GrowableInt32 } from '../base/growable.ts';
import type { ScheduledSequence } from './executor.ts';
import { TokenHistory } from './token_history.ts';
import type { EngineRequest, EngineSampling, TokenLogprobs } from './types.ts';

export type SequenceStatus = 'waiting' | 'running' | 'preempted' | 'finished';

/**
 * One request in the engine: tokens known and tokens computed, and the KV blocks that hold the computed ones. The scheduler
 * owns `status` and `tokensComputed`, the block manager `blocks` and `blockHashes`.
 */
export class Sequence implements ScheduledSequence {
  readonly request: EngineRequest;
  readonly sampling: EngineSampling;
  /** Order of arrival; breaks every tie. */
  readonly number: number;
  readonly promptLength: number;
  readonly tokens: GrowableInt32;
  status: SequenceStatus = 'waiting';
  /** <= tokens.length; 0 while waiting. */
  tokensComputed = 0;
  /** Position i of the sequence lives in block `blocks[floor(i / blockSize)]`. */
  readonly blocks = new GrowableInt32(8);
  /** Hash chain over full blocks of known tokens, extended when needed; never shrinks, since known tokens never change. */
  readonly blockHashes: string[] = [];
  readonly history: TokenHistory | null;
  /** Entry i belongs to prompt token i; the first is null. Null when not asked for. */
  readonly promptLogprobs: (TokenLogprobs | null)[] | null;
  /** Prompt tokens found in the prefix cache when first scheduled. */
  cachedTokens = 0;
  preemptions = 0;
  scheduledMs = 0;
  firstTokenMs = 0;
  lastTokenMs = 0;
  /** Place in the waiting heap; -1 when not in it. */
  heapIndex = -1;

  constructor(request: EngineRequest, number: number) {
    const { sampling, promptTokenIds } = request;
    this.request = request;
    this.sampling = sampling;
    this.number = number;
    this.promptLength = promptTokenIds.length;
    this.tokens = GrowableInt32.from(promptTokenIds, Math.min(sampling.maxTokens, 256));
    const penalised =
      sampling.repetitionPenalty !== 1 || sampling.frequencyPenalty !== 0 || sampling.presencePenalty !== 0;
    this.history = penalised ? new TokenHistory(promptTokenIds) : null;
    this.promptLogprobs = sampling.promptLogprobs === null ? null : [null];
  }

  get id(): string {
    return this.request.id;
  }

  get tokensKnown(): number {
    return this.tokens.length;
  }

  get outputLength(): number {
    return this.tokens.length - this.promptLength;
  }

  get promptRowsFrom(): number {
    return this.promptLogprobs === null ? this.promptLength : this.promptLogprobs.length - 1;
  }

  /** Prompt logprobs need every prompt row computed, so such a sequence never takes blocks from the prefix cache. */
  get readsPrefixCache(): boolean {
    return this.promptLogprobs === null && !this.request.skipPrefixCache;
  }

  append(tokenId: number): void {
    this.tokens.push(tokenId);
    this.history?.addOutput(tokenId);
  }
}
