/**
 * Our own rule: has replicas ready when the demand is there, not after. Demand at the time a replica started now would serve is
 * the forecast of arrivals times how long a request stays at that load, with room for chance and for the forecast's usual error; what a
 * replica carries while the objectives hold is learned. Never below what reacting to the present load needs (an AverageValue
 * metric of the requests at hand, as KEDA's rule would have it). Goes down only to what was the most within the last start time.
 */
import type { ProactiveSpec, ScalingSpec } from '../spec/fleet_spec.ts';
import { type Capacity, type CapacityMemory, capacityOf, measured, NO_CAPACITY, slowdown } from './capacity.ts';
import { type Forecast, type ForecastMemory, forecast, initialForecast, learned, remembered } from './forecast.ts';
import type { ScaleObserved } from './scale_decision.ts';
import { isDue, type RuleStep, shortNumber } from './scale_step.ts';
import type { SignalName } from './signals.ts';

export interface ProactiveMemory {
  readonly nextAt: number;
  readonly reason: string;
  /** null = no arrivals were measured yet. */
  readonly forecast: ForecastMemory | null;
  readonly capacity: CapacityMemory;
  /** From arrival to end, ms, and at what load per replica that was; null = not known. */
  readonly stay: { readonly ms: number; readonly load: number } | null;
  /** Since when as many replicas are ready as now, ms: latencies of before say nothing about the load of now. */
  readonly ready: { readonly count: number; readonly since: number };
  /** What was asked for within the hold; without what can no longer be the most. */
  readonly wants: readonly { readonly at: number; readonly replicas: number }[];
}

const PERIOD_MS = 10_000;
/** Of the averages and percentiles that are learned from. */
const WINDOW_MS = 60_000;
const DEFAULT_START_MS = 60_000;
const MIN_HOLD_MS = 200_000;
const MAX_HOLD_MS = 600_000;
/** Standard deviations of chance that there is room for, and usual errors of the forecast. */
const ROOM_FOR_CHANCE = 0.5;
const ROOM_FOR_ERROR = 1;
/** Standard deviations by which a few seconds may differ from a minute. */
const BEYOND_CHANCE = 3;
const STAY_SHARE = 0.05;
/** As the HorizontalPodAutoscaler has it: no change for so little. */
const TOLERANCE = 0.1;
/** Requests expected within the start time that are worth a replica. */
const WORTH_WAKING = 0.15;

const NOTHING: ProactiveMemory = {
  nextAt: 0,
  reason: '',
  forecast: null,
  capacity: NO_CAPACITY,
  stay: null,
  ready: { count: 0, since: 0 },
  wants: [],
};

export function decideProactive(
  spec: ScalingSpec,
  policy: ProactiveSpec,
  observed: ScaleObserved,
  memory: ProactiveMemory | null,
  now: number,
): RuleStep<ProactiveMemory> {
  const signal = (name: SignalName) => observed.signals[name] ?? null;
  const heldAtZero = observed.replicas === 0 && (signal('waiting_requests') ?? 0) > 0;
  if (memory !== null && !heldAtZero && !isDue(memory.nextAt, PERIOD_MS, now)) {
    return { replicas: observed.replicas, reason: memory.reason, memory, nextAt: memory.nextAt };
  }
  const aheadMs = startMsOf(spec, observed) + PERIOD_MS;
  const seen = learn(observed, memory ?? NOTHING, now);
  const capacity = capacityOf(seen.capacity, policy, policy.concurrency);
  const demand = demandAhead(seen, stayMsAt(seen, capacity.requests), aheadMs, now);
  const { want, text } = wanted(policy, observed, demand, capacity);
  const holdMs = Math.min(MAX_HOLD_MS, Math.max(MIN_HOLD_MS, aheadMs));
  const recent = seen.wants.filter(({ at, replicas }) => at > now - holdMs && replicas > want);
  const wants = [...recent, { at: now, replicas: want }];
  // To zero it goes at once: being idle for so long was the hold.
  const most = want === 0 ? 0 : Math.max(...wants.map(({ replicas }) => replicas));
  const replicas = want >= observed.replicas || want === 0 ? want : Math.min(observed.replicas, most);
  const held = replicas > want ? ` (${want}, held for ${shortNumber(holdMs / 1000)} s)` : '';
  const change = replicas === observed.replicas ? `stays ${replicas}` : `${observed.replicas} -> ${replicas}`;
  const reason = `${text}; ${change}${held}`;
  const said = demand?.said;
  const after = seen.forecast !== null && said ? remembered(seen.forecast, said, aheadMs, now) : seen.forecast;
  const nextAt = now + PERIOD_MS;
  return { replicas, reason, memory: { ...seen, forecast: after, wants, nextAt, reason }, nextAt };
}

/** Sleeping replicas wake faster than others start. */
function startMsOf({ standby }: ScalingSpec, { startMs, wakeMs }: ScaleObserved): number {
  return (standby > 0 ? (wakeMs ?? startMs) : startMs) ?? DEFAULT_START_MS;
}

