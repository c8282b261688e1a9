/** The `usage` object of answers and chunks. */
export interface Usage {
  prompt_tokens: number;
  total_tokens: number;
  completion_tokens: number;
  prompt_tokens_details: { cached_tokens: number } | null;
  completion_tokens_details: null;
}

export interface Counts {
  readonly promptTokens: number;
  readonly completionTokens: number;
  readonly cachedTokens: number;
}

export function usage(counts: Counts, withDetails: boolean): Usage {
  return {
    prompt_tokens: counts.promptTokens,
    total_tokens: counts.promptTokens + counts.completionTokens,
    completion_tokens: counts.completionTokens,
    prompt_tokens_details: withDetails ? { cached_tokens: counts.cachedTokens } : null,
    completion_tokens_details: null,
  };
}

/** The form of stream chunks, where null details are left out. */
export function chunkUsage(counts: Counts, withDetails: boolean): Partial<Usage> {
  const { prompt_tokens, total_tokens, completion_tokens, prompt_tokens_details } = usage(counts, withDetails);
  const short = { prompt_tokens, total_tokens, completion_tokens };
  return prompt_tokens_details ? { ...short, prompt_tokens_details } : short;
}

/** Sums what a request's deltas say: prompts once each, generated tokens of every choice. */
export class UsageCounter implements Counts {
  private readonly prompts: (readonly [length: number, cached: number] | undefined)[];
  private readonly generated: number[];
  completionTokens = 0;

  constructor(numPrompts: number, n: number) {
    this.prompts = new Array(numPrompts).fill(undefined);
    this.generated = new Array(numPrompts * n).fill(0);
  }

  add(
    prompt: number,
    choice: number,
    delta: {
      readonly promptTokenIds: { length: number };
      readonly cachedTokens: number;
      readonly tokenIds: { length: number };
    },
  ): void {
    this.prompts[prompt] ??= [delta.promptTokenIds.length, delta.cachedTokens];
    this.generated[choice] = (this.generated[choice] ?? 0) + delta.tokenIds.length;
    this.completionTokens += delta.tokenIds.length;
  }

  get promptTokens(): number {
    return this.prompts.reduce((sum, prompt) => sum + (prompt?.[0] ?? 0), 0);
  }

  get cachedTokens(): number {
    return this.prompts.reduce((sum, prompt) => sum + (prompt?.[1] ?? 0), 0);
  }

  /** Counts of one choice so far, for continuous_usage_stats. */
  of(prompt: number, choice: number): Counts {
    const [promptTokens, cachedTokens] = this.prompts[prompt] ?? [0, 0];
    return { promptTokens, cachedTokens, completionTokens: this.generated[choice] ?? 0 };
  }
}
