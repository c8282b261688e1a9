import { expect, test } from 'vitest';
import type { ProbeSpec } from '../spec/fleet_spec.ts';
import { afterLook, isDue, looking, newProbe, type ProbeState } from './probe_state.ts';

const SPEC: ProbeSpec = {
  path: '/health',
  initialDelayMs: 500,
  periodMs: 1000,
  timeoutMs: 300,
  successThreshold: 2,
  failureThreshold: 3,
};

/** Looks whenever one is due until `untilMs`, a millisecond at a time; gives the times of looks and of changed verdicts. */
function watch(
  state: ProbeState,
  from: number,
  untilMs: number,
  ok: (now: number) => boolean,
  eager: (s: ProbeState) => boolean,
) {
  const looks: number[] = [];
  const verdicts: (readonly [number, boolean | null])[] = [];
  let probe = state;
  for (let now = from; now <= untilMs; now++) {
    if (!isDue(probe, now)) continue;
    looks.push(now);
    const next = afterLook(looking(probe, SPEC, now), SPEC, ok(now), now, eager(probe));
    if (next.passing !== probe.passing) verdicts.push([now, next.passing]);
    probe = next;
  }
  return { looks, verdicts, probe };
}

test('waits for the initial delay, then needs its successes in a row', () => {
  const { looks, verdicts } = watch(
    newProbe(SPEC, 0),
    0,
    3000,
    () => true,
    () => false,
  );
  expect(looks).toEqual([500, 1500, 2500]);
  expect(verdicts).toEqual([[1500, true]]);
});

test("fails after its threshold, at the kubelet's pace even when it looks eagerly", () => {
  const patient = watch(
    newProbe(SPEC, 0),
    0,
    4000,
    () => false,
    () => false,
  );
  const eager = watch(
    newProbe(SPEC, 0),
    0,
    4000,
    () => false,
    () => true,
  );
  expect(patient.verdicts).toEqual([[2500, false]]);
  expect(eager.verdicts).toEqual([[2500, false]]);
  expect(eager.looks.length).toBeGreaterThan(5 * patient.looks.length);
});

test('an eager look finds a start at once', () => {
  const { verdicts } = watch(
    newProbe(SPEC, 0),
    0,
    4000,
    (now) => now >= 1510,
    () => true,
  );
  expect(verdicts).toEqual([[1700, true]]);
});

test('one good answer takes failures back', () => {
  const answers = [false, false, true, false, false, true, false, false, false];
  const { verdicts } = watch(
    newProbe(SPEC, 0),
    0,
    9000,
    (now) => answers[Math.floor(now / 1000)] ?? true,
    () => false,
  );
  expect(verdicts).toEqual([[8500, false]]);
});

test('a look that has begun is not begun again before its timeout', () => {
  const begun = looking(newProbe(SPEC, 0), SPEC, 500);
  expect(isDue(begun, 799)).toBe(false);
  expect(isDue(begun, 1800)).toBe(true);
});