function learn(observed: ScaleObserved, memory: ProactiveMemory, now: number): ProactiveMemory {
  const signal = (name: SignalName) => observed.signals[name] ?? null;
  const rate = signal('arrivals_per_second_10s');
  const known =
    rate === null
      ? memory.forecast
      : memory.forecast === null
        ? initialForecast(rate, now)
        : learned(memory.forecast, rate, now);
  const ready =
    memory.ready.count === observed.readyReplicas ? memory.ready : { count: observed.readyReplicas, since: now };
  const steady = ready.count > 0 && now - ready.since > 1.5 * WINDOW_MS;
  const [average, arrivals] = [signal('concurrency_stable'), signal('arrivals_per_second')];
  const waiting = signal('waiting_requests');
  if (!steady || waiting === null || waiting > 0 || average === null) return { ...memory, forecast: known, ready };
  // Little: as many are there as arrive while one stays.
  const stayMs = arrivals !== null && arrivals * (WINDOW_MS / 1000) >= 5 ? (average / arrivals) * 1000 : null;
  const load = average / ready.count;
  return {
    ...memory,
    forecast: known,
    ready,
    capacity: measured(memory.capacity, load, signal('ttft_p95_ms'), signal('tpot_p95_ms')),
    stay: stayMs === null ? memory.stay : mixed(memory.stay, { ms: stayMs, load }),
  };
}

function mixed(before: ProactiveMemory['stay'], seen: { readonly ms: number; readonly load: number }) {
  if (before === null) return seen;
  const toward = (from: number, to: number) => from + (to - from) * STAY_SHARE;
  return { ms: toward(before.ms, seen.ms), load: toward(before.load, seen.load) };
}

/** With as many at a time as a replica can carry each takes longer than now. */
function stayMsAt({ stay, capacity }: ProactiveMemory, load: number): number | null {
  return stay === null ? null : stay.ms * slowdown(capacity, stay.load, load);
}

interface Demand {
  readonly said: Forecast;
  readonly aheadMs: number;
  /** Requests at a time, and with the room for chance and error; null = nobody knows how long one stays. */
  readonly requests: number | null;
  readonly most: number | null;
}

/** The worse of the two ends and the middle of the time until a replica started now would serve. */
function demandAhead(
  { forecast: known }: ProactiveMemory,
  stayMs: number | null,
  aheadMs: number,
  now: number,
): Demand | null {
  if (known === null) return null;
  const all = [aheadMs, aheadMs / 2, 0].map((ahead) => forecast(known, ahead, now));
  const said = all[0] as Forecast;
  if (stayMs === null) return { said, aheadMs, requests: null, most: null };
  const rate = Math.max(...all.map((one) => one.rate));
  const requests = (rate * stayMs) / 1000;
  const error = (said.error * stayMs) / 1000;
  const room = Math.hypot(ROOM_FOR_CHANCE * Math.sqrt(requests), ROOM_FOR_ERROR * error);
  return { said, aheadMs, requests, most: requests + room };
}

function wanted(
  { idleMs }: ProactiveSpec,
  observed: ScaleObserved,
  demand: Demand | null,
  capacity: Capacity,
): { readonly want: number; readonly text: string } {
  const { requests: each, why } = capacity;
  const present = presentLoad(observed);
  const reactive = present === null ? null : reacting(present, each, observed.replicas);
  const ahead = demand?.most == null ? 0 : Math.ceil(demand.most / each - 0.02);
  const idleFor = observed.signals['idle_ms'] ?? null;
  const expected = demand === null ? 0 : (demand.said.rate * demand.aheadMs) / 1000;
  const onDays = demand?.said.usual == null ? 0 : (demand.said.usual * demand.aheadMs) / 1000;
  const forecastText = demand === null ? 'no arrivals measured' : demandText(demand);
  const isIdle = idleFor === null ? observed.replicas === 0 : idleFor >= idleMs;
  if (isIdle && (present ?? 0) === 0 && Math.max(onDays, observed.replicas === 0 ? 0 : expected) < WORTH_WAKING) {
    const since = idleFor === null ? 'no request yet' : `idle for ${shortNumber(idleFor / 1000)} s`;
    return { want: 0, text: `${since}, ${forecastText}` };
  }
  if (present === null && demand?.most == null) {
    return { want: Math.max(1, observed.replicas), text: 'nothing measured, as many as there are' };
  }
  const atHand = present === null ? 'present load not known' : `${shortNumber(present)} at hand need ${reactive}`;
  const text = `${forecastText}, ${shortNumber(each)} each (${why}) asks for ${ahead}; ${atHand}`;
  return { want: Math.max(1, ahead, reactive ?? 0), text };
}

/** Requests at hand: the average of a minute, or more when the last seconds exceed it by more than chance. */
function presentLoad({ signals }: ScaleObserved): number | null {
  const [minute = null, seconds = null] = [signals['concurrency_stable'], signals['concurrency_panic']];
  if (minute === null || seconds === null) return minute ?? seconds;
  return Math.max(minute, seconds - BEYOND_CHANCE * Math.sqrt(seconds));
}

function reacting(present: number, each: number, replicas: number): number {
  const ratio = present / (each * replicas);
  return Math.abs(ratio - 1) <= TOLERANCE ? replicas : Math.ceil(present / each);
}

function demandText({ said, aheadMs, requests, most }: Demand): string {
  const { rate, recent, daily } = said;
  const views = `${shortNumber(recent)} by the last minutes, ${daily === null ? 'no day before' : `${shortNumber(daily)} as on the days before`}`;
  const at = `${shortNumber(rate)} arrivals/s in ${shortNumber(aheadMs / 1000)} s (${views})`;
  if (requests === null || most === null) return at;
  return `${at} are ${shortNumber(requests)} requests at a time, with room ${shortNumber(most)}`;
}
