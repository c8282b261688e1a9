/** What came of a simulation: latencies against the objectives, replica-hours, the timeline, and whether what must hold held. */
import type { FleetEvent } from '../control/fleet_state.ts';
import type { ServiceSpec } from '../spec/fleet_spec.ts';
import type { Usage } from './sim_fleet.ts';
import { OUTCOMES, type SimGateway } from './sim_gateway.ts';
import type { SimulationOptions } from './simulate.ts';

export interface TimelineRow {
  /** End of the interval. */
  readonly atMs: number;
  readonly wanted: number;
  readonly ready: number;
  readonly starting: number;
  readonly waiting: number;
  readonly inFlight: number;
  /** Within the interval. */
  readonly arrivals: number;
  /** Of requests that arrived within it, as far as they have a first token; null = none. */
  readonly ttftP95Ms: number | null;
}

export interface Percentiles {
  readonly p50: number;
  readonly p95: number;
  readonly p99: number;
}

export interface Invariant {
  readonly name: string;
  readonly holds: boolean;
  /** The figures behind it. */
  readonly text: string;
}

export interface SimulationResult {
  readonly service: string;
  readonly rule: string;
  readonly requests: number;
  readonly completed: number;
  readonly refused: number;
  readonly expired: number;
  /** Streams that a crash broke. */
  readonly broken: number;
  readonly ttftMs: Percentiles | null;
  readonly tpotMs: Percentiles | null;
  /** Share of all requests that completed within the objectives, 0..1; null without objectives. */
  readonly attained: number | null;
  /** Share of the minutes with requests whose 95th percentile of the TTFT is within its objective; null = not asked for. */
  readonly minutesAttained: number | null;
  readonly replicaHours: number;
  readonly asleepHours: number;
  readonly cost: number;
  readonly starts: number;
  readonly mostReady: number;
  readonly events: readonly FleetEvent[];
  readonly flaps: number;
  readonly timeline: readonly TimelineRow[];
  readonly invariants: readonly Invariant[];
}

/** One row an interval; latencies are filled in when all is over, as requests end later than they arrive. */
export class Timeline {
  private readonly everyMs: number;
  private readonly fromMs: number;
  private nextAt: number;
  private readonly kept: {
    readonly row: Omit<TimelineRow, 'ttftP95Ms' | 'arrivals'>;
    readonly first: number;
    readonly end: number;
  }[] = [];
  private counted = 0;
  private gateway: SimGateway | null = null;

  constructor(everyMs: number, fromMs: number) {
    this.everyMs = everyMs;
    this.fromMs = fromMs;
    this.nextAt = everyMs;
  }

  isDue(now: number): boolean {
    return now >= this.nextAt;
  }

  add(row: Omit<TimelineRow, 'ttftP95Ms' | 'arrivals'>, gateway: SimGateway): void {
    this.nextAt = row.atMs + this.everyMs;
    this.gateway = gateway;
    if (row.atMs > this.fromMs) this.kept.push({ row, first: this.counted, end: gateway.arrived });
    this.counted = gateway.arrived;
  }

  get rows(): readonly TimelineRow[] {
    return this.kept.map(({ row, first, end }) => {
      const values = new Float64Array(end - first);
      let count = 0;
      for (let request = first; request < end; request++) {
        const at = this.gateway?.firstTokenMs[request] as number;
        if (!Number.isNaN(at)) values[count++] = at - (this.gateway?.arrivals.atMs[request] as number);
      }
      const sorted = values.subarray(0, count).sort();
      return { ...row, arrivals: end - first, ttftP95Ms: count === 0 ? null : percentile(sorted, 0.95) };
    });
  }
}

interface Outcome {
  readonly gateway: SimGateway;
  readonly options: SimulationOptions;
  readonly service: ServiceSpec;
  readonly events: readonly FleetEvent[];
  readonly boundsBroken: readonly string[];
  readonly usage: Usage;
  readonly rows: readonly TimelineRow[];
  readonly endedAt: number;
}

const HOUR_MS = 3_600_000;
/** A change back within this time is a flap, ms. */
const FLAP_MS = 180_000;
/** That many a day are few. */
const FEW_FLAPS_A_DAY = 24;

export function judge(outcome: Outcome): SimulationResult {
  const { gateway, options, service, events, usage, rows } = outcome;
  const measured = measure(gateway, options);
  const asleepHours = usage.asleepMs / HOUR_MS;
  const replicaHours = usage.replicaMs / HOUR_MS - asleepHours;
  const { perReplicaHour, asleepShare } = options.costs;
  const busy = rows.filter((row) => row.ttftP95Ms !== null);
  const { ttftMs: most } = options.objectives;
  const late = most === null ? [] : busy.filter(({ ttftP95Ms }) => (ttftP95Ms as number) > most);
  const flaps = countFlaps(events);
  return {
    service: service.id,
    rule: service.scaling.rule.kind,
    ...measured,
    minutesAttained: most === null || busy.length === 0 ? null : 1 - late.length / busy.length,
    replicaHours,
    asleepHours,
    cost: perReplicaHour * (replicaHours + asleepShare * asleepHours),
    starts: usage.starts,
    mostReady: rows.reduce((top, { ready }) => Math.max(top, ready), 0),
    events,
    flaps,
    timeline: rows,
    invariants: invariants(outcome, flaps),
  };
}

