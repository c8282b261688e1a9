/**
 * Status of a ScaledObject, and what the operator of KEDA 2.21 carries beside it. The scale loop and the metrics service each
 * change a copy and send the API only how their copy changed, field by field as a JSON merge patch does: so a copy that has
 * grown old can overwrite what the other one wrote, and here it does too.
 */

export interface MetricHealth {
  /** Failures in a row. */
  readonly failures: number;
  readonly status: 'Happy' | 'Failing';
}

export type ConditionName = 'Ready' | 'Active' | 'Fallback' | 'Paused' | 'HPAActive';

/** `status/reason`; '' = not set yet. */
export type Conditions = Readonly<Record<ConditionName, string>>;

export interface KedaStatus {
  readonly conditions: Conditions;
  /** ms, whole seconds; null = never. */
  readonly lastActive: number | null;
  /** Per external metric; kept only where there is a fallback. */
  readonly health: Readonly<Record<string, MetricHealth>>;
  /** Per external metric, at the last poll. */
  readonly activity: Readonly<Record<string, boolean>>;
}

/** What came of asking one trigger, after fallback. */
export interface MetricOutcome {
  /** Thousandths; null = it failed. */
  readonly value: number | null;
  readonly active: boolean;
  /** The value is that of the fallback. */
  readonly fallback: boolean;
}

/** Of when the triggers were built or the metrics service last wrote. */
export interface ServedCopy {
  readonly status: KedaStatus;
  /** A poll built the triggers: then this is the scale loop's own copy, which every poll refreshes. */
  readonly fromPoll: boolean;
}

export interface KedaMemory {
  /** As stored in the API. */
  readonly status: KedaStatus;
  /** The metrics service's copy; null after an error: whichever of the two comes first reads it anew. */
  readonly served: ServedCopy | null;
  /** Per external metric: what a query left for polls, or a poll for queries (`useCachedMetrics`). */
  readonly outcomes: Readonly<Record<string, MetricOutcome>>;
}

export function initialKedaMemory(): KedaMemory {
  const conditions = { Ready: 'Unknown/', Active: 'Unknown/', Fallback: 'Unknown/', Paused: 'False/', HPAActive: '' };
  return { status: { conditions, lastActive: null, health: {}, activity: {} }, served: null, outcomes: {} };
}

/** A status in the API and somebody's copy of it. */
export interface Copied {
  readonly stored: KedaStatus;
  readonly copy: KedaStatus;
}

/**
 * The copy's health of one metric changes, with it the condition Fallback, and the difference is written. A write answers with
 * what is stored then, which becomes the copy; without a difference the copy stays as old as it is.
 */
export function withHealth(
  { stored, copy }: Copied,
  metric: string,
  health: MetricHealth,
  failureThreshold: number,
): Copied {
  const before = copy.health[metric];
  const changed = { ...copy.health, [metric]: health };
  const exceeded = Object.values(changed).some(
    ({ status, failures }) => status === 'Failing' && failures > failureThreshold,
  );
  const condition = exceeded ? 'True/FallbackExists' : 'False/NoFallbackFound';
  const sameHealth = before?.failures === health.failures && before.status === health.status;
  const sameCondition = copy.conditions.Fallback === condition;
  if (sameHealth && sameCondition) return { stored, copy };
  const patched = {
    ...stored.health[metric],
    ...(before?.failures === health.failures ? {} : { failures: health.failures }),
    ...(before?.status === health.status ? {} : { status: health.status }),
  };
  const written: KedaStatus = {
    ...stored,
    health: sameHealth ? stored.health : { ...stored.health, [metric]: { ...health, ...patched } },
    // Conditions are a list, and a list is written whole.
    conditions: sameCondition ? stored.conditions : { ...copy.conditions, Fallback: condition },
  };
  return { stored: written, copy: written };
}
