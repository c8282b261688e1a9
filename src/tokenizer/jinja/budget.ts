import { JinjaError } from './errors.ts';

export interface TemplateLimits {
  /** Nodes evaluated, loop turns taken and characters moved (64 of them are one step). */
  readonly maxSteps: number;
  /** UTF-16 units of any one string, the output included. */
  readonly maxChars: number;
  /** Nested macro calls and recursive loops. */
  readonly maxDepth: number;
}

/** A conversation of 10,000 messages stays below a tenth of this in the templates of the field. */
export const DEFAULT_LIMITS: TemplateLimits = { maxSteps: 10_000_000, maxChars: 32 * 1024 * 1024, maxDepth: 100 };

/** What one rendering may still use. Every loop and every growing value of the interpreter draws on it. */
export class Budget {
  private steps: number;
  private depth = 0;
  private readonly limits: TemplateLimits;

  constructor(limits: TemplateLimits) {
    this.limits = limits;
    this.steps = limits.maxSteps;
  }

  spend(steps: number): void {
    this.steps -= steps;
    if (this.steps < 0) {
      throw new JinjaError('LimitError', `the template takes more than ${this.limits.maxSteps} steps`);
    }
  }

  /** Call before making a string of `length` units, so that nothing large is allocated first. */
  spendChars(length: number): void {
    this.checkLength(length);
    this.spend(1 + (length >> 6));
  }

  checkLength(length: number): void {
    if (length > this.limits.maxChars) {
      throw new JinjaError('LimitError', `the template makes more than ${this.limits.maxChars} characters`);
    }
  }

  nested<T>(run: () => T): T {
    if (++this.depth > this.limits.maxDepth) {
      throw new JinjaError('LimitError', `the template nests calls deeper than ${this.limits.maxDepth}`);
    }
    try {
      return run();
    } finally {
      this.depth--;
    }
  }
}