type Measured = Pick<
  SimulationResult,
  'requests' | 'completed' | 'refused' | 'expired' | 'broken' | 'ttftMs' | 'tpotMs' | 'attained'
>;

function measure(
  { arrivals, firstTokenMs, endMs, outcomes, arrived }: SimGateway,
  options: SimulationOptions,
): Measured {
  const { ttftMs: ttftMost, tpotMs: tpotMost } = options.objectives;
  const counts = [0, 0, 0, 0, 0];
  const [ttfts, tpots] = [new Float64Array(arrived), new Float64Array(arrived)];
  let [ttftCount, tpotCount, attained, requests] = [0, 0, 0, 0];
  for (let request = 0; request < arrived; request++) {
    const arrivedAt = arrivals.atMs[request] as number;
    if (arrivedAt < options.measureFromMs) continue;
    requests++;
    const outcome = outcomes[request] as number;
    counts[outcome] = (counts[outcome] as number) + 1;
    const first = firstTokenMs[request] as number;
    const ttft = first - arrivedAt;
    if (!Number.isNaN(ttft)) ttfts[ttftCount++] = ttft;
    if (outcome !== OUTCOMES.completed) continue;
    const tokens = arrivals.outputTokens[request] as number;
    const tpot = tokens > 1 ? ((endMs[request] as number) - first) / (tokens - 1) : 0;
    if (tokens > 1) tpots[tpotCount++] = tpot;
    if ((ttftMost === null || ttft <= ttftMost) && (tpotMost === null || tpot <= tpotMost)) attained++;
  }
  return {
    requests,
    completed: counts[OUTCOMES.completed] as number,
    refused: counts[OUTCOMES.refused] as number,
    expired: counts[OUTCOMES.expired] as number,
    broken: counts[OUTCOMES.broken] as number,
    ttftMs: percentiles(ttfts.subarray(0, ttftCount)),
    tpotMs: percentiles(tpots.subarray(0, tpotCount)),
    attained: (ttftMost === null && tpotMost === null) || requests === 0 ? null : attained / requests,
  };
}

function percentiles(values: Float64Array): Percentiles | null {
  if (values.length === 0) return null;
  const sorted = values.sort();
  return { p50: percentile(sorted, 0.5), p95: percentile(sorted, 0.95), p99: percentile(sorted, 0.99) };
}

/** The smallest value that this share of all does not exceed. */
function percentile(sorted: Float64Array, share: number): number {
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] as number;
}

/** Changes of direction soon after the last change. */
function countFlaps(events: readonly FleetEvent[]): number {
  const changes = events.filter(({ type }) => type === 'ScaledUp' || type === 'ScaledDown');
  return changes.filter((change, at) => {
    const before = changes[at - 1];
    return before !== undefined && before.type !== change.type && change.at - before.at < FLAP_MS;
  }).length;
}

function invariants({ gateway, options, service, boundsBroken, rows, endedAt }: Outcome, flaps: number): Invariant[] {
  const { minReplicas, maxReplicas } = service.scaling;
  const open = gateway.outcomes
    .subarray(0, gateway.arrived)
    .reduce((sum, one) => sum + (one === OUTCOMES.open ? 1 : 0), 0);
  const allowed = Math.max(4, Math.ceil((FEW_FLAPS_A_DAY * (endedAt - options.measureFromMs)) / (24 * HOUR_MS)));
  const { ttftMs } = options.objectives;
  const longest = ttftMs === null ? 0 : longestOver(rows, ttftMs);
  return [
    {
      name: 'bounds kept',
      holds: boundsBroken.length === 0,
      text: boundsBroken.length === 0 ? `always ${minReplicas} to ${maxReplicas}` : boundsBroken.join(', '),
    },
    { name: 'no request lost', holds: open === 0, text: `${open} of ${gateway.arrived} without an end` },
    {
      name: 'none refused at zero',
      holds: gateway.lostAtZero === 0,
      text: `${gateway.lostAtZero} refused or given up while no replica was ready`,
    },
    { name: 'few flaps', holds: flaps <= allowed, text: `${flaps} of at most ${allowed}` },
    ...(ttftMs === null
      ? []
      : [
          {
            name: 'objective met again',
            holds: longest <= options.recoverMs,
            text: `longest time over it ${Math.round(longest / 1000)} s of at most ${options.recoverMs / 1000} s`,
          },
        ]),
  ];
}

function longestOver(rows: readonly TimelineRow[], mostMs: number): number {
  let longest = 0;
  let since: number | null = null;
  for (const [at, { atMs, ttftP95Ms }] of rows.entries()) {
    const isOver = ttftP95Ms !== null && ttftP95Ms > mostMs;
    if (isOver) {
      since ??= rows[at - 1]?.atMs ?? 0;
      longest = Math.max(longest, atMs - since);
    } else since = null;
  }
  return longest;
}
