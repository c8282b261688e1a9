/** How many tokens the next step may compute: one number, so that whoever decodes meanwhile does not wait long for a token. */
import { StepCost, type StepWork } from './step_cost.ts';

export interface TokenBudgetConfig {
  /** Longest wished for a step that carries prefill while others decode, ms; 0 = no limit. */
  readonly targetItlMs: number;
  readonly maxNumBatchedTokens: number;
}

/** What is about to run. */
export interface Upcoming {
  /** Running sequences that lack one token. */
  readonly decodeRows: number;
  /** Positions that they attend to. */
  readonly decodeAttended: number;
  /** Tokens already computed of the prompt that goes on next; 0 for a fresh one. */
  readonly prefillStart: number;
}

/** Prefill tokens of a step when the target leaves no room: prompts always advance, and fewer would hardly be faster. */
export const MIN_PREFILL_TOKENS = 32;
/** Steps vary; aiming at the target itself would miss it every second time. */
const AIM = 0.9;

export class TokenBudget {
  private readonly config: TokenBudgetConfig;
  private readonly cost = new StepCost();

  constructor(config: TokenBudgetConfig) {
    this.config = config;
  }

  /** Tokens of the next step, decode rows included; between 1 and maxNumBatchedTokens. */
  next({ decodeRows, decodeAttended, prefillStart }: Upcoming): number {
    const { targetItlMs, maxNumBatchedTokens } = this.config;
    if (targetItlMs === 0 || decodeRows === 0 || !this.cost.isKnown) return maxNumBatchedTokens;
    const decodeMs = this.cost.predict({ decodeRows, prefillTokens: 0, attended: decodeAttended });
    const tokens = Math.floor(this.cost.tokensIn(AIM * targetItlMs - decodeMs, prefillStart));
    return Math.min(maxNumBatchedTokens, decodeRows + Math.max(MIN_PREFILL_TOKENS, tokens));
  }

  /** Learns from a step that took `ms`. */
  observe(work: StepWork, ms: number): void {
    if (this.config.targetItlMs > 0) this.cost.observe(work, ms);
  }
}
