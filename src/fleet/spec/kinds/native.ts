/** The short form -> services. */

import { TokenmillError } from '../../../base/errors.ts';
import { nearestName } from '../../../base/nearest.ts';
import { type KpaSpec, kpaPolicy } from '../../autoscaler/kpa_policy.ts';
import { ANALYSIS, IDLE_MS, NAMESPACE, ROLLOUT, TEMPLATE, TRAFFIC } from '../defaults.ts';
import type {
  CanarySpec,
  GatewaySpec,
  ProbeSpec,
  ReplicaTemplate,
  RolloutSpec,
  ScalingRule,
  ScalingSpec,
  ServiceSpec,
  TrafficSpec,
} from '../fleet_spec.ts';
import { ObjectContext, type Path, type Problems } from '../problems.ts';
import { serveArgs } from '../serve_args.ts';
import type { ServiceDraft } from '../service_draft.ts';
import { type Claims, placeOfNative } from '../storage.ts';
import type { YamlMap } from '../yaml_tree.ts';
import {
  GATEWAY,
  type GatewayValue,
  MODEL,
  type ModelValue,
  NATIVE,
  type ProbeValue,
  type RolloutValue,
  type ScalingValue,
  type TemplateValue,
} from './native_table.ts';
import { POLLING_INTERVAL_MS, reasonOf } from './triggers.ts';

interface ModelScope {
  readonly cx: ObjectContext;
  readonly path: Path;
  readonly claims: Claims;
}

export interface NativeFleet {
  readonly drafts: readonly ServiceDraft[];
  readonly gateway: GatewaySpec;
}

export function readNative(
  documents: readonly YamlMap[],
  claims: Claims,
  base: GatewaySpec,
  problems: Problems,
): NativeFleet {
  const drafts: ServiceDraft[] = [];
  let gateway = base;
  let gateways = 0;
  for (const document of documents) {
    const cx = new ObjectContext('fleet', document, problems);
    const value = NATIVE.read(document, [], cx);
    if (value === undefined) continue;
    for (const [i, node] of (value.models ?? []).entries()) {
      const path = ['models', i];
      const model = MODEL.read(node, path, cx);
      if (model !== undefined) drafts.push(draftOf(model, { cx, path, claims }));
    }
    if (value.gateway === null) continue;
    if (++gateways > 1) cx.error(['gateway'], 'is given in another document too; give it once');
    const given = GATEWAY.read(value.gateway, ['gateway'], cx);
    if (given !== undefined) gateway = gatewayOf(given, base, cx);
  }
  return { drafts, gateway };
}

function draftOf(model: ModelValue, scope: ModelScope): ServiceDraft {
  const { cx, path } = scope;
  const template = templateOf(model, path, scope);
  const scaling = scalingOf(model, scope);
  const canaries = canariesOf(model, scope);
  const service: ServiceSpec = {
    id: `${NAMESPACE}/${model.name}`,
    kind: 'Model',
    at: cx.locate(path),
    models: [...new Set([model.name, ...(model.aliases ?? [])])],
    template,
    canaries,
    canaryTrafficPercent: null,
    scaling,
    rollout: rolloutOf(model.rollout, [...path, 'rollout'], cx),
    traffic: trafficOf(model, canaries, scope),
    stopped: model.stopped ?? false,
    labels: { ...model.labels },
  };
  return {
    service,
    cx,
    path,
    namespace: NAMESPACE,
    deployment: model.name,
    canaryDeployments: canaries.map(({ name }) => name),
    addresses: [model.name],
    pools: [],
    scaledByItself: model.replicas === null && model.scaling === null ? null : 'its replicas are given',
  };
}

