/** What holds where a fleet file says nothing. */
import type { ProbeSpec, QueueSpec, ReplicaTemplate, RolloutSpec, TrafficSpec } from './fleet_spec.ts';

/** What stands for "no bound" (`maxReplicas: 0` in Knative mode): the machine's memory is the bound. */
export const UNBOUNDED_REPLICAS = 2 ** 31 - 1;

export const NAMESPACE = 'default';
export const GATEWAY_HOST = '127.0.0.1';
export const GATEWAY_PORT = 8080;

/** The numbers of KServe's preset for language models; the startup gives a load half an hour, as its vLLM runtime does. */
const PROBES: Readonly<Record<'readiness' | 'liveness' | 'startup', ProbeSpec>> = {
  readiness: probe('/ready', 1000, 1000, 2),
  liveness: probe('/health', 10_000, 5000, 10),
  startup: probe('/ready', 500, 1000, 3600),
};

function probe(path: string, periodMs: number, timeoutMs: number, failureThreshold: number): ProbeSpec {
  return { path, initialDelayMs: 0, periodMs, timeoutMs, successThreshold: 1, failureThreshold };
}

/** Kubernetes' defaults of a probe that is given in part. */
export const PROBE_FIELDS = {
  initialDelayMs: 0,
  periodMs: 10_000,
  timeoutMs: 1000,
  successThreshold: 1,
  failureThreshold: 3,
};

export const TEMPLATE: ReplicaTemplate = {
  model: '',
  args: [],
  env: {},
  cpuMilli: null,
  memoryBytes: null,
  ...PROBES,
  terminationGraceMs: 30_000,
  preStopMs: 0,
  minReadyMs: 0,
};

/** Of a Deployment. */
export const ROLLOUT: RolloutSpec = {
  strategy: 'rolling',
  maxSurge: { percent: 25 },
  maxUnavailable: { percent: 25 },
  steps: [],
  analysis: null,
  progressDeadlineMs: 600_000,
  revisionHistoryLimit: 10,
};

/** A Knative revision gets its traffic when it is ready as a whole. */
export const KNATIVE_ROLLOUT: RolloutSpec = { ...ROLLOUT, strategy: 'blueGreen' };

export const QUEUE: QueueSpec = { maxRequests: 10_000, maxBytes: 256 * 1024 * 1024, ttlMs: 60_000, coldTtlMs: 300_000 };

export const TRAFFIC: TrafficSpec = {
  pins: [],
  stickyBy: null,
  shadow: null,
  queue: QUEUE,
  fallbacks: [],
  priority: 0,
  hedgeAfterMs: 0,
  idleTimeoutMs: 300_000,
};

export const ANALYSIS = {
  errorRateMargin: 0.02,
  ttftRatio: 1.5,
  tpotRatio: 1.5,
  alpha: 0.05,
  maxRequests: 5000,
  promote: true,
  rollback: true,
};

/** Without a request for so long the last replica goes. */
export const IDLE_MS = 300_000;
