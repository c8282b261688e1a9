/**
 * KEDA's cron trigger (2.21, pkg/scalers/cron_scaler.go; the schedule is that of robfig/cron v3, standard form): replicas asked
 * for between a start and an end, both given as cron expressions in a time zone. Pure: the time is an argument.
 */
import { TokenmillError } from '../../base/errors.ts';

export interface CronTrigger {
  /** IANA name. */
  readonly timezone: string;
  readonly start: string;
  readonly end: string;
  readonly desired: number;
}

export interface CronAnswer {
  /** What the metric says; its target is 1 per replica. */
  readonly value: number;
  readonly active: boolean;
}

/** Of the five fields; a bit of 1 << n for each n that fits. */
interface CronSchedule {
  readonly minutes: bigint;
  readonly hours: bigint;
  readonly days: bigint;
  readonly months: bigint;
  readonly weekdays: bigint;
  /** Either of the two days fits when both are given; both must when one is `*`. */
  readonly anyDay: boolean;
}

const MINUTE_MS = 60_000;
/** A schedule that finds nothing so far ahead (30 February) never comes. */
const MAX_YEARS_AHEAD = 5;
const MONTHS = ['jan', 'feb', 'mar', 'apr', 'may', 'jun', 'jul', 'aug', 'sep', 'oct', 'nov', 'dec'];
const WEEKDAYS = ['sun', 'mon', 'tue', 'wed', 'thu', 'fri', 'sat'];

/** `invalid_manifest` when the zone or one of the expressions is not understood. `now` in ms since 1970. */
export function cronAnswer(trigger: CronTrigger, now: number): CronAnswer {
  const { timezone, start, end, desired } = trigger;
  if (start === end) throw new TokenmillError('invalid_manifest', 'cron: start and end are the same.');
  const nextStart = nextTime(start, timezone, now) ?? Number.NEGATIVE_INFINITY;
  const nextEnd = nextTime(end, timezone, now) ?? Number.NEGATIVE_INFINITY;
  // Before the next start and with no end before it, nothing runs.
  if (nextStart < nextEnd && now < nextStart) return { value: 1, active: false };
  return now <= nextEnd ? { value: desired, active: true } : { value: 1, active: false };
}

/** First minute after `now` that fits, ms; null = none in years. */
export function nextTime(expression: string, timezone: string, now: number): number | null {
  const schedule = parseCron(expression);
  const wall = wallClock(timezone);
  const limit = now + MAX_YEARS_AHEAD * 366 * 24 * 60 * MINUTE_MS;
  let at = (Math.floor(now / MINUTE_MS) + 1) * MINUTE_MS;
  while (at < limit) {
    const { month, day, weekday, hour, minute } = wall(at);
    if (!has(schedule.months, month) || !fitsDay(schedule, day, weekday)) {
      // Close to the next midnight there, and then by the hour: clocks may change on the way.
      at += (hour < 22 ? (22 - hour) * 60 - minute : 60 - minute) * MINUTE_MS;
    } else if (!has(schedule.hours, hour)) at += (60 - minute) * MINUTE_MS;
    else if (!has(schedule.minutes, minute)) at += MINUTE_MS;
    else return at;
  }
  return null;
}

function has(set: bigint, value: number): boolean {
  return ((set >> BigInt(value)) & 1n) === 1n;
}

function fitsDay({ days, weekdays, anyDay }: CronSchedule, day: number, weekday: number): boolean {
  return anyDay ? has(days, day) || has(weekdays, weekday) : has(days, day) && has(weekdays, weekday);
}

interface WallTime {
  readonly month: number;
  readonly day: number;
  readonly weekday: number;
  readonly hour: number;
  readonly minute: number;
}

function wallClock(timeZone: string): (at: number) => WallTime {
  let format: Intl.DateTimeFormat;
  try {
    format = new Intl.DateTimeFormat('en-US', {
      timeZone,
      hourCycle: 'h23',
      year: 'numeric',
      month: 'numeric',
      day: 'numeric',
      hour: 'numeric',
      minute: 'numeric',
    });
  } catch {
    throw new TokenmillError('invalid_manifest', `cron: ${JSON.stringify(timeZone)} is not a time zone.`, {
      remedy: 'Write an IANA name such as Europe/Berlin or UTC.',
    });
  }
  return (at) => {
    const parts = new Map(format.formatToParts(at).map(({ type, value }) => [type, Number(value)]));
    const of = (type: Intl.DateTimeFormatPartTypes) => parts.get(type) as number;
    const weekday = new Date(Date.UTC(of('year'), of('month') - 1, of('day'))).getUTCDay();
    return { month: of('month'), day: of('day'), weekday, hour: of('hour'), minute: of('minute') };
  };
}

function parseCron(expression: string): CronSchedule {
  const refuse = (why: string) =>
    new TokenmillError('invalid_manifest', `cron: ${JSON.stringify(expression.slice(0, 100))}: ${why}.`, {
      remedy: 'Write five fields: minute hour day month weekday, e.g. "0 8 * * 1-5".',
    });
  if (expression.length > 256) throw refuse('longer than 256 characters');
  const fields = expression.trim().split(/\s+/);
  if (fields.length !== 5) throw refuse(`${fields.length} fields where five are needed`);
  const [minute = '', hour = '', day = '', month = '', weekday = ''] = fields;
  const field = (given: string, name: string, least: number, most: number, words: readonly string[] = []) => {
    const set = fieldSet(given.toLowerCase(), least, most, words);
    if (set === null) throw refuse(`${JSON.stringify(given)} is no ${name} (${least}-${most})`);
    return set;
  };
  return {
    minutes: field(minute, 'minute', 0, 59),
    hours: field(hour, 'hour', 0, 23),
    days: field(day, 'day', 1, 31),
    months: field(month, 'month', 1, 12, MONTHS),
    weekdays: field(weekday, 'weekday', 0, 6, WEEKDAYS),
    // A step above 1 makes a star an ordinary field.
    anyDay: ![day, weekday].some((given) => given.split(',').some((part) => /^[*?](\/0?1)?$/.test(part))),
  };
}

/** `*`, `n`, `n-m`, each with `/step`, and lists of those; null = not understood. */
function fieldSet(field: string, least: number, most: number, words: readonly string[]): bigint | null {
  let set = 0n;
  for (const part of field.split(',')) {
    const form = /^(?:[*?]|([a-z]{3}|\d{1,2})(?:-([a-z]{3}|\d{1,2}))?)(?:\/(\d{1,2}))?$/.exec(part);
    if (form === null) return null;
    const [, from, to, step] = form;
    const number = (word: string) =>
      /^\d/.test(word) ? Number(word) : words.includes(word) ? words.indexOf(word) + least : Number.NaN;
    const first = from === undefined ? least : number(from);
    // `n/step` runs to the end.
    const last = to !== undefined ? number(to) : from === undefined || step !== undefined ? most : first;
    const stride = step === undefined ? 1 : Number(step);
    if (!(first >= least && last <= most && first <= last && stride > 0)) return null;
    for (let value = first; value <= last; value += stride) set |= 1n << BigInt(value);
  }
  return set;
}
