/** Arrivals made up from a seed: a day's rise and fall with noise, and bursts on top of it. */
import { type Arrivals, ArrivalsBuilder } from './arrivals.ts';
import { FastRng } from './fast_rng.ts';

export interface DailyPattern {
  readonly seed: number;
  readonly days: number;
  /** Requests per second at the quietest and at the busiest hour. */
  readonly lowPerSecond: number;
  readonly highPerSecond: number;
  /** Hour of the day that is busiest, 0..24. */
  readonly peakHour: number;
  /** How pointed the day is: 1 = a sine, more = longer nights. */
  readonly sharpness: number;
  /** In place of the sine: high from an hour to another, after a rise of so many minutes, and low otherwise. */
  readonly shift: { readonly fromHour: number; readonly toHour: number; readonly riseMinutes: number } | null;
  /** Sigma of the rate's logarithm, which wanders over some ten minutes. */
  readonly noise: number;
  /** Of whole days against each other, sigma of the logarithm. */
  readonly dayNoise: number;
  readonly bursts: {
    readonly perDay: number;
    /** The rate grows to this multiple within a minute and falls over the duration. */
    readonly factor: number;
    readonly durationS: number;
  };
  /** Log-normal. */
  readonly promptTokens: { readonly median: number; readonly sigma: number };
  readonly outputTokens: { readonly median: number; readonly sigma: number };
}

const DAILY_DEFAULTS: DailyPattern = {
  seed: 1,
  days: 1,
  lowPerSecond: 0.2,
  highPerSecond: 3,
  peakHour: 14,
  sharpness: 1.5,
  shift: null,
  noise: 0.15,
  dayNoise: 0.05,
  bursts: { perDay: 0, factor: 3, durationS: 600 },
  promptTokens: { median: 400, sigma: 0.7 },
  outputTokens: { median: 150, sigma: 0.6 },
};

const DAY_S = 86_400;
const STEP_S = 10;
const NOISE_S = 600;
const MAX_PROMPT = 32_768;
const MAX_OUTPUT = 4096;

/** Poisson arrivals whose rate is constant for ten seconds at a time. */
export function dailyArrivals(given: Partial<DailyPattern>): Arrivals {
  const pattern = { ...DAILY_DEFAULTS, ...given };
  const rng = new FastRng(pattern.seed);
  const builder = new ArrivalsBuilder();
  const bursts = Array.from({ length: Math.round(pattern.bursts.perDay * pattern.days) }, () =>
    Math.floor(rng.next() * pattern.days * DAY_S),
  );
  const keep = Math.exp(-STEP_S / NOISE_S);
  let [wander, day, today] = [0, -1, 1];
  const length = (of: { readonly median: number; readonly sigma: number }, most: number) =>
    Math.max(1, Math.min(most, Math.round(rng.logNormal(of.median, of.sigma))));
  for (let second = 0; second < pattern.days * DAY_S; second += STEP_S) {
    if (Math.floor(second / DAY_S) !== day) {
      day = Math.floor(second / DAY_S);
      today = rng.logNormal(1, pattern.dayNoise);
    }
    wander = wander * keep + rng.normal() * pattern.noise * Math.sqrt(1 - keep * keep);
    const rate = rateAt(pattern, second) * today * Math.exp(wander) * burstAt(pattern, bursts, second);
    if (rate <= 0) continue;
    for (let at = second + rng.exponential(1 / rate); at < second + STEP_S; at += rng.exponential(1 / rate)) {
      const promptTokens = length(pattern.promptTokens, MAX_PROMPT);
      builder.add(at * 1000, promptTokens, length(pattern.outputTokens, MAX_OUTPUT));
    }
  }
  return builder.done();
}

function rateAt({ lowPerSecond, highPerSecond, peakHour, sharpness, shift }: DailyPattern, second: number): number {
  if (shift !== null) {
    const hour = (second / 3600) % 24;
    const rise = Math.max(1 / 3600, shift.riseMinutes / 60);
    const share = Math.max(0, Math.min((hour - shift.fromHour) / rise, (shift.toHour - hour) / rise, 1));
    return lowPerSecond + (highPerSecond - lowPerSecond) * share;
  }
  const phase = ((second / 3600 - peakHour) / 24) * 2 * Math.PI;
  return lowPerSecond + (highPerSecond - lowPerSecond) * ((1 + Math.cos(phase)) / 2) ** sharpness;
}

function burstAt({ bursts: { factor, durationS } }: DailyPattern, starts: readonly number[], second: number): number {
  let most = 1;
  for (const start of starts) {
    const since = second - start;
    if (since < 0 || since > durationS) continue;
    const height = since < 60 ? since / 60 : 1 - (since - 60) / Math.max(1, durationS - 60);
    most = Math.max(most, 1 + (factor - 1) * height);
  }
  return most;
}
