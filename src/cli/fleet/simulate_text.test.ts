import { describe, expect, it } from 'vitest';
import { dailyArrivals } from '../../fleet/simulator/arrival_generators.ts';
import { simulate } from '../../fleet/simulator/simulate.ts';
import { fleetOf, kedaRule, MODEL } from '../../fleet/simulator/testdata/fleet.ts';
import { comparisonText, simulationText } from './simulate_text.ts';

describe('text of a simulation', () => {
  const arrivals = dailyArrivals({ seed: 1, days: 0.1, lowPerSecond: 1, highPerSecond: 2 });
  const run = (threshold: number) =>
    simulate(fleetOf({ rule: kedaRule(threshold) }), arrivals, {
      model: MODEL,
      objectives: { ttftMs: 2000, tpotMs: 50 },
    });
  const [cautious, bold] = [run(4), run(10)];

  it('has the figures, plots as wide as each other, and reasons', () => {
    const lines = simulationText(cautious);
    expect(lines.find((line) => line.startsWith('requests '))).toMatch(new RegExp(` ${arrivals.count}$`));
    const plots = lines.filter((line) => line.includes('│'));
    expect(plots.map((line) => line.indexOf('│'))).toEqual(plots.map(() => plots[0]?.indexOf('│')));
    expect(plots.every((line) => line.split('│')[1]?.length === 72)).toBe(true);
    expect(lines.filter((line) => /^(holds|BROKEN) /.test(line))).toHaveLength(cautious.invariants.length);
    expect(lines.at(-1)).toContain('keda: ');
  });

  it('puts policies side by side, costs as shares of the first', () => {
    const [header, first, second] = comparisonText([
      { name: 'cautious', result: cautious },
      { name: 'bold', result: bold },
    ]);
    expect(header).toContain('replica-hours');
    expect(first).toContain('100.00 %');
    expect(second).toContain(`${((bold.cost / cautious.cost) * 100).toFixed(2)} %`);
    expect(comparisonText([])).toEqual(['(nothing simulated)']);
  });
});
