/**
 * THE table of the fleet's signals: what scaling rules may name, and how each is computed from observations of one service.
 * `null` is not known and never 0: a signal needs an observation that is not older than `STALE_MS`, and a rate needs two.
 */
import type { GatewayStats, RevisionStats } from '../gateway/routing_table.ts';
import { addHistograms, histogramDifference, quantileOf } from './histogram.ts';

/** Of one service, from the gateway. `arrivals`, `refused` and all of the revisions are counters. */
export interface GatewaySample {
  /** ms, of the observer's clock. */
  readonly at: number;
  /** Counters of another epoch began again at 0. */
  readonly epoch: string;
  readonly waiting: number;
  readonly inFlight: number;
  readonly arrivals: number;
  readonly refused: number;
  readonly lastActiveAt: number | null;
  readonly revisions: Readonly<Record<string, RevisionStats>>;
}

/** One round of scraping the replicas that are ready; a replica that did not answer is left out. */
export interface ReplicaSample {
  readonly at: number;
  readonly replicas: readonly ReplicaGauges[];
}

/** null = that replica does not say. */
export interface ReplicaGauges {
  readonly id: string;
  /** `vllm:num_requests_running`, `vllm:num_requests_waiting`, `vllm:kv_cache_usage_perc`. */
  readonly running: number | null;
  readonly waiting: number | null;
  readonly kvCacheUsage: number | null;
  /** Of the process: thousandths of a core over the last round, resident bytes; and what it was given of each. */
  readonly cpuMilli: number | null;
  readonly cpuLimitMilli: number | null;
  readonly memoryBytes: number | null;
  readonly memoryLimitBytes: number | null;
}

/** Bounded rings, oldest first. */
export interface ServiceSamples {
  readonly gateway: readonly GatewaySample[];
  readonly replicas: readonly ReplicaSample[];
}

export interface SignalOptions {
  /** Of Knative's autoscaler, ms; the panic window is its tenth. */
  readonly stableWindowMs: number;
}

export const NO_SAMPLES: ServiceSamples = { gateway: [], replicas: [] };

const DEFAULT_OPTIONS: SignalOptions = { stableWindowMs: 60_000 };

/** Windows of rates and of latencies, ms. */
const WINDOW_MS = 60_000;
const SHORT_WINDOW_MS = 10_000;
/** Without an observation for this long nothing is known, ms. */
const STALE_MS = 30_000;
const MAX_SAMPLES = 4096;

interface SignalDefinition {
  readonly unit: 'requests' | '1/s' | 'tokens/s' | 'ms' | 'ratio' | 'percent' | 'milli' | 'bytes';
  /** What it means and how it is computed: the line of the docs. */
  readonly doc: string;
  readonly of: (seen: Seen) => number | null;
}

/** Samples not older than the stalest that count. */
interface Seen {
  readonly gateway: readonly GatewaySample[];
  readonly latest: GatewaySample | null;
  readonly replicas: ReplicaSample | null;
  readonly now: number;
  readonly options: SignalOptions;
}

