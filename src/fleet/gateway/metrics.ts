/** THE table of the gateway's metrics, and their text made from the counters of the services when somebody asks. */
import { collectDefaultMetrics, type Metric, Registry } from 'prom-client';
import type { MetricDefinition } from '../../metrics/definitions.ts';
import type { GatewayStats, Histogram } from './routing_table.ts';

type FleetMetric = Omit<MetricDefinition, 'buckets' | 'legacy'>;

const SERVICE = { service: null } as const;
const REVISION = { service: null, revision: null } as const;
const ENDPOINT = { service: null, endpoint: null } as const;

export const FLEET_METRICS = {
  tokenmill_fleet_table_version: { type: 'gauge', unit: 'info', labels: {}, help: 'Version of the routing table.' },
  tokenmill_fleet_connections: { type: 'gauge', unit: 'count', labels: {}, help: 'Connections of clients.' },
  tokenmill_fleet_body_bytes: { type: 'gauge', unit: 'bytes', labels: {}, help: 'Bytes of request bodies in memory.' },
  tokenmill_fleet_arrivals_total: {
    type: 'counter',
    unit: 'requests',
    labels: SERVICE,
    help: 'Requests that arrived, refused ones included.',
  },
  tokenmill_fleet_refused_total: {
    type: 'counter',
    unit: 'requests',
    labels: SERVICE,
    help: 'Requests that no replica was asked for: queue full, held too long, no replica.',
  },
  tokenmill_fleet_held: {
    type: 'gauge',
    unit: 'requests',
    labels: SERVICE,
    help: 'Requests held until a replica has room.',
  },
  tokenmill_fleet_in_flight: { type: 'gauge', unit: 'requests', labels: SERVICE, help: 'Requests with a replica.' },
  tokenmill_fleet_retries_total: {
    type: 'counter',
    unit: 'count',
    labels: SERVICE,
    help: 'Second tries at another replica before a byte of an answer went out.',
  },
  tokenmill_fleet_hedges_total: {
    type: 'counter',
    unit: 'count',
    labels: SERVICE,
    help: 'Second tries beside a first one that was silent.',
  },
  tokenmill_fleet_fallbacks_total: {
    type: 'counter',
    unit: 'count',
    labels: SERVICE,
    help: 'Requests of the service that went to a fallback.',
  },
  tokenmill_fleet_aborts_total: {
    type: 'counter',
    unit: 'requests',
    labels: SERVICE,
    help: 'Requests whose client left before the end.',
  },
  tokenmill_fleet_shadows_total: {
    type: 'counter',
    unit: 'requests',
    labels: { service: null, outcome: ['sent', 'dropped'] },
    help: 'Copies to shadows and mirrors; dropped = too many were under way.',
  },
  tokenmill_fleet_requests_total: {
    type: 'counter',
    unit: 'requests',
    labels: REVISION,
    help: 'Requests sent to replicas of the revision, retries included.',
  },
  tokenmill_fleet_errors_total: {
    type: 'counter',
    unit: 'requests',
    labels: REVISION,
    help: 'Of those: 5xx, broken answers, timeouts.',
  },
  tokenmill_fleet_prompt_tokens_total: {
    type: 'counter',
    unit: 'tokens',
    labels: REVISION,
    help: 'Prompt tokens, as replicas told or as estimated from bytes.',
  },
  tokenmill_fleet_output_tokens_total: {
    type: 'counter',
    unit: 'tokens',
    labels: REVISION,
    help: 'Generated tokens, as replicas told or as events of streams.',
  },
  tokenmill_fleet_time_to_first_token_seconds: {
    type: 'histogram',
    unit: 'seconds',
    labels: REVISION,
    help: 'From sending a request to the first byte of its stream.',
  },
  tokenmill_fleet_time_per_output_token_seconds: {
    type: 'histogram',
    unit: 'seconds',
    labels: REVISION,
    help: 'Mean time between tokens of a stream.',
  },
  tokenmill_fleet_endpoint_in_flight: {
    type: 'gauge',
    unit: 'requests',
    labels: ENDPOINT,
    help: 'Requests with the replica.',
  },
  tokenmill_fleet_endpoint_ejected: {
    type: 'gauge',
    unit: 'info',
    labels: ENDPOINT,
    help: '1 = left out for a while because it failed.',
  },
  tokenmill_fleet_usage_rows_dropped_total: {
    type: 'counter',
    unit: 'count',
    labels: {},
    help: 'Rows of usage of keys that could not be kept until they were written.',
  },
} as const satisfies Record<string, FleetMetric>;

export type FleetMetricName = keyof typeof FLEET_METRICS;
type Labels = Readonly<Record<string, string>>;

interface Value {
  readonly metricName?: string;
  readonly labels: Labels;
  readonly value: number;
}

