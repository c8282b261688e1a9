/**
 * Arrivals per second some time ahead, from two views of the past: level and trend of the last minutes (Holt's linear method with
 * a damped trend, innovations clipped so that one odd reading moves little), and how the rate went on from this time of day on the
 * days before. They are weighted by how right each was lately, but a rise that the days before know is always expected: it comes
 * once a day, so that being right about it hardly shows in a mean. JSON and bounded: 288 times of day and at most `MAX_PENDING`
 * open forecasts.
 */

export interface ForecastMemory {
  readonly level: number;
  /** Per second of time. */
  readonly trend: number;
  /** Mean absolute innovation; what is far beyond it is clipped. */
  readonly spread: number;
  /** Clipped in a row, with their sign: several mean that the level really changed. */
  readonly clipped: number;
  readonly at: number;
  /** Rate by five minutes of the UTC day; null = never seen. */
  readonly day: readonly (number | null)[];
  /** The five minutes that run. */
  readonly slot: { readonly index: number; readonly sum: number; readonly count: number };
  /** Today's level as a multiple of the days before. */
  readonly scale: number;
  /** Forecasts that time has not judged yet. */
  readonly pending: readonly PendingForecast[];
  /** Mean absolute errors of the two views and of what was said, per second. */
  readonly errors: { readonly recent: number; readonly daily: number | null; readonly said: number };
}

interface PendingForecast {
  readonly due: number;
  readonly recent: number;
  readonly daily: number | null;
  readonly said: number;
}

export interface Forecast {
  /** Arrivals per second expected, and how far off that usually is. */
  readonly rate: number;
  readonly error: number;
  readonly recent: number;
  /** If it goes on from here as on the days before; null = not known. */
  readonly daily: number | null;
  /** At that time on the days before, scaled to today; null = not known. */
  readonly usual: number | null;
}

const DAY_MS = 86_400_000;
const SLOT_MS = 300_000;
const SLOTS = DAY_MS / SLOT_MS;
const MAX_PENDING = 64;

/** Time constants, s. */
const LEVEL_S = 60;
const TREND_S = 300;
const SCALE_S = 1800;
const ERROR_S = 1800;
/** The trend is not believed for longer than this, s. */
const DAMPING_S = 180;
const CLIP = 4;
const CLIPPED_IN_A_ROW = 3;
/** Of a new day in the mean of the days. */
const DAY_WEIGHT = 0.4;

export function initialForecast(rate: number, now: number): ForecastMemory {
  return {
    level: rate,
    trend: 0,
    spread: Math.sqrt(rate) + 0.1,
    clipped: 0,
    at: now,
    day: Array<number | null>(SLOTS).fill(null),
    slot: { index: slotOf(now), sum: 0, count: 0 },
    scale: 1,
    pending: [],
    errors: { recent: 0, daily: null, said: 0 },
  };
}

/** After `rate` arrivals per second were measured over the time since the last call, at `now`, ms. */
export function learned(memory: ForecastMemory, rate: number, now: number): ForecastMemory {
  const seconds = Math.max(0.001, (now - memory.at) / 1000);
  const holt = holtStep(memory, rate, seconds);
  const daily = dailyAt(memory.day, now);
  const scale =
    daily === null || daily * seconds < 1
      ? memory.scale
      : blend(memory.scale, clamp(rate / daily, 0.25, 4), weight(seconds, SCALE_S));
  return { ...memory, ...holt, ...slotStep(memory, rate, now), scale, ...judged(memory, holt.level, now), at: now };
}

function holtStep(memory: ForecastMemory, rate: number, seconds: number) {
  const expected = Math.max(0, memory.level + memory.trend * seconds);
  const innovation = rate - expected;
  const limit = CLIP * memory.spread;
  const isOdd = Math.abs(innovation) > limit;
  const clipped = isOdd
    ? (Math.sign(memory.clipped) === Math.sign(innovation) ? memory.clipped : 0) + Math.sign(innovation)
    : 0;
  // Several odd readings in a row are no accident.
  const believed = Math.abs(clipped) >= CLIPPED_IN_A_ROW ? innovation : clamp(innovation, -limit, limit);
  const level = Math.max(0, expected + believed * weight(seconds, LEVEL_S));
  const trend = blend(memory.trend, (level - memory.level) / seconds, weight(seconds, TREND_S));
  const spread = blend(memory.spread, Math.min(Math.abs(innovation), 2 * limit), weight(seconds, ERROR_S));
  return { level, trend: level === 0 ? 0 : trend, spread: Math.max(spread, 0.01), clipped };
}

