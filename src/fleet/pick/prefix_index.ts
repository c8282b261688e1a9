/** Hashes of the whole blocks of a prompt, two 32-bit lanes each: `[lo0, hi0, lo1, hi1 ...]`. Each covers all before it. */
export type PrefixHashes = Uint32Array;

export declare class PromptHasher {
  /** `seed`: secret of this gateway; `blockTokens` at least 64. */
  constructor(seed: bigint, blockTokens?: number);
  /** `salt`: what else must be the same (model, adapter, the request's cache salt). Prompts beyond 131,072 tokens are cut. */
  hash(salt: string, prompt: string | Uint8Array): PrefixHashes;
}

export declare class PrefixIndex {
  constructor(limits?: { readonly blocksPerEndpoint?: number; readonly maxBlocks?: number });
  /** Blocks from the start of the prompt that each endpoint should still have, into `into[i]` for `endpoints[i]`. */
  match(prefix: PrefixHashes, endpoints: readonly string[], into: Int32Array): void;
  /** The endpoint got this prompt. */
  record(endpoint: string, prefix: PrefixHashes): void;
  remove(endpoint: string): void;
}
