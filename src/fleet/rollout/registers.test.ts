import { describe, expect, test } from 'vitest';
import type { Registers } from '../control/fleet_state.ts';
import { NO_REGISTERS, nextRegisters, type RegisterEvent, trafficTargets } from './registers.ts';

const created = (revision: string): RegisterEvent => ({ kind: 'created', revision });
const ready = (revision: string): RegisterEvent => ({ kind: 'ready', revision });
const served = (revision: string): RegisterEvent => ({ kind: 'served', revision });
const percent = (value: number | null): RegisterEvent => ({ kind: 'percent', percent: value });

/** `C R L P`, `-` = empty. */
function registers(text: string): Registers {
  const [c, r, l, p] = text.split(' ').map((word) => (word === '-' ? null : word)) as (string | null)[];
  return {
    latestCreated: c as string | null,
    latestReady: r as string | null,
    latestRolledOut: l as string | null,
    previousRolledOut: p as string | null,
  };
}

const show = (r: Registers) =>
  [r.latestCreated, r.latestReady, r.latestRolledOut, r.previousRolledOut].map((id) => id ?? '-').join(' ');

/** Rows of the reference's table: C R L P before, the event, C R L P after. */
const TRANSITIONS: [string, string, RegisterEvent, string][] = [
  ['first deploy: created', '- - - -', created('1'), '1 - - -'],
  ['first deploy: ready', '1 - - -', ready('1'), '1 1 - -'],
  ['first deploy: 100%, whatever the percent says', '1 1 - -', percent(20), '1 1 - -'],
  ['R receives 100%, L empty', '1 1 - -', served('1'), '1 1 1 -'],
  ['R receives 100%, L = R', '1 1 1 -', served('1'), '1 1 1 -'],
  ['R receives 100%, L differs', '2 2 1 -', served('2'), '2 2 2 1'],
  ['spec change with N: created', '1 1 1 -', created('2'), '2 1 1 -'],
  ['spec change with N: until it is ready L = R is no rollback', '2 1 1 0', percent(20), '2 1 1 0'],
  ['spec change with N: ready', '2 1 1 -', ready('2'), '2 2 1 -'],
  ['N = 0: all on L', '2 2 1 -', percent(0), '2 2 1 -'],
  ['N removed: promotion', '2 2 1 0', served('2'), '2 2 2 1'],
  ['N = 100 is no split', '2 2 2 1', percent(100), '2 2 2 1'],
  ['N not set is no split', '2 2 2 1', percent(null), '2 2 2 1'],
  ['rollback: N set after the full rollout', '2 2 2 1', percent(0), '2 2 1 1'],
  ['rollback: asked again', '2 2 1 1', percent(0), '2 2 1 1'],
  ['rollback: nothing before it', '1 1 1 -', percent(0), '1 1 1 -'],
  ['after the rollback: promoted again', '2 2 1 1', served('2'), '2 2 2 1'],
];

/** C R L P, N, tag routing -> targets. */
const TARGETS: [string, string, number | null, boolean, string][] = [
  ['nothing is ready', '1 - - -', 20, false, ''],
  ['first deploy: 100% whatever N says', '1 1 - -', 20, false, '1=100'],
  ['first deploy done, N still there', '1 1 1 -', 20, false, '1=100'],
  ['N% and the rest with prev', '2 2 1 -', 20, false, '2=20 1=80:prev'],
  ['latest only with tag routing', '2 2 1 -', 20, true, '2=20:latest 1=80:prev'],
  ['N = 0', '2 2 1 -', 0, false, '2=0 1=100:prev'],
  ['N = 100', '2 2 1 -', 100, false, '2=100'],
  ['N removed', '2 2 1 -', null, true, '2=100:latest'],
  ['created, not ready: R serves on', '2 1 1 -', 20, false, '1=100'],
  ['rolled back', '2 2 1 1', 0, false, '2=0 1=100:prev'],
];

describe('registers', () => {
  test.each(TRANSITIONS)('%s', (_name, before, event, after) => {
    expect(show(nextRegisters(registers(before), event))).toBe(after);
  });

  test.each(TARGETS)('targets: %s', (_name, before, n, tagLatest, expected) => {
    const targets = trafficTargets(registers(before), n, tagLatest);
    const shown = targets.map((t) => `${t.revision}=${t.percent}${t.tag === null ? '' : `:${t.tag}`}`);
    expect(shown.join(' ')).toBe(expected);
    if (targets.length > 0) expect(targets.reduce((sum, t) => sum + t.percent, 0)).toBe(100);
  });

  test('no revision yet', () => {
    expect(show(NO_REGISTERS)).toBe('- - - -');
  });
});
