/** Templates for tests. */
import type { ProbeSpec, ReplicaTemplate } from '../../spec/fleet_spec.ts';

const PROBE: ProbeSpec = { path: '/health', initialDelayMs: 0, periodMs: 1000, timeoutMs: 1000, successThreshold: 1, failureThreshold: 3 };

export function template(changes: Partial<ReplicaTemplate> = {}): ReplicaTemplate {
  return {
    model: '',
    args: [],
    env: {},
    cpuMilli: null,
    memoryBytes: null,
    readiness: PROBE,
    liveness: { ...PROBE, periodMs: 10_000 },
    startup: { ...PROBE, failureThreshold: 60 },
    terminationGraceMs: 30_000,
    preStopMs: 2000,
    minReadyMs: 0,
    ...changes,
  };
}
