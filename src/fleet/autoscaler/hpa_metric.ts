/** Replicas that one metric asks of the HorizontalPodAutoscaler (Kubernetes 1.36.3, replica_calculator.go). */

export interface HpaMetric {
  /** As events name it. */
  readonly name: string;
  /**
   * AverageValue: the target is what each replica should have. Value: what all together should have. Resource: as AverageValue,
   * but measured on the ready pods, so the sample is their average and the others count as 0 while it asks for more.
   */
  readonly type: 'AverageValue' | 'Value' | 'Resource';
  /** In thousandths, as samples. */
  readonly target: number;
}

/** Replicas; null = the metric failed. */
export type MetricOutcome = number | null;

export interface ReplicaCounts {
  readonly replicas: number;
  readonly statusReplicas: number;
  readonly pods: number;
  readonly readyPods: number;
}

const MAX_INT32 = 2 ** 31 - 1;

export function metricReplicas(
  metric: HpaMetric,
  samples: readonly number[] | null,
  counts: ReplicaCounts,
  tolerance: { readonly up: number; readonly down: number },
): MetricOutcome {
  if (samples === null) return null;
  const usage = samples.reduce((sum, sample) => sum + sample, 0);
  const within = (ratio: number) => 1 - tolerance.down <= ratio && ratio <= 1 + tolerance.up;
  if (metric.type === 'AverageValue') {
    // NaN and infinity, of no replicas, are outside.
    if (within(usage / (metric.target * counts.statusReplicas))) return counts.statusReplicas;
    // The controller divides as unsigned: a sum below zero asks for all there can be.
    return usage < 0 ? MAX_INT32 : int32(Math.ceil(usage / metric.target));
  }
  if (metric.type === 'Resource') return resourceReplicas(usage / metric.target, counts, within);
  const ratio = usage / metric.target;
  if (counts.replicas === 0) return int32(Math.ceil(ratio));
  if (within(ratio)) return counts.replicas;
  return counts.pods === 0 ? null : int32(Math.ceil(ratio * counts.readyPods));
}

function resourceReplicas(
  ratio: number,
  { replicas, pods, readyPods }: ReplicaCounts,
  within: (ratio: number) => boolean,
): MetricOutcome {
  if (readyPods === 0) return null;
  if (ratio <= 1 || pods <= readyPods) return within(ratio) ? replicas : int32(Math.ceil(ratio * readyPods));
  const withUnready = (ratio * readyPods) / pods;
  if (withUnready < 1 || within(withUnready)) return replicas;
  return Math.max(replicas, int32(Math.ceil(withUnready * pods)));
}

function int32(count: number): number {
  return Math.max(-MAX_INT32 - 1, Math.min(MAX_INT32, count)) + 0;
}
