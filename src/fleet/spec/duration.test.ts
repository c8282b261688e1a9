import { expect, it } from 'vitest';
import { parseDuration } from './duration.ts';

it.each([
  ['0', 0],
  ['0s', 0],
  ['500ms', 500],
  ['1.5h', 5_400_000],
  ['1h30m', 5_400_000],
  ['1m30s', 90_000],
  ['250us', 0.25],
  ['1000ns', 0.001],
  ['', null],
  ['5', null],
  ['s', null],
  ['-5s', null],
  ['5 s', null],
  ['5d', null],
  ['1..5s', null],
  ['99999999999s', null],
  ['1s'.repeat(9), null],
])('%s is %s ms', (text, ms) => {
  expect(parseDuration(text)).toBe(ms);
});
