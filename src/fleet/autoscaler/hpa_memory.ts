/**
 * What a HorizontalPodAutoscaler carries from one evaluation to the next, as a value. An entry too old to count gives its place
 * to the next one, so the lists stay as long as the longest window has evaluations (Kubernetes 1.36.3, horizontal.go).
 */
import type { ScalingBehavior, ScalingRules } from './hpa_behavior.ts';

export interface Recommendation {
  /** ms */
  readonly at: number;
  readonly replicas: number;
}

export interface ScaleEvent {
  /** ms */
  readonly at: number;
  /** Replicas added or removed; positive. */
  readonly change: number;
}

export interface HpaMemory {
  /** Before stabilisation. */
  readonly recommendations: readonly Recommendation[];
  readonly scaleUpEvents: readonly ScaleEvent[];
  readonly scaleDownEvents: readonly ScaleEvent[];
  /** Reasons of AbleToScale, ScalingActive and ScalingLimited; '-' in front = False, '' = not set yet. */
  readonly conditions: { readonly able: string; readonly active: string; readonly limited: string };
}

/** The count that is found at first is a recommendation too. */
export function initialMemory(replicas: number, now: number): HpaMemory {
  return {
    recommendations: [{ at: now, replicas }],
    scaleUpEvents: [],
    scaleDownEvents: [],
    conditions: { able: '', active: '', limited: '' },
  };
}

interface Stabilized {
  readonly replicas: number;
  readonly memory: HpaMemory;
}

/** Without `behavior`: the highest recommendation of the window, an entry exactly as old as it included. */
export function stabilized(memory: HpaMemory, wanted: number, now: number, windowMs: number): Stabilized {
  const old = ({ at }: Recommendation) => at < now - windowMs;
  const counted = memory.recommendations.filter((entry) => !old(entry)).map(({ replicas }) => replicas);
  const recommendations = replaceLast(memory.recommendations, old, { at: now, replicas: wanted });
  return { replicas: Math.max(wanted, ...counted), memory: { ...memory, recommendations } };
}

/** With it: as close to the current count as the recommendations strictly within each direction's window allow. */
export function stabilizedWithBehavior(
  memory: HpaMemory,
  behavior: ScalingBehavior,
  current: number,
  wanted: number,
  now: number,
): Stabilized {
  const upCutoff = now - behavior.scaleUp.stabilizationWindowSeconds * 1000;
  const downCutoff = now - behavior.scaleDown.stabilizationWindowSeconds * 1000;
  const since = (cutoff: number) =>
    memory.recommendations.filter(({ at }) => at > cutoff).map(({ replicas }) => replicas);
  const least = Math.min(wanted, ...since(upCutoff));
  const most = Math.max(wanted, ...since(downCutoff));
  const old = ({ at }: Recommendation) => at < upCutoff && at < downCutoff;
  const recommendations = replaceLast(memory.recommendations, old, { at: now, replicas: wanted });
  return { replicas: Math.min(most, Math.max(least, current)), memory: { ...memory, recommendations } };
}

/** After the count was written. */
export function rescaled(
  memory: HpaMemory,
  behavior: ScalingBehavior,
  from: number,
  to: number,
  now: number,
): HpaMemory {
  const add = (events: readonly ScaleEvent[], rules: ScalingRules) => {
    // The longest of this direction's own policies, even when one of the other direction still asks for the event.
    const longest = Math.max(...rules.policies.map(({ periodSeconds }) => periodSeconds));
    return replaceLast(events, ({ at }) => at < now - longest * 1000, { at: now, change: Math.abs(to - from) });
  };
  return to > from
    ? { ...memory, scaleUpEvents: add(memory.scaleUpEvents, behavior.scaleUp) }
    : { ...memory, scaleDownEvents: add(memory.scaleDownEvents, behavior.scaleDown) };
}

function replaceLast<Entry>(entries: readonly Entry[], old: (entry: Entry) => boolean, by: Entry): readonly Entry[] {
  const at = entries.findLastIndex(old);
  return at < 0 ? [...entries, by] : entries.with(at, by);
}
