/** What the control loop of a simulation sees: the gateway's statistics every round, the replicas' metrics every scrape. */
import type { ScaleObserved } from '../autoscaler/scale_decision.ts';
import {
  gatewaySample,
  NO_SAMPLES,
  type ReplicaGauges,
  type ServiceSamples,
  signals,
  withGatewaySample,
  withReplicaSample,
} from '../autoscaler/signals.ts';
import { queryValue } from '../autoscaler/trigger_query.ts';
import { SampleStore } from '../promql/sample_store.ts';
import type { ServiceSpec, TriggerQuery } from '../spec/fleet_spec.ts';
import type { Faults } from './replica_model.ts';
import type { SimFleet } from './sim_fleet.ts';
import type { SimGateway } from './sim_gateway.ts';

const SAMPLE_MS = 2000;

/** Once a replica is gone its series end. */
const GAUGES = ['vllm:num_requests_running', 'vllm:num_requests_waiting', 'vllm:kv_cache_usage_perc'] as const;

export class Scraper {
  private readonly service: ServiceSpec;
  private readonly gateway: SimGateway;
  private readonly replicas: SimFleet;
  private readonly faults: Faults;
  private readonly startAt: number;
  private readonly scrapeMs: number;
  private readonly slots: number;
  private readonly store = new SampleStore({ maxSamplesPerSeries: 256 });
  private readonly queries: readonly TriggerQuery[];
  private samples: ServiceSamples = NO_SAMPLES;
  private sampledAt = Number.NEGATIVE_INFINITY;
  private scrapedAt = Number.NEGATIVE_INFINITY;
  private scraped = new Set<number>();

  constructor(
    service: ServiceSpec,
    gateway: SimGateway,
    replicas: SimFleet,
    options: {
      readonly faults: Faults;
      readonly startAt: number;
      readonly scrapeMs: number;
      readonly model: { readonly slots: number };
    },
  ) {
    this.service = service;
    this.gateway = gateway;
    this.replicas = replicas;
    this.faults = options.faults;
    this.startAt = options.startAt;
    this.scrapeMs = options.scrapeMs;
    this.slots = options.model.slots;
    const { rule } = service.scaling;
    this.queries =
      rule.kind === 'keda' ? rule.queries : rule.kind === 'hpa' ? rule.metrics.map(({ query }) => query) : [];
  }

  observe(now: number): void {
    if (this.isMissing(now)) return;
    // A request held at zero is news of its own.
    if (now - this.sampledAt >= SAMPLE_MS || this.replicas.servingCount === 0) this.sample(now);
    if (now - this.scrapedAt >= this.scrapeMs) this.scrape(now);
  }

  scaleObserved(replicas: number, now: number): ScaleObserved {
    const at = this.startAt + now;
    const isMissing = this.isMissing(now);
    const known = signals(this.samples, at, this.signalOptions);
    return {
      replicas,
      readyReplicas: Math.min(replicas, this.replicas.readyCount),
      values: this.queries.map((query) => (isMissing ? null : queryValue(query, this.store, known, at))),
      signals: known,
      startMs: this.replicas.startMs,
      wakeMs: this.replicas.wakeMs,
    };
  }

  private get signalOptions(): { readonly stableWindowMs: number } {
    const { rule } = this.service.scaling;
    return { stableWindowMs: rule.kind === 'kpa' ? (rule.policy.windowS ?? 60) * 1000 : 60_000 };
  }

  private isMissing(now: number): boolean {
    return this.faults.missing.some(({ fromMs, toMs }) => now >= fromMs && now < toMs);
  }

  private sample(now: number): void {
    this.sampledAt = now;
    const at = this.startAt + now;
    const sample = gatewaySample(this.gateway.stats(this.service.id, now), this.service.id, at);
    const keepMs = Math.max(60_000, this.signalOptions.stableWindowMs);
    if (sample !== null) this.samples = withGatewaySample(this.samples, sample, keepMs);
  }

  private scrape(now: number): void {
    this.scrapedAt = now;
    const at = this.startAt + now;
    const ready = this.replicas.ready;
    const gauges = ready.map(
      ({ index, running, queued }): ReplicaGauges => ({
        id: `r${index}`,
        running,
        waiting: queued,
        kvCacheUsage: Math.min(1, running / this.slots),
        cpuMilli: null,
        cpuLimitMilli: null,
        memoryBytes: null,
        memoryLimitBytes: null,
      }),
    );
    this.samples = withReplicaSample(this.samples, { at, replicas: gauges });
    if (!this.queries.some(({ kind }) => kind === 'promql')) return;
    for (const { id, running, waiting, kvCacheUsage } of gauges) {
      for (const [place, value] of [running, waiting, kvCacheUsage].entries()) {
        this.store.add(GAUGES[place] as string, this.labels(id), at, value as number);
      }
    }
    const there = new Set(ready.map(({ index }) => index));
    for (const gone of this.scraped) {
      if (!there.has(gone)) for (const name of GAUGES) this.store.end(name, this.labels(`r${gone}`), at);
    }
    this.scraped = there;
  }

  private labels(replica: string) {
    return { model_name: this.service.models[0] ?? this.service.id, replica };
  }
}
