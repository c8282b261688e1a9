/**
 * What scaling rules see: the gateway's counters and the replicas' metrics, kept as samples. Owned here; the rules get values.
 */
import { TokenmillError } from '../../base/errors.ts';
import type { ScaleObserved } from '../autoscaler/scale_decision.ts';
import {
  gatewaySample,
  NO_SAMPLES,
  type ReplicaGauges,
  type ServiceSamples,
  type Signals,
  signals,
  withGatewaySample,
  withReplicaSample,
} from '../autoscaler/signals.ts';
import { queryValue } from '../autoscaler/trigger_query.ts';
import type { GatewayStats } from '../gateway/routing_table.ts';
import { SampleStore } from '../promql/sample_store.ts';
import type { ScalingRule, ServiceSpec, TriggerQuery } from '../spec/fleet_spec.ts';
import { type Exposed, parseExposition } from './exposition.ts';
import type { MeasuredFootprints, ProcessUse } from './machine_observed.ts';
import type { ReplicaRecord } from './replica_lifecycle.ts';
import { urlOf } from './replicas.ts';

/** Knative's stable window, where the service says nothing. */
const STABLE_WINDOW_MS = 60_000;
const SCRAPE_TIMEOUT_MS = 1000;
const MAX_METRICS_BYTES = 4 << 20;
const MAX_SAMPLES_A_SCRAPE = 5000;

export interface ObserverOptions {
  /** Body of `/metrics`; null = no answer in time. */
  readonly scrape: (url: string, timeoutMs: number, maxBytes: number) => Promise<string | null>;
  readonly use: (process: NonNullable<ReplicaRecord['process']>) => ProcessUse | null;
  readonly measured: MeasuredFootprints;
}

interface Kept {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
}

interface LastUse {
  readonly at: number;
  readonly cpuMs: number;
}

export class Observer {
  private readonly options: ObserverOptions;
  private readonly store = new SampleStore();
  private readonly samples = new Map<string, ServiceSamples>();
  private readonly series = new Map<string, Map<string, Kept>>();
  private readonly lastUse = new Map<string, LastUse>();
  private stats: GatewayStats | null = null;

  constructor(options: ObserverOptions) {
    this.options = options;
  }

  /** The last that the gateway said; null before it has spoken. */
  gatewayStats(): GatewayStats | null {
    return this.stats;
  }

  /** @param at of our clock, when they were asked for */
  noteStats(stats: GatewayStats, services: readonly ServiceSpec[], at: number): void {
    this.stats = stats;
    const ids = new Set(services.map(({ id }) => id));
    for (const id of this.samples.keys()) if (!ids.has(id)) this.samples.delete(id);
    for (const { id, scaling } of services) {
      const sample = gatewaySample(stats, id, at);
      if (sample === null) continue;
      const before = this.samples.get(id) ?? NO_SAMPLES;
      this.samples.set(id, withGatewaySample(before, sample, Math.max(60_000, stableWindowMs(scaling.rule))));
    }
  }

  /** One round over the replicas that are ready. Resolves when all have answered or were given up. */
  async scrape(records: readonly ReplicaRecord[], now: number): Promise<void> {
    const ready = records.filter(({ phase, process }) => phase === 'ready' && process !== null);
    this.endOthers(new Set(ready.map(({ id }) => id)), now);
    const gauges = await Promise.all(ready.map((record) => this.scrapeOne(record, now)));
    const byService = new Map<string, ReplicaGauges[]>();
    for (const [i, record] of ready.entries()) {
      const of = byService.get(record.service) ?? [];
      const found = gauges[i];
      if (found != null) of.push(found);
      byService.set(record.service, of);
    }
    for (const [service, replicas] of byService) {
      const before = this.samples.get(service) ?? NO_SAMPLES;
      this.samples.set(service, withReplicaSample(before, { at: now, replicas }));
    }
    const alive = new Set(records.map(({ id }) => id));
    for (const id of this.lastUse.keys()) if (!alive.has(id)) this.lastUse.delete(id);
  }

