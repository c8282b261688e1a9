/**
 * What a fleet file asks for, whatever kinds it was written in: the one form that the control loop, the gateway's table and the
 * simulator are made from. All references are resolved and all defaults filled in; nothing here is measured or decided.
 */
import type { BehaviorSpec } from '../autoscaler/hpa_behavior.ts';
import type { ScaledObjectSpec } from '../autoscaler/keda_policy.ts';
import type { KpaSpec } from '../autoscaler/kpa_policy.ts';

export interface FleetSpec {
  readonly services: readonly ServiceSpec[];
  readonly routes: readonly RouteSpec[];
  readonly graphs: readonly GraphSpec[];
  readonly gateway: GatewaySpec;
  /** What was accepted and has no effect here, or another one than on a cluster. */
  readonly notices: readonly Notice[];
}

/** A place in a file. Line and column count from 1. */
export interface SourceAt {
  readonly file: string;
  readonly line: number;
  readonly column: number;
}

export interface Notice {
  readonly at: SourceAt;
  /** `InferenceService default/llama` */
  readonly object: string;
  /** Path of the field, `spec.predictor.logger`. */
  readonly field: string;
  readonly text: string;
}

/** Replicas of one model behind one name: an InferenceService, an LLMInferenceService or an entry of `models`. */
export interface ServiceSpec {
  /** `namespace/name`; unique in the fleet. */
  readonly id: string;
  readonly kind: string;
  readonly at: SourceAt;
  /** Names that requests call it by, the first being its own; unique in the fleet. */
  readonly models: readonly string[];
  readonly template: ReplicaTemplate;
  /** Beside the stable template, newest last (KServe `spec.canary[]`). */
  readonly canaries: readonly CanarySpec[];
  /** Knative's register machine; null = the template rolls out at once. */
  readonly canaryTrafficPercent: number | null;
  readonly scaling: ScalingSpec;
  readonly rollout: RolloutSpec;
  readonly traffic: TrafficSpec;
  /** `serving.kserve.io/stop`: no replicas and no route, the object stays. */
  readonly stopped: boolean;
  readonly labels: Readonly<Record<string, string>>;
}

/** Two templates that differ make two revisions. */
export interface ReplicaTemplate {
  /** Folder, Hugging Face id or URI; '' = the embedded model. */
  readonly model: string;
  /** Flags of `tokenmill serve`. */
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  /** What it may use and what a machine must have free; null = what the plan of the model says. */
  readonly cpuMilli: number | null;
  readonly memoryBytes: number | null;
  readonly readiness: ProbeSpec;
  readonly liveness: ProbeSpec;
  readonly startup: ProbeSpec;
  /** From the stop to SIGKILL, ms; the pre-stop delay counts in. */
  readonly terminationGraceMs: number;
  /** Between leaving the gateway's table and SIGTERM, ms. */
  readonly preStopMs: number;
  readonly minReadyMs: number;
}

export interface ProbeSpec {
  readonly path: string;
  readonly initialDelayMs: number;
  readonly periodMs: number;
  readonly timeoutMs: number;
  readonly successThreshold: number;
  readonly failureThreshold: number;
}

export interface CanarySpec {
  readonly name: string;
  readonly template: ReplicaTemplate;
  /** 0..100 of the service's requests once it is ready. */
  readonly percent: number;
  readonly minReplicas: number | null;
}

export interface ScalingSpec {
  /** 0 = may go to zero. */
  readonly minReplicas: number;
  readonly maxReplicas: number;
  /** Replicas kept asleep (weights mapped, no KV cache) beyond those that serve. */
  readonly standby: number;
  readonly rule: ScalingRule;
}

export type ScalingRule =
  | { readonly kind: 'fixed' }
  | {
      readonly kind: 'hpa';
      /** null: no `behavior` in the object, which is a rule of its own. */
      readonly behavior: BehaviorSpec | null;
      readonly metrics: readonly SignalTarget[];
    }
  | {
      readonly kind: 'keda';
      readonly pollingIntervalMs: number;
      readonly object: ScaledObjectSpec;
      readonly behavior: BehaviorSpec | null;
      /** As the annotations of the ScaledObject say, without `autoscaling.keda.sh/`. */
      readonly annotations: Readonly<Record<string, string>>;
      /** What each of `object.triggers` asks, in their order. */
      readonly queries: readonly TriggerQuery[];
    }
  | { readonly kind: 'kpa'; readonly policy: Partial<KpaSpec> }
  | { readonly kind: 'proactive'; readonly policy: ProactiveSpec };

/** A signal of the fleet by name (`autoscaler/signals.ts` has the table) or a query over its samples. */
export type TriggerQuery =
  | { readonly kind: 'promql'; readonly query: string; readonly ignoreNullValues: boolean }
  | {
      readonly kind: 'cron';
      readonly timezone: string;
      readonly start: string;
      readonly end: string;
      readonly desired: number;
    }
  | {
      readonly kind: 'resource';
      readonly resource: 'cpu' | 'memory';
      readonly target: number;
      readonly utilization: boolean;
    }
  | { readonly kind: 'signal'; readonly signal: string };

export interface SignalTarget {
  readonly query: TriggerQuery;
  readonly metricType: 'AverageValue' | 'Value' | 'Utilization';
  readonly target: number;
}