function templateOf(
  value: TemplateValue & Partial<ModelValue>,
  path: Path,
  { cx, claims }: ModelScope,
): ReplicaTemplate {
  const place =
    value.model === null ? { model: '', args: [] } : placeOfNative(value.model, cx.at.file, claims, NAMESPACE);
  if ('error' in place) cx.error([...path, 'model'], place.error);
  const argsPath = [...path, 'args'];
  const served = serveArgs([], value.args ?? [], {
    error: (text) => cx.error(argsPath, text),
    notice: (text) => cx.notice(argsPath, text),
  });
  if (served.model !== null) cx.error(argsPath, `name the model ${served.model}; that is the field model`);
  if (served.names.length > 0) cx.error(argsPath, 'name what is served; those are the fields name and aliases');
  const terminationGraceMs = value.terminationGrace ?? TEMPLATE.terminationGraceMs;
  const preStopMs = value.preStop ?? TEMPLATE.preStopMs;
  if (preStopMs > terminationGraceMs) cx.error([...path, 'preStop'], 'is longer than terminationGrace');
  return {
    model: 'error' in place ? '' : place.model,
    args: 'error' in place ? [] : [...served.args, ...place.args],
    env: { ...value.env },
    cpuMilli: value.cpu === null ? null : Math.ceil(value.cpu.value * 1000),
    memoryBytes: value.memory === null ? null : Math.ceil(value.memory.value),
    readiness: probeOf(value.readiness, TEMPLATE.readiness),
    liveness: probeOf(value.liveness, TEMPLATE.liveness),
    startup: probeOf(value.startup, TEMPLATE.startup),
    terminationGraceMs,
    preStopMs,
    minReadyMs: value.minReady ?? TEMPLATE.minReadyMs,
  };
}

function probeOf(value: ProbeValue | null | undefined, base: ProbeSpec): ProbeSpec {
  return {
    path: value?.path ?? base.path,
    initialDelayMs: value?.initialDelay ?? base.initialDelayMs,
    periodMs: value?.period || base.periodMs,
    timeoutMs: value?.timeout || base.timeoutMs,
    successThreshold: value?.successThreshold ?? base.successThreshold,
    failureThreshold: value?.failureThreshold ?? base.failureThreshold,
  };
}

/** What a canary does not say is the model's; `env` is merged by name. */
function canariesOf(model: ModelValue, scope: ModelScope): CanarySpec[] {
  const { cx, path } = scope;
  const given = model.canaries ?? [];
  const sum = given.reduce((total, { percent }) => total + percent, 0);
  if (sum > 100) cx.error([...path, 'canaries'], `the shares add up to ${sum} percent; 100 is all there is`);
  const names = new Set(RESERVED);
  return given.map((canary, i) => {
    const at = [...path, 'canaries', i];
    if (names.has(canary.name)) cx.error([...at, 'name'], `${canary.name} is taken`);
    names.add(canary.name);
    const merged = {
      ...model,
      model: canary.model ?? model.model,
      args: canary.args ?? model.args,
      env: { ...model.env, ...canary.env },
      cpu: canary.cpu ?? model.cpu,
      memory: canary.memory ?? model.memory,
    };
    return {
      name: canary.name,
      template: templateOf(merged, at, scope),
      percent: canary.percent,
      minReplicas: canary.minReplicas,
    };
  });
}

/** Names of revisions that are always there. */
const RESERVED = ['latest', 'prev', 'stable'];

function scalingOf({ replicas, scaling }: ModelValue, { cx, path }: ModelScope): ScalingSpec {
  const at = [...path, 'scaling'];
  if (replicas === null || typeof replicas === 'number') {
    if (scaling !== null) cx.error(at, 'needs bounds to move between: replicas: {min: 0, max: 4}');
    const count = replicas ?? 1;
    return { minReplicas: count, maxReplicas: count, standby: 0, rule: { kind: 'fixed' } };
  }
  const min = replicas.min ?? 1;
  if (min > replicas.max) cx.error([...path, 'replicas', 'max'], `is ${replicas.max}, below min ${min}`);
  const bounds = { minReplicas: min, maxReplicas: replicas.max, standby: replicas.standby ?? 0 };
  return { ...bounds, rule: ruleOf(scaling, bounds, at, cx) };
}

type RuleName = 'proactive' | 'signals' | 'knative';

const RULES_OF: Readonly<Record<Exclude<keyof ScalingValue, 'rule'>, readonly RuleName[]>> = {
  ttftP95Ms: ['proactive', 'signals'],
  tpotP95Ms: ['proactive', 'signals'],
  concurrency: ['proactive', 'signals', 'knative'],
  waiting: ['signals'],
  kvUse: ['signals'],
  tokensPerSecond: ['signals'],
  requestsPerSecond: ['signals', 'knative'],
  idle: ['proactive', 'signals', 'knative'],
  upWindow: ['signals'],
  downWindow: ['signals'],
  window: ['knative'],
};

type Bounds = Pick<ScalingSpec, 'minReplicas' | 'maxReplicas'>;

