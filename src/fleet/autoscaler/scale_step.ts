/** What the adapters of `scaler.ts` have in common: the result of one rule, the HorizontalPodAutoscaler's metrics, words for reasons. */
import type { TriggerQuery } from '../spec/fleet_spec.ts';
import type { HpaDecision } from './hpa.ts';
import type { HpaMetric } from './hpa_metric.ts';
import { fromMilli } from './milli.ts';

export interface RuleStep<Memory> {
  /** Before the bounds of the service. */
  readonly replicas: number;
  readonly reason: string;
  readonly memory: Memory;
  /** ms */
  readonly nextAt: number;
}

/** `--horizontal-pod-autoscaler-sync-period` of a controller manager. */
export const HPA_PERIOD_MS = 15_000;

/** The time has come, or the clock was set back. */
export function isDue(nextAt: number, periodMs: number, now: number): boolean {
  return now >= nextAt || nextAt > now + periodMs;
}

const MAX_QUERY_CHARS = 60;

export function queryName(query: TriggerQuery): string {
  switch (query.kind) {
    case 'promql':
      return query.query.length > MAX_QUERY_CHARS ? `${query.query.slice(0, MAX_QUERY_CHARS)}...` : query.query;
    case 'cron':
      return `cron ${query.start} to ${query.end} (${query.timezone})`;
    case 'resource':
      return query.resource;
    case 'signal':
      return query.signal;
  }
}

/** 3 digits are enough to check a decision by. */
export function shortNumber(value: number): string {
  return Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(3)));
}

const PER: Readonly<Record<HpaMetric['type'], string>> = {
  AverageValue: 'each',
  Value: 'in all',
  Resource: 'on average',
};

/** `waiting 12 of 5 each asks for 3; 2 -> 3`. `samples` in thousandths, null = no answer. */
export function hpaReason(
  metrics: readonly HpaMetric[],
  samples: readonly (readonly number[] | null)[],
  before: number,
  { replicas, reason, trace, memory }: HpaDecision,
): string {
  const change = before === replicas ? `stays ${replicas}` : `${before} -> ${replicas}`;
  if (trace.proposals === null) return `${reason || 'off at 0 replicas'}; ${change}`;
  const asks = metrics.map(({ name, type, target }, at) => {
    const proposal = trace.proposals?.[at] ?? null;
    const sample = samples[at] ?? null;
    const value = sample === null ? null : fromMilli(sample.reduce((sum, part) => sum + part, 0));
    if (value === null || proposal === null) return `${name} has no answer`;
    return `${name} ${shortNumber(value)} of ${shortNumber(fromMilli(target))} ${PER[type]} asks for ${proposal}`;
  });
  const { able, limited } = memory.conditions;
  const held = able.endsWith('Stabilized') ? [able] : [];
  const cut = limited === '' || limited.startsWith('-') ? [] : [limited];
  const why = trace.metric === null ? ['no metric to decide by'] : [...held, ...cut];
  return `${asks.join(', ')}; ${change}${why.length > 0 ? ` (${why.join(', ')})` : ''}`;
}
