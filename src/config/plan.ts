/** What was worked out from flags, model and machine: frozen, logged at start, served at `/plan`; each value with its reason. */
import type { KvDType } from '../base/kv_dtypes.ts';
import type { Quantization } from '../base/quantization.ts';
import type { EngineConfig } from './flags.ts';
import type { Place } from './topology.ts';

export interface EnginePlan {
  readonly config: EngineConfig;
  readonly modelPath: string;
  /** First is reported and is the metric label. */
  readonly servedModelNames: readonly string[];
  readonly architecture: string;
  readonly vocabSize: number;
  readonly backend: 'cpu' | 'reference';
  readonly isa: string;
  readonly threads: number;
  /** Where each of them runs; empty with the reference backend. */
  readonly threadPlaces: readonly Place[];
  readonly weightDType: 'float32' | 'bfloat16' | 'float16';
  readonly quantization: Quantization;
  readonly kvDType: KvDType;
  /** Folder in which packed weights are kept; null = they are not. */
  readonly packedCache: string | null;
  readonly blockSize: number;
  readonly numBlocks: number;
  readonly maxModelLen: number;
  readonly maxNumSeqs: number;
  readonly maxNumBatchedTokens: number;
  readonly enablePrefixCaching: boolean;
  readonly enableChunkedPrefill: boolean;
  readonly schedulingPolicy: 'fcfs' | 'priority';
  readonly longPrefillTokenThreshold: number;
  /** Longest wished for a step with prefill while others decode, ms; 0 = no limit. */
  readonly targetItlMs: number;
  /** Share of blocks kept free when admitting. */
  readonly watermark: number;
  readonly maxLogprobs: number;
  /** Bytes, computed from shapes before anything is loaded. */
  readonly memory: {
    readonly weightBytes: number;
    readonly kvBytes: number;
    readonly scratchBytes: number;
    readonly availableBytes: number;
  };
  /** Why each value is what it is, by key of this object. */
  readonly reasons: Readonly<Record<string, string>>;
}

/** Logit rows of one step beyond one per sequence, for prompt_logprobs. */
const PROMPT_LOGPROB_ROWS = 64;

/**
 * Most logit rows one step computes: one for each sequence plus a share for prompt_logprobs, which the scheduler chunks
 * to fit. The logits buffer is this times the vocabulary times 4 bytes.
 */
export function maxLogitRows(plan: { readonly maxNumSeqs: number; readonly maxNumBatchedTokens: number }): number {
  return Math.min(plan.maxNumSeqs + PROMPT_LOGPROB_ROWS, Math.max(plan.maxNumSeqs, plan.maxNumBatchedTokens));
}
