/** Knative's pod autoscaler over the fleet's signals, every 2 s. The gateway is always in the path, so it is the activator. */
import type { ScalingSpec } from '../spec/fleet_spec.ts';
import { decideKpa, initialKpaMemory, type KpaMemory } from './kpa.ts';
import { kpaPolicy } from './kpa_policy.ts';
import type { ScaleObserved } from './scale_decision.ts';
import { isDue, type RuleStep, shortNumber } from './scale_step.ts';

type KpaRule = Extract<ScalingSpec['rule'], { kind: 'kpa' }>;

export interface KpaRuleMemory {
  readonly createdAt: number;
  readonly kpa: KpaMemory;
  readonly nextAt: number;
  readonly reason: string;
}

const KPA_PERIOD_MS = 2000;

/** Signals that the two averages are, by what is averaged. */
const AVERAGES = {
  concurrency: ['concurrency_stable', 'concurrency_panic'],
  rps: ['requests_per_second_stable', 'requests_per_second_panic'],
} as const;

export function stepKpa(
  spec: ScalingSpec,
  rule: KpaRule,
  observed: ScaleObserved,
  memory: KpaRuleMemory | null,
  now: number,
): RuleStep<KpaRuleMemory> {
  if (memory !== null && !isDue(memory.nextAt, KPA_PERIOD_MS, now)) {
    return { replicas: observed.replicas, reason: memory.reason, memory, nextAt: memory.nextAt };
  }
  const policy = kpaPolicy({ ...rule.policy, minScale: spec.minReplicas, maxScale: spec.maxReplicas });
  const createdAt = memory?.createdAt ?? now;
  const [stable = null, panic = null] = AVERAGES[policy.metric].map((name) => observed.signals[name] ?? null);
  const decision = decideKpa(
    policy,
    {
      replicas: observed.replicas,
      readyReplicas: observed.readyReplicas,
      average: stable === null || panic === null ? null : { stable, panic },
      activatorMs: now - createdAt,
      reachable: true,
    },
    memory?.kpa ?? initialKpaMemory(observed.readyReplicas, now),
    now,
  );
  const { replicas } = decision;
  const change = replicas === observed.replicas ? `stays ${replicas}` : `${observed.replicas} -> ${replicas}`;
  const measured =
    stable === null || panic === null
      ? `no ${policy.metric} measured`
      : `${policy.metric} ${shortNumber(stable)} over ${policy.windowS} s and ${shortNumber(panic)} over ${shortNumber(policy.windowS / 10)} s, of ${shortNumber(policy.targetValue)} each`;
  const reason = `${decision.reason}: ${measured}; ${change}`;
  const nextAt = now + KPA_PERIOD_MS;
  return { replicas, reason, memory: { createdAt, kpa: decision.memory, nextAt, reason }, nextAt };
}