export const SIGNALS = {
  waiting_requests: {
    unit: 'requests',
    doc: 'Requests nobody works on: held by the gateway, and waiting in the engines that were scraped.',
    of: ({ latest, replicas }) => latest && latest.waiting + (replicas ? sum(replicas, 'waiting') : 0),
  },
  in_flight: {
    unit: 'requests',
    doc: 'Requests the gateway has sent to a replica and that have not ended.',
    of: ({ latest }) => latest?.inFlight ?? null,
  },
  concurrency: {
    unit: 'requests',
    doc: 'Requests in flight and held by the gateway.',
    of: ({ latest }) => latest && concurrencyOf(latest),
  },
  concurrency_stable: {
    unit: 'requests',
    doc: "Average concurrency over the stable window of Knative's autoscaler (60 s unless the service says otherwise).",
    of: (seen) => average(seen, seen.options.stableWindowMs),
  },
  concurrency_panic: {
    unit: 'requests',
    doc: 'Average concurrency over the panic window, a tenth of the stable one.',
    of: (seen) => average(seen, seen.options.stableWindowMs / 10),
  },
  arrivals_per_second: {
    unit: '1/s',
    doc: 'Requests that arrived, refused ones included, per second over 60 s.',
    of: (seen) => serviceRate(seen, WINDOW_MS, 'arrivals'),
  },
  arrivals_per_second_10s: {
    unit: '1/s',
    doc: 'The same over 10 s.',
    of: (seen) => serviceRate(seen, SHORT_WINDOW_MS, 'arrivals'),
  },
  requests_per_second_stable: {
    unit: '1/s',
    doc: "Arrivals per second over the stable window of Knative's autoscaler.",
    of: (seen) => serviceRate(seen, seen.options.stableWindowMs, 'arrivals'),
  },
  requests_per_second_panic: {
    unit: '1/s',
    doc: 'Arrivals per second over the panic window.',
    of: (seen) => serviceRate(seen, seen.options.stableWindowMs / 10, 'arrivals'),
  },
  refused_per_second: {
    unit: '1/s',
    doc: 'Requests refused with 429 or 503 per second over 60 s.',
    of: (seen) => serviceRate(seen, WINDOW_MS, 'refused'),
  },
  error_ratio: {
    unit: 'ratio',
    doc: 'Share of the requests that ended in an error of the server, over 60 s; not known without requests.',
    of: (seen) => {
      const requests = revisionRate(seen, WINDOW_MS, 'requests');
      const errors = revisionRate(seen, WINDOW_MS, 'errors');
      return requests === null || errors === null || requests === 0 ? null : errors / requests;
    },
  },
  ttft_p95_ms: {
    unit: 'ms',
    doc: 'Time to the first token, 95th percentile over 60 s; not known without an answer in that time.',
    of: (seen) => latency(seen, 'ttftMs'),
  },
  tpot_p95_ms: {
    unit: 'ms',
    doc: 'Time per output token after the first, 95th percentile over 60 s.',
    of: (seen) => latency(seen, 'tpotMs'),
  },
  tokens_per_second: {
    unit: 'tokens/s',
    doc: 'Output tokens per second over 60 s.',
    of: (seen) => revisionRate(seen, WINDOW_MS, 'outputTokens'),
  },
  prompt_tokens_per_second: {
    unit: 'tokens/s',
    doc: 'Prompt tokens per second over 60 s.',
    of: (seen) => revisionRate(seen, WINDOW_MS, 'promptTokens'),
  },
  kv_cache_usage: {
    unit: 'ratio',
    doc: 'Share of the KV cache in use, average of the replicas that were scraped.',
    of: ({ replicas }) => replicas && mean(replicas, ({ kvCacheUsage }) => kvCacheUsage),
  },
  cpu: {
    unit: 'percent',
    doc: 'CPU time of a replica in percent of what it was given, average of the replicas that have a limit.',
    of: ({ replicas }) => replicas && mean(replicas, (r) => percent(r.cpuMilli, r.cpuLimitMilli)),
  },
  cpu_milli: {
    unit: 'milli',
    doc: 'CPU time of a replica in thousandths of a core, average.',
    of: ({ replicas }) => replicas && mean(replicas, ({ cpuMilli }) => cpuMilli),
  },
  memory: {
    unit: 'percent',
    doc: 'Resident memory of a replica in percent of what it was given, average of the replicas that have a limit.',
    of: ({ replicas }) => replicas && mean(replicas, (r) => percent(r.memoryBytes, r.memoryLimitBytes)),
  },
  memory_bytes: {
    unit: 'bytes',
    doc: 'Resident memory of a replica, average.',
    of: ({ replicas }) => replicas && mean(replicas, ({ memoryBytes }) => memoryBytes),
  },
  idle_ms: {
    unit: 'ms',
    doc: 'Since the last request arrived or ended; 0 while there is one, not known before the first.',
    of: ({ latest, now }) => {
      if (latest === null) return null;
      if (concurrencyOf(latest) > 0) return 0;
      return latest.lastActiveAt === null ? null : Math.max(0, now - latest.lastActiveAt);
    },
  },
} as const satisfies Readonly<Record<string, SignalDefinition>>;

export type SignalName = keyof typeof SIGNALS;

export type Signals = Readonly<Record<SignalName, number | null>>;

export function isSignal(name: string): name is SignalName {
  return Object.hasOwn(SIGNALS, name);
}

/** All signals of one service at `now`, ms. */
export function signals(samples: ServiceSamples, now: number, options: SignalOptions = DEFAULT_OPTIONS): Signals {
  const fresh = (at: number) => at <= now && now - at <= STALE_MS;
  const latest = samples.gateway.at(-1) ?? null;
  const replicas = samples.replicas.at(-1) ?? null;
  const seen: Seen = {
    gateway: samples.gateway,
    latest: latest !== null && fresh(latest.at) ? latest : null,
    replicas: replicas !== null && fresh(replicas.at) ? replicas : null,
    now,
    options,
  };
  const entries = Object.entries(SIGNALS).map(([name, { of }]) => [name, of(seen)]);
  return Object.fromEntries(entries) as Signals;
}

/** What the gateway says of one service; null when it does not know it. */
export function gatewaySample(stats: GatewayStats, service: string, at: number): GatewaySample | null {
  if (!Object.hasOwn(stats.services, service)) return null;
  const of = stats.services[service];
  if (of === undefined) return null;
  return {
    at,
    epoch: stats.epoch,
    waiting: of.waiting,
    inFlight: of.inFlight,
    arrivals: of.arrivals,
    refused: of.refused,
    // The two clocks need not agree; how long ago it was is the same on both.
    lastActiveAt: of.lastActiveAt === null ? null : at - (stats.at - of.lastActiveAt),
    revisions: of.revisions,
  };
}

/** `keepMs`: as long as the longest window that is asked for. */
export function withGatewaySample(samples: ServiceSamples, sample: GatewaySample, keepMs = WINDOW_MS): ServiceSamples {
  return { ...samples, gateway: ring(samples.gateway, sample, keepMs) };
}