function slotStep({ slot, day }: ForecastMemory, rate: number, now: number): Pick<ForecastMemory, 'slot' | 'day'> {
  const index = slotOf(now);
  if (index === slot.index) return { day, slot: { index, sum: slot.sum + rate, count: slot.count + 1 } };
  const mean = slot.count > 0 ? slot.sum / slot.count : null;
  const before = day[slot.index] ?? null;
  const known = mean === null ? before : before === null ? mean : blend(before, mean, DAY_WEIGHT);
  return { day: day.with(slot.index, known), slot: { index, sum: rate, count: 1 } };
}

/** What was forecast for about now, held against the level that came. */
function judged(
  { pending, errors }: ForecastMemory,
  level: number,
  now: number,
): Pick<ForecastMemory, 'pending' | 'errors'> {
  let after = errors;
  for (const { due, recent, daily, said } of pending) {
    if (due > now) continue;
    const share = 0.02;
    const miss = (given: number) => Math.abs(given - level);
    after = {
      recent: blend(after.recent, miss(recent), share),
      daily: daily === null ? after.daily : after.daily === null ? miss(daily) : blend(after.daily, miss(daily), share),
      said: blend(after.said, miss(said), share),
    };
  }
  return { pending: pending.filter(({ due }) => due > now), errors: after };
}

/** In `aheadMs`. */
export function forecast(memory: ForecastMemory, aheadMs: number, now: number): Forecast {
  const ahead = aheadMs / 1000;
  const recent = Math.max(0, memory.level + memory.trend * DAMPING_S * (1 - Math.exp(-ahead / DAMPING_S)));
  const [here, there] = [dailyAt(memory.day, now), dailyAt(memory.day, now + aheadMs)];
  const usual = there === null ? null : there * memory.scale;
  const { errors } = memory;
  if (here === null || there === null) return { rate: recent, error: errors.said, recent, daily: null, usual };
  const daily = Math.max(0, memory.level + (there - here) * memory.scale);
  const weighOf = (error: number) => 1 / (error + 1e-3);
  const [a, b] = [weighOf(errors.recent), weighOf(errors.daily ?? errors.recent)];
  const blended = (recent * a + daily * b) / (a + b);
  return { rate: there > here ? Math.max(blended, daily) : blended, error: errors.said, recent, daily, usual };
}

/** `said` is to be judged when its time has come. */
export function remembered(memory: ForecastMemory, said: Forecast, aheadMs: number, now: number): ForecastMemory {
  const { recent, daily, rate } = said;
  const last = memory.pending.at(-1);
  // Spread over the time ahead, so that the list stays short whatever the time is.
  if (last !== undefined && now + aheadMs - last.due < aheadMs / (MAX_PENDING / 2)) return memory;
  const pending = [...memory.pending, { due: now + aheadMs, recent, daily, said: rate }];
  return { ...memory, pending: pending.slice(-MAX_PENDING) };
}

/** Between the middles of the two slots around it. */
function dailyAt(day: ForecastMemory['day'], at: number): number | null {
  const place = mod(at - SLOT_MS / 2, DAY_MS) / SLOT_MS;
  const low = Math.floor(place);
  const [a, b] = [day[low] ?? null, day[(low + 1) % SLOTS] ?? null];
  if (a === null || b === null) return null;
  return blend(a, b, place - low);
}

function slotOf(at: number): number {
  return Math.floor(mod(at, DAY_MS) / SLOT_MS);
}

function mod(value: number, by: number): number {
  return ((value % by) + by) % by;
}

function weight(seconds: number, constantS: number): number {
  return 1 - Math.exp(-seconds / constantS);
}

function blend(from: number, to: number, share: number): number {
  return from + (to - from) * share;
}

function clamp(value: number, low: number, high: number): number {
  return Math.max(low, Math.min(high, value));
}