function ruleOf(scaling: ScalingValue | null, bounds: Bounds, path: Path, cx: ObjectContext): ScalingRule {
  const name: RuleName = scaling?.rule ?? 'proactive';
  for (const [field, rules] of Object.entries(RULES_OF)) {
    if (scaling?.[field as keyof ScalingValue] == null || rules.includes(name)) continue;
    cx.error([...path, field], `is for rule: ${rules.join(' and ')}; this rule is ${name}`);
  }
  if (name === 'signals' && scaling !== null) return signalsRule(scaling, bounds, path, cx);
  if (name === 'knative' && scaling !== null) return knativeRule(scaling, bounds, path, cx);
  const policy = {
    ttftMs: scaling?.ttftP95Ms ?? null,
    tpotMs: scaling?.tpotP95Ms ?? null,
    concurrency: scaling?.concurrency ?? null,
    idleMs: scaling?.idle ?? IDLE_MS,
  };
  return { kind: 'proactive', policy };
}

/** Targets that are compared with a total are averages a replica; those that are a mean or a percentile already are values. */
const SIGNALS = [
  { field: 'concurrency', signal: 'concurrency', metricType: 'AverageValue' },
  { field: 'waiting', signal: 'waiting_requests', metricType: 'AverageValue' },
  { field: 'kvUse', signal: 'kv_cache_usage', metricType: 'Value' },
  { field: 'ttftP95Ms', signal: 'ttft_p95_ms', metricType: 'Value' },
  { field: 'tpotP95Ms', signal: 'tpot_p95_ms', metricType: 'Value' },
  { field: 'tokensPerSecond', signal: 'tokens_per_second', metricType: 'AverageValue' },
  { field: 'requestsPerSecond', signal: 'arrivals_per_second', metricType: 'AverageValue' },
] as const;

/** A ScaledObject over the fleet's own signals. */
function signalsRule(scaling: ScalingValue, bounds: Bounds, path: Path, cx: ObjectContext): ScalingRule {
  const given = SIGNALS.flatMap(({ field, signal, metricType }) => {
    const threshold = scaling[field];
    return threshold === null ? [] : [{ trigger: { type: 'prometheus', name: field, metricType, threshold }, signal }];
  });
  if (given.length === 0)
    cx.error(path, `rule signals needs a target: ${SIGNALS.map(({ field }) => field).join(', ')}`);
  return {
    kind: 'keda',
    pollingIntervalMs: POLLING_INTERVAL_MS,
    object: {
      minReplicaCount: bounds.minReplicas,
      maxReplicaCount: bounds.maxReplicas,
      cooldownPeriod: Math.ceil((scaling.idle ?? IDLE_MS) / 1000),
      triggers: given.map(({ trigger }) => trigger),
    },
    behavior: {
      scaleUp: { stabilizationWindowSeconds: Math.ceil((scaling.upWindow ?? 0) / 1000) },
      scaleDown: { stabilizationWindowSeconds: Math.ceil((scaling.downWindow ?? 300_000) / 1000) },
    },
    annotations: {},
    queries: given.map(({ signal }) => ({ kind: 'signal', signal })),
  };
}

function knativeRule(
  scaling: ScalingValue,
  { minReplicas, maxReplicas }: Bounds,
  path: Path,
  cx: ObjectContext,
): ScalingRule {
  const { concurrency, requestsPerSecond, window, idle } = scaling;
  if (concurrency !== null && requestsPerSecond !== null)
    cx.error(path, 'has concurrency and requestsPerSecond; rule knative takes one');
  const target = concurrency ?? requestsPerSecond;
  const policy: Partial<KpaSpec> = {
    metric: requestsPerSecond === null ? 'concurrency' : 'rps',
    minScale: minReplicas,
    maxScale: maxReplicas,
    ...(target !== null && { target }),
    ...(window !== null && { windowS: window / 1000 }),
    ...(idle !== null && { scaleToZeroPodRetentionPeriodS: idle / 1000 }),
  };
  try {
    kpaPolicy(policy);
  } catch (error) {
    if (!(error instanceof TokenmillError)) throw error;
    cx.error(path, reasonOf(error).replace('windowS', 'window in seconds'));
  }
  return { kind: 'kpa', policy };
}

