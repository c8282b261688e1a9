/** Settings of Knative's pod autoscaler (knative/serving, config-autoscaler and annotations `autoscaling.knative.dev/…`). */
import { TokenmillError } from '../../base/errors.ts';

/** What an owner may set; the rest has Knative's defaults. */
export interface KpaSpec {
  /** What is averaged: requests at a time, or a second. */
  readonly metric: 'concurrency' | 'rps';
  /** Requests that a replica takes at a time; 0 = any number. */
  readonly containerConcurrency: number;
  /** Of the metric, per replica; null = containerConcurrency, or the default of the metric. */
  readonly target: number | null;
  /** Share of the target that is aimed at, percent. */
  readonly targetUtilizationPercentage: number;
  readonly minScale: number;
  /** 0 = none. */
  readonly maxScale: number;
  /** Until it was reached once. */
  readonly initialScale: number;
  /** Least count above 0; 0 = none. */
  readonly activationScale: number;
  readonly windowS: number;
  readonly panicThresholdPercentage: number;
  readonly maxScaleUpRate: number;
  readonly maxScaleDownRate: number;
  readonly scaleDownDelayS: number;
  /** Requests that must find room at once; 0 = the activator only at zero, -1 = always. */
  readonly targetBurstCapacity: number;
  readonly scaleToZero: boolean;
  readonly scaleToZeroGracePeriodS: number;
  readonly scaleToZeroPodRetentionPeriodS: number;
  /** After this, starting has failed. */
  readonly progressDeadlineS: number;
}

export interface KpaPolicy extends KpaSpec {
  /** Of the metric: what a replica should have, and what it can have. */
  readonly targetValue: number;
  readonly totalValue: number;
}

const DEFAULTS: KpaSpec = {
  metric: 'concurrency',
  containerConcurrency: 0,
  target: null,
  targetUtilizationPercentage: 70,
  minScale: 0,
  maxScale: 0,
  initialScale: 1,
  activationScale: 0,
  windowS: 60,
  panicThresholdPercentage: 200,
  maxScaleUpRate: 1000,
  maxScaleDownRate: 2,
  scaleDownDelayS: 0,
  targetBurstCapacity: 211,
  scaleToZero: true,
  scaleToZeroGracePeriodS: 30,
  scaleToZeroPodRetentionPeriodS: 0,
  progressDeadlineS: 600,
};

const DEFAULT_TARGET = { concurrency: 100, rps: 200 } as const;

const MIN_TARGET = 0.01;

/** `invalid_manifest` for what Knative does not admit. */
export function kpaPolicy(given: Partial<KpaSpec>): KpaPolicy {
  const spec = { ...DEFAULTS, ...given };
  const { metric, containerConcurrency, target } = spec;
  const counts = ['containerConcurrency', 'minScale', 'maxScale', 'initialScale', 'activationScale'] as const;
  for (const field of counts) {
    refuseUnless(Number.isSafeInteger(spec[field]) && spec[field] >= 0, field, 'must be a whole number from 0');
  }
  refuseUnless(spec.maxScale === 0 || spec.minScale <= spec.maxScale, 'minScale', 'is above maxScale');
  refuseUnless(target === null || target >= MIN_TARGET, 'target', `must be ${MIN_TARGET} or more`);
  refuseUnless(spec.windowS >= 6 && spec.windowS <= 3600, 'windowS', 'must be from 6 to 3600');
  refuseUnless(spec.maxScaleUpRate > 1, 'maxScaleUpRate', 'must be above 1');
  refuseUnless(spec.maxScaleDownRate > 1, 'maxScaleDownRate', 'must be above 1');
  refuseUnless(spec.targetBurstCapacity >= 0 || spec.targetBurstCapacity === -1, 'targetBurstCapacity', 'is below 0');
  const own = metric === 'concurrency' ? containerConcurrency : 0;
  const total = Math.min(target ?? (own || DEFAULT_TARGET[metric]), own || Number.POSITIVE_INFINITY);
  const targetValue = Math.max(MIN_TARGET, total * (spec.targetUtilizationPercentage / 100));
  return { ...spec, targetValue, totalValue: total };
}

function refuseUnless(admitted: boolean, field: keyof KpaSpec, why: string): void {
  if (!admitted) throw new TokenmillError('invalid_manifest', `${field} ${why}.`);
}
