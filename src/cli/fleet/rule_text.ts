/** Rules of scaling and durations in words. */
import { UNBOUNDED_REPLICAS } from '../../fleet/spec/defaults.ts';
import type { ScalingRule, ScalingSpec, TriggerQuery } from '../../fleet/spec/fleet_spec.ts';

/** `2`, `0..4, 1 asleep` */
export function replicasText({ minReplicas, maxReplicas, standby }: ScalingSpec): string {
  const most = maxReplicas >= UNBOUNDED_REPLICAS ? 'as many as fit' : String(maxReplicas);
  const range = minReplicas === maxReplicas ? String(minReplicas) : `${minReplicas}..${most}`;
  return standby === 0 ? range : `${range}, ${standby} asleep beside`;
}

/** One line for the rule, and one for each thing it looks at. */
export function ruleLines({ rule, minReplicas }: ScalingSpec): string[] {
  switch (rule.kind) {
    case 'fixed':
      return ['none'];
    case 'hpa':
      return [
        `every 15s as the HorizontalPodAutoscaler does${rule.behavior === null ? '' : ', with its behavior'}`,
        ...rule.metrics.map(
          ({ query, metricType, target }) => `${queryText(query)}: ${targetText(query, metricType, target)}`,
        ),
      ];
    case 'keda':
      return kedaLines(rule, minReplicas);
    case 'kpa': {
      const { metric = 'concurrency', target, containerConcurrency, windowS = 60 } = rule.policy;
      const aim = target ?? (containerConcurrency || (metric === 'rps' ? 200 : 100));
      const what = metric === 'rps' ? 'requests a second' : 'requests in flight';
      return [`as Knative does, every 2s over ${windowS}s: ${aim} ${what} a replica`];
    }
    case 'proactive': {
      const { ttftMs, tpotMs, concurrency, idleMs } = rule.policy;
      const aims = [
        ttftMs === null ? null : `first token within ${durationText(ttftMs)} at p95`,
        tpotMs === null ? null : `${tpotMs}ms a token at p95`,
        `requests in flight a replica: ${concurrency ?? 'learned'}`,
        minReplicas === 0 ? `to zero after ${durationText(idleMs)} without a request` : null,
      ];
      return ['ahead of demand, by the arrivals and the time a start takes', ...aims.filter((aim) => aim !== null)];
    }
  }
}

type KedaRule = Extract<ScalingRule, { kind: 'keda' }>;

function kedaLines({ object, queries, pollingIntervalMs, behavior }: KedaRule, least: number): string[] {
  const { cooldownPeriod, idleReplicaCount, fallback, scalingModifiers, triggers } = object;
  const cooldown = durationText((cooldownPeriod ?? 300) * 1000);
  const zero = least === 0 || idleReplicaCount === 0 ? `, to zero after ${cooldown}` : '';
  return [
    `as KEDA does, every ${durationText(pollingIntervalMs)}${zero}${behavior === null ? '' : ', with its behavior'}`,
    ...queries.map((query, i) => {
      const trigger = triggers[i];
      const { metricType = 'AverageValue', threshold = 1, activationThreshold = 0 } = trigger ?? {};
      const active = query.kind === 'promql' || query.kind === 'signal' ? `, wakes above ${activationThreshold}` : '';
      return `${queryText(query)}: ${targetText(query, metricType, threshold)}${active}`;
    }),
    ...(scalingModifiers ? [`formula ${scalingModifiers.formula}: target ${scalingModifiers.target}`] : []),
    ...(fallback
      ? [
          `${fallback.replicas} replicas after ${fallback.failureThreshold} failures in a row (${fallback.behavior ?? 'static'})`,
        ]
      : []),
  ];
}

function queryText(query: TriggerQuery): string {
  switch (query.kind) {
    case 'promql':
      return query.query;
    case 'cron':
      return `from "${query.start}" to "${query.end}" in ${query.timezone}`;
    case 'resource':
      return query.resource;
    case 'signal':
      return query.signal;
  }
}

function targetText(query: TriggerQuery, metricType: string, target: number): string {
  if (query.kind === 'cron') return `${query.desired} replicas`;
  if (query.kind === 'resource')
    return query.utilization ? `${target}% of what a replica asks for` : `${target} a replica`;
  return metricType === 'AverageValue' ? `${target} a replica` : `${target}`;
}

/** `1m30s`, `500ms` */
export function durationText(ms: number): string {
  if (ms === 0) return '0s';
  const parts = [
    [Math.floor(ms / 3_600_000), 'h'],
    [Math.floor(ms / 60_000) % 60, 'm'],
    [Math.floor(ms / 1000) % 60, 's'],
    [Number((ms % 1000).toFixed(3)), 'ms'],
  ] as const;
  return parts.flatMap(([count, unit]) => (count > 0 ? [`${count}${unit}`] : [])).join('') || `${ms}ms`;
}
