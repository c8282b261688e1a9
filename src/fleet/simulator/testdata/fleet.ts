import type { FleetSpec, ScalingRule, ServiceSpec, TrafficSpec } from '../../spec/fleet_spec.ts';
import type { ReplicaModel } from '../replica_model.ts';

/** A small model on a few cores: 16 tokens a second for each of 16 requests, half a thousand for one alone. */
export const MODEL: ReplicaModel = {
  batches: [
    { batch: 1, tpotMs: 22, prefillMsPerToken: 0.35 },
    { batch: 4, tpotMs: 25, prefillMsPerToken: 0.4 },
    { batch: 8, tpotMs: 31, prefillMsPerToken: 0.48 },
    { batch: 16, tpotMs: 46, prefillMsPerToken: 0.65 },
    { batch: 32, tpotMs: 80, prefillMsPerToken: 1 },
  ],
  slots: 32,
  start: { medianMs: 90_000, sigma: 0.15 },
  wakeMs: 4000,
};

export interface FleetGiven {
  readonly rule: ScalingRule;
  readonly minReplicas?: number;
  readonly maxReplicas?: number;
  readonly standby?: number;
  readonly maxRequests?: number;
}

/** One service; what a simulation does not look at is left out. */
export function fleetOf({ rule, minReplicas = 0, maxReplicas = 20, standby = 0, maxRequests = 10_000 }: FleetGiven) {
  const queue = { maxRequests, maxBytes: 1e9, ttlMs: 300_000, coldTtlMs: 600_000 };
  const service: Pick<ServiceSpec, 'id' | 'models' | 'scaling'> & { readonly traffic: Pick<TrafficSpec, 'queue'> } = {
    id: 'default/m',
    models: ['m'],
    scaling: { minReplicas, maxReplicas, standby, rule },
    traffic: { queue },
  };
  return { services: [service], routes: [], graphs: [], notices: [] } as unknown as FleetSpec;
}

export type KedaRule = Extract<ScalingRule, { kind: 'keda' }>;

/** The usual one: requests in flight and held, so many for each replica. */
export function kedaRule(threshold: number, minReplicaCount = 0, query: KedaRule['queries'][number] | null = null): KedaRule {
  return {
    kind: 'keda',
    pollingIntervalMs: 30_000,
    object: { minReplicaCount, maxReplicaCount: 20, triggers: [{ type: 'prometheus', threshold }] },
    behavior: null,
    annotations: {},
    queries: [query ?? { kind: 'signal', signal: 'concurrency' }],
  };
}

export function proactiveRule(concurrency: number | null = null): ScalingRule {
  return { kind: 'proactive', policy: { ttftMs: 2000, tpotMs: 50, concurrency, idleMs: 300_000 } };
}