/** Ours: predicts demand from the arrival rate and the measured start time. */
export interface ProactiveSpec {
  /** Objectives at p95; null = not asked for. */
  readonly ttftMs: number | null;
  readonly tpotMs: number | null;
  /** Requests in flight a replica carries while it meets them; null = learned. */
  readonly concurrency: number | null;
  /** Idle this long before the last replica goes, ms. */
  readonly idleMs: number;
}

export interface RolloutSpec {
  readonly strategy: 'rolling' | 'recreate' | 'blueGreen' | 'canary';
  /** A count, or a share of the replicas in percent. */
  readonly maxSurge: number | { readonly percent: number };
  readonly maxUnavailable: number | { readonly percent: number };
  /** Shares of traffic one after another, percent, for `canary`; the last is 100. */
  readonly steps: readonly { readonly percent: number; readonly pauseMs: number }[];
  /** Compared with the stable revision; null = nobody judges. */
  readonly analysis: AnalysisSpec | null;
  /** No progress for this long = failed, ms. */
  readonly progressDeadlineMs: number;
  readonly revisionHistoryLimit: number;
}

export interface AnalysisSpec {
  /** Most that the share of errors may be above the stable revision's, 0..1. */
  readonly errorRateMargin: number;
  /** Most that the latencies may be, as a multiple of the stable revision's; null = not judged. */
  readonly ttftRatio: number | null;
  readonly tpotRatio: number | null;
  /** False alarm of the whole test, 0..1. */
  readonly alpha: number;
  /** Without a verdict after so many requests of the canary it counts as good. */
  readonly maxRequests: number;
  readonly promote: boolean;
  readonly rollback: boolean;
}

export interface TrafficSpec {
  /** Requests that match go to this revision or canary, whatever the shares say. */
  readonly pins: readonly { readonly header: string; readonly value: string; readonly to: string }[];
  /** The same value of this header (`authorization` = the key) meets the same revision; null = each request draws. */
  readonly stickyBy: string | null;
  /** A copy of this share of requests goes there, and its answer nowhere. */
  readonly shadow: { readonly to: string; readonly percent: number } | null;
  readonly queue: QueueSpec;
  /** Asked in turn when no replica answers: names of models here, or of `gateway.externals`. */
  readonly fallbacks: readonly string[];
  /** Priority of its requests where they give none; below 0 = dropped first. */
  readonly priority: number;
  /** 0 = hedging off; else a second try after this many ms without a token. */
  readonly hedgeAfterMs: number;
  /** Silence within a stream that ends it, ms; no limit on its length. */
  readonly idleTimeoutMs: number;
}

export interface QueueSpec {
  /** Held while no replica can take them; beyond: 429 or 503. */
  readonly maxRequests: number;
  readonly maxBytes: number;
  /** Held at most this long while there are replicas, and while there is none, ms. */
  readonly ttlMs: number;
  readonly coldTtlMs: number;
}

/** HTTPRoute, as far as it decides where a request goes. */
export interface RouteSpec {
  readonly id: string;
  readonly at: SourceAt;
  readonly hostnames: readonly string[];
  readonly rules: readonly RouteRule[];
}

export interface RouteRule {
  readonly matches: readonly RouteMatch[];
  /** `service` is the id of one, or null when the reference leads nowhere: its share is answered with 500. */
  readonly backends: readonly { readonly service: string | null; readonly weight: number }[];
  readonly setHeaders: Readonly<Record<string, string>>;
  readonly removeHeaders: readonly string[];
  readonly pathPrefixTo: string | null;
  readonly mirrorTo: string | null;
  /** 0 = none. */
  readonly requestTimeoutMs: number;
}

/** All that are given must hold. */
export interface RouteMatch {
  readonly path: { readonly type: 'Exact' | 'PathPrefix' | 'RegularExpression'; readonly value: string };
  readonly method: string | null;
  readonly headers: readonly NamedMatch[];
  readonly query: readonly NamedMatch[];
}

export interface NamedMatch {
  readonly name: string;
  readonly type: 'Exact' | 'RegularExpression';
  readonly value: string;
}

/** InferenceGraph: nodes by name, the first asked is `root`. */
export interface GraphSpec {
  readonly id: string;
  readonly at: SourceAt;
  readonly nodes: Readonly<Record<string, GraphNode>>;
}

export interface GraphNode {
  readonly router: 'Sequence' | 'Splitter' | 'Ensemble' | 'Switch';
  readonly steps: readonly GraphStep[];
}

export interface GraphStep {
  readonly name: string;
  readonly target: { readonly node: string } | { readonly service: string } | { readonly url: string };
  /** `$request` or `$response` of the step before. */
  readonly data: '$request' | '$response';
  readonly weight: number | null;
  readonly condition: string | null;
  /** `Hard`: a failure ends the graph. */
  readonly dependency: 'Soft' | 'Hard';
}

export interface GatewaySpec {
  readonly host: string;
  readonly port: number;
  /** Of the external OpenAI-compatible servers that fallbacks may name. */
  readonly externals: readonly {
    readonly name: string;
    readonly url: string;
    readonly model: string;
    readonly keyEnv: string | null;
  }[];
  /** Weights of the picker's scorers by name (`pick/scorers.ts`). */
  readonly scorers: Readonly<Record<string, number>>;
  /** Names of priorities (InferenceObjective). */
  readonly objectives: Readonly<Record<string, number>>;
  /** Every request must carry a key of the key store. */
  readonly requireKey: boolean;
}
