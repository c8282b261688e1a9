/** The metrics table as live prom-client objects: one registry a server, nothing global. */
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry, Summary } from 'prom-client';
import { bucketsOf, type CustomBuckets } from './buckets.ts';
import { METRICS, type MetricDefinition, type MetricName, metricNames } from './definitions.ts';

export interface MetricsOptions {
  readonly modelName: string;
  /** Data-parallel index as text; `0` alone. */
  readonly engine?: string;
  readonly maxModelLen: number;
  /** Also export the names of older vLLM versions. */
  readonly legacy?: boolean;
  readonly customBuckets?: CustomBuckets;
  /** False leaves out what the engine reports (`--disable-log-stats`); writes to it are ignored. Default true. */
  readonly engineFamilies?: boolean;
  /** process_* and nodejs_* metrics. Default true. */
  readonly processMetrics?: boolean;
}

type Labels = Readonly<Record<string, string>>;
/** Writes to one child whose labels are bound; what the hot path holds. */
export type Write = (value: number) => void;

type Live = Counter | Gauge | Histogram | Summary;

function makeMetric(name: MetricName, definition: MetricDefinition, registry: Registry, options: MetricsOptions): Live {
  const common = { name, help: definition.help, labelNames: Object.keys(definition.labels), registers: [registry] };
  switch (definition.type) {
    case 'gauge':
      return new Gauge(common);
    case 'counter':
      return new Counter(common);
    case 'summary':
      return new Summary({ ...common, percentiles: [] });
    case 'histogram':
      return new Histogram({
        ...common,
        buckets: bucketsOf(definition.buckets ?? 'request_latency', options.maxModelLen, options.customBuckets),
      });
  }
}

const ignore: Write = () => {};

/** Every combination of the closed label values, with the engine's own labels filled in; none when a label is open. */
function knownChildren(definition: MetricDefinition, fixed: Labels): Labels[] {
  let children: Labels[] = [{}];
  for (const [label, values] of Object.entries(definition.labels)) {
    const options = values ?? (fixed[label] === undefined ? null : [fixed[label]]);
    if (options === null) return [];
    children = children.flatMap((child) => options.map((value) => ({ ...child, [label]: value })));
  }
  return children;
}

export class MetricsRegistry {
  readonly contentType: string;
  private readonly registry = new Registry();
  private readonly live = new Map<MetricName, Live>();
  private readonly fixed: Labels;

  constructor(options: MetricsOptions) {
    this.contentType = this.registry.contentType;
    this.fixed = { model_name: options.modelName, engine: options.engine ?? '0' };
    for (const name of metricNames({ legacy: options.legacy ?? false })) {
      if (options.engineFamilies === false && 'model_name' in METRICS[name].labels) continue;
      const definition: MetricDefinition = METRICS[name];
      this.live.set(name, makeMetric(name, definition, this.registry, options));
      // Children exist from the start with 0, so that rate() works from the first scrape.
      for (const labels of knownChildren(definition, this.fixed)) this.zero(name, labels);
    }
    if (options.processMetrics ?? true) collectDefaultMetrics({ register: this.registry });
  }

  has(name: MetricName): boolean {
    return this.live.has(name);
  }

  private zero(name: MetricName, labels: Labels): void {
    const metric = this.live.get(name);
    if (metric instanceof Histogram) metric.zero(labels);
    else if (metric instanceof Gauge) metric.set(labels, 0);
    else if (metric instanceof Counter) metric.inc(labels, 0);
  }

  /** Adds to a counter; like `gauge` and `observer`, model_name and engine are filled in, and a metric that is off ignores it. */
  counter(name: MetricName, labels: Labels = {}): Write {
    const metric = this.live.get(name);
    if (!(metric instanceof Counter)) return ignore;
    const bound = metric.labels(this.labelsOf(name, labels));
    return (value) => bound.inc(value);
  }

  gauge(name: MetricName, labels: Labels = {}): Write {
    const metric = this.live.get(name);
    if (!(metric instanceof Gauge)) return ignore;
    const bound = metric.labels(this.labelsOf(name, labels));
    return (value) => bound.set(value);
  }

  /** Observes into a histogram or summary. */
  observer(name: MetricName, labels: Labels = {}): Write {
    const metric = this.live.get(name);
    if (!(metric instanceof Histogram || metric instanceof Summary)) return ignore;
    const bound = metric.labels(this.labelsOf(name, labels));
    return (value) => bound.observe(value);
  }

  private labelsOf(name: MetricName, labels: Labels): Labels {
    const all: Record<string, string> = { ...labels };
    for (const [label, value] of Object.entries(this.fixed)) if (label in METRICS[name].labels) all[label] = value;
    return all;
  }

  /** The Prometheus text form. */
  text(): Promise<string> {
    return this.registry.metrics();
  }
}