export function withReplicaSample(samples: ServiceSamples, sample: ReplicaSample): ServiceSamples {
  return { ...samples, replicas: ring(samples.replicas, sample, STALE_MS) };
}

/** One sample from before the window stays: a rate over the window begins there. */
function ring<Sample extends { readonly at: number }>(
  samples: readonly Sample[],
  sample: Sample,
  keepMs: number,
): readonly Sample[] {
  // A clock that was set back would leave the order; what came before is forgotten.
  const before = samples.filter(({ at }) => at < sample.at);
  const first = before.findIndex(({ at }) => at > sample.at - keepMs);
  const from = first < 0 ? before.length - 1 : first - 1;
  return [...before.slice(Math.max(0, from, before.length - MAX_SAMPLES + 1)), sample];
}

function concurrencyOf({ waiting, inFlight }: GatewaySample): number {
  return waiting + inFlight;
}

/** Samples of a window and the last one before it. */
function windowOf({ gateway, latest, now }: Seen, windowMs: number): readonly GatewaySample[] {
  if (latest === null) return [];
  const first = gateway.findIndex(({ at }) => at > now - windowMs);
  return gateway.slice(Math.max(0, first - 1));
}

/** Over time: each sample counts until the next one. */
function average(seen: Seen, windowMs: number): number | null {
  const samples = windowOf(seen, windowMs);
  const from = Math.max(seen.now - windowMs, samples[0]?.at ?? 0);
  if (samples.length === 0) return null;
  let area = 0;
  for (const [at, sample] of samples.entries()) {
    const until = samples[at + 1]?.at ?? seen.now;
    area += concurrencyOf(sample) * Math.max(0, until - Math.max(from, sample.at));
  }
  return seen.now > from ? area / (seen.now - from) : concurrencyOf(samples.at(-1) as GatewaySample);
}

/** `increase(before, after)`; before = null where the gateway's counters began again. Per second. */
function rate(
  seen: Seen,
  windowMs: number,
  increase: (before: GatewaySample | null, after: GatewaySample) => number,
): number | null {
  const samples = windowOf(seen, windowMs);
  const [first, last] = [samples[0], samples.at(-1)];
  if (first === undefined || last === undefined || last.at <= first.at) return null;
  const total = runsOf(samples).reduce((all, [before, after]) => all + increase(before, after), 0);
  return total / ((last.at - first.at) / 1000);
}

type Run = readonly [before: GatewaySample | null, after: GatewaySample];

/** First and last sample of each epoch; a later epoch began at 0. */
function runsOf(samples: readonly GatewaySample[]): readonly Run[] {
  const lasts = samples.filter(({ epoch }, at) => samples[at + 1]?.epoch !== epoch);
  return lasts.map((last, at) => [at === 0 ? (samples[0] as GatewaySample) : null, last]);
}

function serviceRate(seen: Seen, windowMs: number, counter: 'arrivals' | 'refused'): number | null {
  return rate(seen, windowMs, (before, after) => grown(before?.[counter], after[counter]));
}

type RevisionCounter = 'requests' | 'errors' | 'promptTokens' | 'outputTokens';

/** By revision, because one that is gone takes its counts with it. */
function revisionRate(seen: Seen, windowMs: number, counter: RevisionCounter): number | null {
  return rate(seen, windowMs, (before, after) =>
    Object.entries(after.revisions).reduce(
      (all, [id, revision]) => all + grown(revisionOf(before, id)?.[counter], revision[counter]),
      0,
    ),
  );
}

function revisionOf(sample: GatewaySample | null, id: string): RevisionStats | undefined {
  return sample !== null && Object.hasOwn(sample.revisions, id) ? sample.revisions[id] : undefined;
}

/** A counter that fell began again. */
function grown(before: number | undefined, after: number): number {
  return before === undefined || after < before ? after : after - before;
}

function latency(seen: Seen, of: 'ttftMs' | 'tpotMs'): number | null {
  const parts = runsOf(windowOf(seen, WINDOW_MS)).flatMap(([before, after]) =>
    Object.entries(after.revisions).flatMap(([id, revision]) => {
      const known = revisionOf(before, id)?.[of] ?? null;
      return known === revision[of] ? [] : [histogramDifference(known, revision[of])];
    }),
  );
  return quantileOf(addHistograms(parts), 0.95);
}

type GaugeName = 'waiting' | 'running';

function sum({ replicas }: ReplicaSample, name: GaugeName): number {
  return replicas.reduce((all, replica) => all + (replica[name] ?? 0), 0);
}

function mean({ replicas }: ReplicaSample, of: (replica: ReplicaGauges) => number | null): number | null {
  const known = replicas.map(of).filter((value) => value !== null);
  return known.length === 0 ? null : known.reduce((all, value) => all + value, 0) / known.length;
}

function percent(used: number | null, limit: number | null): number | null {
  return used === null || limit === null || limit <= 0 ? null : (used / limit) * 100;
}
