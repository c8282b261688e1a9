/** What `resolve()` needs to know of the model and of the machine. Measured at the edges, passed in, never read here. */
import type { LogicalCpu } from './topology.ts';

export type WeightElementType = 'float32' | 'bfloat16' | 'float16';

/** A checkpoint as its headers and config.json describe it, before a byte of weights is read. */
export interface ModelFacts {
  /** Folder that holds config.json. */
  readonly modelPath: string;
  /** First entry of `architectures`. */
  readonly architecture: string;
  readonly vocabSize: number;
  /** Longest context the checkpoint is made for, rope scaling included. */
  readonly maxPositionEmbeddings: number;
  /** Element type of most weight bytes. */
  readonly checkpointDType: WeightElementType;
  /** Elements of linear weights (lm_head included): what `dtype` and `quantization` decide the size of. */
  readonly linearElements: number;
  /** Output rows of all linear weights: int8 keeps one fp32 scale a row. */
  readonly linearRows: number;
  /** The part of both that projects to logits. */
  readonly logitsElements: number;
  readonly logitsRows: number;
  /** Elements of embedding tables that are not also a linear weight. Kept at checkpoint precision. */
  readonly embeddingElements: number;
  /** Elements of norms, biases and rope tables, kept as fp32. */
  readonly vectorElements: number;
  readonly kv: { readonly layers: number; readonly kvHeads: number; readonly headDim: number };
  /** Largest number of fp32 elements alive at once per token of a step (temporaries without the logits). */
  readonly scratchElementsPerToken: number;
}

/** The machine as this process may use it: cgroup limits and CPU affinity already applied. */
export interface MachineFacts {
  /** Physical memory or the cgroup's limit, whichever is smaller; bytes. */
  readonly totalMemoryBytes: number;
  /** What can be taken now without swapping; bytes. */
  readonly availableMemoryBytes: number;
  /** CPUs this process may run on; never empty. */
  readonly cpus: readonly LogicalCpu[];
  /** CPUs' worth of time the cgroup grants; null = no quota. */
  readonly cpuQuota: number | null;
  /** Where files may be kept that can be made again. */
  readonly cacheFolder: string;
  /** ISA levels of the cpu backend on this machine, best first; empty when it can run none. */
  readonly isaLevels: readonly string[];
}
