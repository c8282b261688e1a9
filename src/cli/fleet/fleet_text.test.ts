/** A fleet as `up --dry-run` shows it, and what `diff` says of two. Recorded in testdata/; REWRITE=1 records anew. */
import { readFileSync, writeFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { readFleet } from '../../fleet/spec/read_fleet.ts';
import { fleetDiff } from './fleet_diff.ts';
import { fleetPlanText } from './fleet_plan_text.ts';
import { durationText } from './rule_text.ts';

const testdata = (name: string) => new URL(`testdata/${name}`, import.meta.url);
const fleet = (name: string) => readFleet([{ file: name, text: readFileSync(testdata(name), 'utf8') }]);

function recorded(name: string, text: string): void {
  if (process.env['REWRITE']) writeFileSync(testdata(name), text);
  expect(text).toBe(readFileSync(testdata(name), 'utf8'));
}

describe('the plan', () => {
  it('tells everything the file asks for', () => recorded('before.plan.txt', fleetPlanText(fleet('before.yaml'))));

  it('shows no value of a variable', () => {
    const text = fleetPlanText(fleet('before.yaml'));
    expect(text).toContain('HF_TOKEN');
    expect(text).not.toContain('hf_secret');
  });
});

describe('the difference', () => {
  it('goes by object and field', () =>
    recorded('before_after.diff.txt', fleetDiff(fleet('before.yaml'), fleet('after.yaml'))));

  it('is nothing between a file and itself, wherever its objects stand', () => {
    const text = readFileSync(testdata('before.yaml'), 'utf8');
    expect(fleetDiff(fleet('before.yaml'), readFleet([{ file: 'other.yaml', text: `# moved\n\n${text}` }]))).toBe('');
  });

  it('shows no value of a variable', () => {
    const text = fleetDiff(fleet('before.yaml'), fleet('after.yaml'));
    expect(text).toContain('template.env.HF_TOKEN: changed');
    expect(text).not.toMatch(/hf_(secret|other)/);
  });
});

it.each([
  [0, '0s'],
  [1, '1ms'],
  [500, '500ms'],
  [90_000, '1m30s'],
  [3_600_000, '1h'],
  [86_400_000, '24h'],
  [0.5, '0.5ms'],
])('%d ms is %s', (ms, text) => {
  expect(durationText(ms)).toBe(text);
});
