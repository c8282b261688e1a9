import { describe, expect, it } from 'vitest';
import { cronAnswer, nextTime } from './cron.ts';

const at = (text: string) => Date.parse(text);

describe('cron', () => {
  it.each([
    ['0 8 * * *', 'UTC', '2026-11-22T07:59:59Z', '2026-11-22T08:00:00Z'],
    ['0 8 * * *', 'UTC', '2026-11-22T08:00:00Z', '2026-11-23T08:00:00Z'],
    ['*/15 * * * *', 'UTC', '2026-11-22T08:01:00Z', '2026-11-22T08:15:00Z'],
    ['30 9-17/4 * * mon-fri', 'UTC', '2026-11-20T17:31:00Z', '2026-11-23T09:30:00Z'],
    ['0 0 1 jan *', 'UTC', '2026-11-22T00:00:00Z', '2027-01-01T00:00:00Z'],
    ['0 0 29 2 *', 'UTC', '2026-11-22T00:00:00Z', '2028-02-29T00:00:00Z'],
    // Either of the two days fits when both are given.
    ['0 0 13 * 5', 'UTC', '2026-11-22T00:00:00Z', '2026-11-27T00:00:00Z'],
    ['0 0 */2 * 5', 'UTC', '2026-11-22T00:00:00Z', '2026-11-23T00:00:00Z'],
    ['0 0 ? * 5', 'UTC', '2026-11-22T00:00:00Z', '2026-11-27T00:00:00Z'],
    ['0 8 * * *', 'Europe/Berlin', '2026-07-01T00:00:00Z', '2026-07-01T06:00:00Z'],
    ['0 8 * * *', 'Europe/Berlin', '2026-12-01T00:00:00Z', '2026-12-01T07:00:00Z'],
    ['0 8 * * *', 'Asia/Kathmandu', '2026-12-01T00:00:00Z', '2026-12-01T02:15:00Z'],
    // The hour that the clocks skip has no 02:30.
    ['30 2 * * *', 'Europe/Berlin', '2026-03-28T12:00:00Z', '2026-03-30T00:30:00Z'],
    ['30 2 * * *', 'Europe/Berlin', '2026-10-24T12:00:00Z', '2026-10-25T00:30:00Z'],
  ])('%s in %s after %s comes at %s', (expression, zone, after, expected) => {
    expect(new Date(nextTime(expression, zone, at(after)) as number).toISOString()).toBe(
      new Date(at(expected)).toISOString(),
    );
  });

  it('never comes on 30 February', () => {
    expect(nextTime('0 0 30 2 *', 'UTC', at('2026-11-22T00:00:00Z'))).toBeNull();
  });

  it.each([
    ['* * * *', 'four fields'],
    ['60 * * * *', '"60" is no minute'],
    ['* * * * 7', '"7" is no weekday'],
    ['* * 0 * *', '"0" is no day'],
    ['5-1 * * * *', '"5-1" is no minute'],
    ['*/0 * * * *', '"*/0" is no minute'],
    ['@daily', '1 fields'],
    ['* '.repeat(200), 'longer'],
  ])('refuses %s', (expression, message) => {
    expect(() => nextTime(expression, 'UTC', 0)).toThrow(message === 'four fields' ? '4 fields' : message);
  });

  it('refuses an unknown zone by name', () => {
    expect(() => nextTime('* * * * *', 'Europe/Atlantis', 0)).toThrow('"Europe/Atlantis" is not a time zone');
  });

  const office = { timezone: 'UTC', start: '0 8 * * 1-5', end: '0 18 * * 1-5', desired: 7 };
  it.each<[string, boolean]>([
    ['2026-11-23T07:59:59Z', false],
    ['2026-11-23T08:00:00Z', true],
    ['2026-11-23T17:59:59Z', true],
    ['2026-11-23T18:00:00Z', false],
    ['2026-11-22T12:00:00Z', false],
  ])('asks for its replicas from start to end: %s', (time, active) => {
    expect(cronAnswer(office, at(time))).toEqual({ value: active ? 7 : 1, active });
  });

  it('refuses a start that is the end', () => {
    expect(() => cronAnswer({ ...office, end: office.start }, 0)).toThrow('the same');
  });
});