  signals(service: ServiceSpec, now: number): Signals {
    const samples = this.samples.get(service.id) ?? NO_SAMPLES;
    return signals(samples, now, { stableWindowMs: stableWindowMs(service.scaling.rule) });
  }

  scaleObserved(
    service: ServiceSpec,
    counts: Pick<ScaleObserved, 'replicas' | 'readyReplicas' | 'startMs' | 'wakeMs'>,
    now: number,
  ): ScaleObserved {
    const known = this.signals(service, now);
    const values = queriesOf(service.scaling.rule).map((query) => queryValue(query, this.store, known, now));
    return { ...counts, values, signals: known };
  }

  private async scrapeOne(record: ReplicaRecord, now: number): Promise<ReplicaGauges | null> {
    const text = await this.options.scrape(`${urlOf(record)}/metrics`, SCRAPE_TIMEOUT_MS, MAX_METRICS_BYTES);
    const use = record.process === null ? null : this.options.use(record.process);
    if (use !== null) this.options.measured.note(record.revision, use);
    if (text === null) return null;
    const exposed = parseExposition(text, MAX_SAMPLES_A_SCRAPE);
    this.keep(record, exposed, now);
    const { cpuMilli, memoryBytes } = record.template;
    return {
      id: record.id,
      running: total(exposed, 'vllm:num_requests_running'),
      waiting: total(exposed, 'vllm:num_requests_waiting'),
      kvCacheUsage: total(exposed, 'vllm:kv_cache_usage_perc'),
      cpuMilli: use === null ? null : this.cpuMilli(record.id, use, now),
      cpuLimitMilli: cpuMilli,
      memoryBytes: use?.residentBytes ?? null,
      memoryLimitBytes: memoryBytes,
    };
  }

  /** With the labels that a cluster's scrape would add. Series that a replica no longer has end here. */
  private keep(record: ReplicaRecord, exposed: readonly Exposed[], now: number): void {
    const [namespace = '', service = ''] = record.service.split('/');
    const instance = `127.0.0.1:${record.port}`;
    const target = { namespace, service, pod: record.id, instance, revision: record.revision };
    const before = this.series.get(record.id) ?? new Map<string, Kept>();
    const current = new Map<string, Kept>();
    this.series.set(record.id, current);
    for (const { name, labels, value } of exposed) {
      const all = { ...labels, ...target };
      try {
        this.store.add(name, all, now, value);
      } catch (error) {
        // Too many series: what is known already goes on, the rest of this replica stays unknown.
        if (error instanceof TokenmillError) break;
        throw error;
      }
      const key = JSON.stringify([name, labels]);
      before.delete(key);
      current.set(key, { name, labels: all });
    }
    for (const { name, labels } of before.values()) this.store.end(name, labels, now);
  }

  /** Of replicas that serve no more: a sum over all is not to hold the last words of the dead. */
  private endOthers(ready: ReadonlySet<string>, now: number): void {
    for (const [id, series] of this.series) {
      if (ready.has(id)) continue;
      for (const { name, labels } of series.values()) this.store.end(name, labels, now);
      this.series.delete(id);
    }
  }

  private cpuMilli(id: string, use: ProcessUse, now: number): number | null {
    const last = this.lastUse.get(id);
    this.lastUse.set(id, { at: now, cpuMs: use.cpuMs });
    if (last === undefined || now <= last.at || use.cpuMs < last.cpuMs) return null;
    return (1000 * (use.cpuMs - last.cpuMs)) / (now - last.at);
  }
}

function total(exposed: readonly Exposed[], name: string): number | null {
  const values = exposed.filter((sample) => sample.name === name).map(({ value }) => value);
  return values.length === 0 ? null : values.reduce((sum, value) => sum + value, 0);
}

function stableWindowMs(rule: ScalingRule): number {
  return rule.kind === 'kpa' && rule.policy.windowS !== undefined ? rule.policy.windowS * 1000 : STABLE_WINDOW_MS;
}

function queriesOf(rule: ScalingRule): readonly TriggerQuery[] {
  if (rule.kind === 'keda') return rule.queries;
  return rule.kind === 'hpa' ? rule.metrics.map(({ query }) => query) : [];
}
