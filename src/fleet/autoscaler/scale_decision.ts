/** The one shape of all scaling rules: what they see and what they answer. `decideScale` (scaler.ts) picks the rule. */

export interface ScaleObserved {
  /** As asked for last, and as there are (asleep ones not counted). */
  readonly replicas: number;
  readonly readyReplicas: number;
  /** Value of each query of the rule, in its order; null = not known, which is never 0. */
  readonly values: readonly (number | null)[];
  /** Of the fleet's signals (signals.ts) by name; null = not known. */
  readonly signals: Readonly<Record<string, number | null>>;
  /** Medians of this service's own starts and wakes, ms; null = none was seen yet. */
  readonly startMs: number | null;
  readonly wakeMs: number | null;
}

export interface ScaleDecision {
  readonly replicas: number;
  /** Which rule and which numbers, in a sentence a person can check. */
  readonly reason: string;
  /** JSON; handed back at the next evaluation. */
  readonly memory: unknown;
  /** When to ask again at the latest, ms. */
  readonly nextAt: number;
}