export interface ServiceCounters {
  readonly retries: number;
  readonly hedges: number;
  readonly fallbacks: number;
  readonly aborts: number;
  readonly shadowsSent: number;
  readonly shadowsDropped: number;
}

export interface MetricSources {
  readonly stats: GatewayStats;
  readonly connections: number;
  readonly bodyBytes: number;
  readonly usageRowsDropped: number;
  readonly counters: ReadonlyMap<string, ServiceCounters>;
}

function histogramValues(name: string, labels: Labels, histogram: Histogram): Value[] {
  const values: Value[] = [];
  let total = 0;
  for (const [i, count] of histogram.counts.entries()) {
    total += count;
    const bound = histogram.bounds[i];
    const le = bound === undefined ? '+Inf' : String(bound / 1000);
    values.push({ metricName: `${name}_bucket`, labels: { ...labels, le }, value: total });
  }
  values.push({ metricName: `${name}_sum`, labels, value: histogram.sum / 1000 });
  values.push({ metricName: `${name}_count`, labels, value: total });
  return values;
}

type Add = (name: FleetMetricName, labels: Labels, value: number | Histogram) => void;

function addServices({ stats, counters }: MetricSources, add: Add): void {
  for (const [service, of] of Object.entries(stats.services)) {
    const more = counters.get(service);
    add('tokenmill_fleet_arrivals_total', { service }, of.arrivals);
    add('tokenmill_fleet_refused_total', { service }, of.refused);
    add('tokenmill_fleet_held', { service }, of.waiting);
    add('tokenmill_fleet_in_flight', { service }, of.inFlight);
    add('tokenmill_fleet_retries_total', { service }, more?.retries ?? 0);
    add('tokenmill_fleet_hedges_total', { service }, more?.hedges ?? 0);
    add('tokenmill_fleet_fallbacks_total', { service }, more?.fallbacks ?? 0);
    add('tokenmill_fleet_aborts_total', { service }, more?.aborts ?? 0);
    add('tokenmill_fleet_shadows_total', { service, outcome: 'sent' }, more?.shadowsSent ?? 0);
    add('tokenmill_fleet_shadows_total', { service, outcome: 'dropped' }, more?.shadowsDropped ?? 0);
    for (const [revision, counts] of Object.entries(of.revisions)) {
      const labels = { service, revision };
      add('tokenmill_fleet_requests_total', labels, counts.requests);
      add('tokenmill_fleet_errors_total', labels, counts.errors);
      add('tokenmill_fleet_prompt_tokens_total', labels, counts.promptTokens);
      add('tokenmill_fleet_output_tokens_total', labels, counts.outputTokens);
      add('tokenmill_fleet_time_to_first_token_seconds', labels, counts.ttftMs);
      add('tokenmill_fleet_time_per_output_token_seconds', labels, counts.tpotMs);
    }
    for (const [endpoint, { inFlight, ejected }] of Object.entries(of.endpoints)) {
      add('tokenmill_fleet_endpoint_in_flight', { service, endpoint }, inFlight);
      add('tokenmill_fleet_endpoint_ejected', { service, endpoint }, ejected ? 1 : 0);
    }
  }
}

function valuesOf(sources: MetricSources): Map<FleetMetricName, Value[]> {
  const values = new Map<FleetMetricName, Value[]>();
  for (const name of Object.keys(FLEET_METRICS) as FleetMetricName[]) values.set(name, []);
  const add: Add = (name, labels, value) => {
    const list = values.get(name) as Value[];
    if (typeof value === 'number') list.push({ labels, value });
    else list.push(...histogramValues(name, labels, value));
  };
  add('tokenmill_fleet_table_version', {}, sources.stats.tableVersion);
  add('tokenmill_fleet_connections', {}, sources.connections);
  add('tokenmill_fleet_body_bytes', {}, sources.bodyBytes);
  add('tokenmill_fleet_usage_rows_dropped_total', {}, sources.usageRowsDropped);
  addServices(sources, add);
  return values;
}

export class GatewayMetrics {
  private readonly registry = new Registry();
  private values = new Map<FleetMetricName, Value[]>();

  constructor() {
    for (const name of Object.keys(FLEET_METRICS) as FleetMetricName[]) {
      const { type, help } = FLEET_METRICS[name];
      // The registry asks a metric for its name and for `get` only; the counts live with the services, not in prom-client.
      const metric = { name, help, type, get: async () => ({ name, help, type, values: this.values.get(name) ?? [] }) };
      this.registry.registerMetric(metric as unknown as Metric);
    }
    collectDefaultMetrics({ register: this.registry });
  }

  get contentType(): string {
    return this.registry.contentType;
  }

  /** The Prometheus text form. */
  text(sources: MetricSources): Promise<string> {
    this.values = valuesOf(sources);
    return this.registry.metrics();
  }
}
