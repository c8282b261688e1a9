/** `behavior` of a HorizontalPodAutoscaler: defaults, and how far its policies let the count go (Kubernetes 1.36.3, horizontal.go). */
import { parseQuantity } from '../quantity.ts';
import type { HpaMemory, ScaleEvent } from './hpa_memory.ts';

export interface ScalingPolicy {
  readonly type: 'Pods' | 'Percent';
  readonly value: number;
  readonly periodSeconds: number;
}

export interface ScalingRules {
  readonly stabilizationWindowSeconds: number;
  readonly selectPolicy: 'Max' | 'Min' | 'Disabled';
  readonly policies: readonly ScalingPolicy[];
  /** A quantity: the share by which usage may miss the target in this direction. The controller's 0.1 when it is not given. */
  readonly tolerance?: string | null;
}

export interface ScalingBehavior {
  readonly scaleUp: ScalingRules;
  readonly scaleDown: ScalingRules;
}

/** As written: each field of each direction may be left out. */
export interface BehaviorSpec {
  readonly scaleUp?: Partial<ScalingRules> | null;
  readonly scaleDown?: Partial<ScalingRules> | null;
}

/** What the API server fills in. A list of policies replaces the default list. */
const DEFAULTS: ScalingBehavior = {
  scaleUp: {
    stabilizationWindowSeconds: 0,
    selectPolicy: 'Max',
    policies: [
      { type: 'Pods', value: 4, periodSeconds: 15 },
      { type: 'Percent', value: 100, periodSeconds: 15 },
    ],
  },
  scaleDown: {
    stabilizationWindowSeconds: 300,
    selectPolicy: 'Max',
    policies: [{ type: 'Percent', value: 100, periodSeconds: 15 }],
  },
};

export function defaultBehavior(spec: BehaviorSpec): ScalingBehavior {
  return {
    scaleUp: { ...DEFAULTS.scaleUp, ...spec.scaleUp },
    scaleDown: { ...DEFAULTS.scaleDown, ...spec.scaleDown },
  };
}

/** What the controller uses where an object gives none. */
const TOLERANCE = 0.1;

export function tolerances(behavior: ScalingBehavior | null): { readonly up: number; readonly down: number } {
  const of = (text: string | null | undefined) => (text == null ? TOLERANCE : parseQuantity(text));
  return { up: of(behavior?.scaleUp.tolerance), down: of(behavior?.scaleDown.tolerance) };
}

export function scaleUpLimit(rules: ScalingRules, memory: HpaMemory, current: number, now: number): number {
  if (rules.selectPolicy === 'Disabled') return current;
  const proposals = rules.policies.map(({ type, value, periodSeconds }) => {
    const start = periodStart(memory, current, now, periodSeconds);
    return type === 'Pods' ? start + value : Math.ceil(start * (1 + value / 100));
  });
  return rules.selectPolicy === 'Min' ? Math.min(...proposals) : Math.max(...proposals);
}

export function scaleDownLimit(rules: ScalingRules, memory: HpaMemory, current: number, now: number): number {
  if (rules.selectPolicy === 'Disabled') return current;
  const proposals = rules.policies.map(({ type, value, periodSeconds }) => {
    const start = periodStart(memory, current, now, periodSeconds);
    return type === 'Pods' ? start - value : Math.trunc(start * (1 - value / 100)) + 0;
  });
  return rules.selectPolicy === 'Min' ? Math.max(...proposals) : Math.min(...proposals);
}

/** How many there were when the period began, as far as changes are remembered. */
function periodStart(memory: HpaMemory, current: number, now: number, periodSeconds: number): number {
  const cutoff = now - periodSeconds * 1000;
  const within = (events: readonly ScaleEvent[]) =>
    events.reduce((sum, { at, change }) => (at > cutoff ? sum + change : sum), 0);
  return current - within(memory.scaleUpEvents) + within(memory.scaleDownEvents);
}