function rolloutOf(value: RolloutValue | null, path: Path, cx: ObjectContext): RolloutSpec {
  if (value === null) return ROLLOUT;
  const strategy = value.strategy ?? ROLLOUT.strategy;
  const steps = (value.steps ?? []).map(({ percent, pause }) => ({ percent, pauseMs: pause ?? 0 }));
  if (strategy !== 'canary' && steps.length > 0) cx.error([...path, 'steps'], 'are for strategy: canary');
  if (strategy === 'canary' && steps.length === 0)
    cx.error(path, 'steps is missing: strategy canary goes by them, e.g. [{percent: 10, pause: 5m}, {percent: 100}]');
  const grows = steps.every(({ percent }, i) => i === 0 || percent > (steps[i - 1] as { percent: number }).percent);
  if (!grows || (steps.length > 0 && steps.at(-1)?.percent !== 100))
    cx.error([...path, 'steps'], 'must grow, and end with percent: 100');
  const { analysis } = value;
  return {
    strategy,
    maxSurge: value.maxSurge ?? ROLLOUT.maxSurge,
    maxUnavailable: value.maxUnavailable ?? ROLLOUT.maxUnavailable,
    steps,
    analysis: analysis && {
      errorRateMargin: analysis.errorRateMargin ?? ANALYSIS.errorRateMargin,
      ttftRatio: analysis.ttftRatio ?? ANALYSIS.ttftRatio,
      tpotRatio: analysis.tpotRatio ?? ANALYSIS.tpotRatio,
      alpha: analysis.falseAlarm ?? ANALYSIS.alpha,
      maxRequests: analysis.maxRequests ?? ANALYSIS.maxRequests,
      promote: analysis.promote ?? ANALYSIS.promote,
      rollback: analysis.rollback ?? ANALYSIS.rollback,
    },
    progressDeadlineMs: value.progressDeadline ?? ROLLOUT.progressDeadlineMs,
    revisionHistoryLimit: value.history ?? ROLLOUT.revisionHistoryLimit,
  };
}

function trafficOf(
  { name, traffic }: ModelValue,
  canaries: readonly CanarySpec[],
  { cx, path }: ModelScope,
): TrafficSpec {
  if (traffic === null) return TRAFFIC;
  const at = [...path, 'traffic'];
  const pins = (traffic.pins ?? []).map(({ header, value, to }, i) => {
    checkRevision(to, name, canaries, [...at, 'pins', i, 'to'], cx);
    return { header: header.toLowerCase(), value, to };
  });
  const { queue } = traffic;
  return {
    pins,
    stickyBy: traffic.stickyBy?.toLowerCase() ?? null,
    shadow: traffic.shadow && { to: traffic.shadow.to, percent: traffic.shadow.percent },
    queue: {
      maxRequests: queue?.maxRequests ?? TRAFFIC.queue.maxRequests,
      maxBytes: queue?.maxBytes?.value ?? TRAFFIC.queue.maxBytes,
      ttlMs: queue?.ttl ?? TRAFFIC.queue.ttlMs,
      coldTtlMs: queue?.coldTtl ?? TRAFFIC.queue.coldTtlMs,
    },
    fallbacks: traffic.fallbacks ?? [],
    priority: traffic.priority ?? TRAFFIC.priority,
    hedgeAfterMs: traffic.hedgeAfter ?? TRAFFIC.hedgeAfterMs,
    idleTimeoutMs: traffic.idleTimeout ?? TRAFFIC.idleTimeoutMs,
  };
}

/** A canary, a tag, or a revision of this model by its number. */
function checkRevision(
  to: string,
  model: string,
  canaries: readonly CanarySpec[],
  path: Path,
  cx: ObjectContext,
): void {
  const names = [...canaries.map(({ name }) => name), ...RESERVED];
  const numbered = to.startsWith(`${model}-`) && /^\d{5,}$/.test(to.slice(model.length + 1));
  if (names.includes(to) || numbered) return;
  const near = nearestName(to, names);
  cx.error(
    path,
    `there is no revision ${to}; ${near ? `did you mean ${near}?` : `there are ${names.join(', ')} and ${model}-00001 ...`}`,
  );
}

function gatewayOf(value: GatewayValue, base: GatewaySpec, cx: ObjectContext): GatewaySpec {
  const names = new Set<string>();
  for (const [i, { name }] of (value.externals ?? []).entries()) {
    if (names.has(name)) cx.error(['gateway', 'externals', i, 'name'], `${name} is given twice`);
    names.add(name);
  }
  return {
    host: value.host ?? base.host,
    port: value.port ?? base.port,
    externals: (value.externals ?? []).map(({ name, url, model, keyEnv }) => ({ name, url, model, keyEnv })),
    scorers: { ...value.scorers },
    objectives: { ...value.objectives },
    requireKey: value.requireKey ?? base.requireKey,
  };
}
