/**
 * Whole days in virtual time, as files a person can read: `days`, `arrivals`, `start`, `objective`, `fault` and `policy` lines are
 * the input, the indented lines under them what came of it. REWRITE=1 writes them anew; review the diff. Each policy runs on the
 * same arrivals; the last day is measured, the days before are there to learn from. `day` shows it by the hour, `events` each
 * change with its reason, and `compare` holds our rule against the KEDA policy with the fewest replica-hours among those that
 * meet the objective. A `policy keda` line is what an operator would have to find by trying.
 */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import type { ScalingRule } from '../spec/fleet_spec.ts';
import { dailyArrivals } from './arrival_generators.ts';
import type { Arrivals } from './arrivals.ts';
import { type Faults, NO_FAULTS } from './replica_model.ts';
import type { SimulationResult } from './result.ts';
import { simulate } from './simulate.ts';
import { fleetOf, kedaRule, MODEL, proactiveRule } from './testdata/fleet.ts';

const FOLDER = new URL('./testdata/', import.meta.url);
const [HOUR_MS, DAY_MS] = [3_600_000, 86_400_000];

type Options = Readonly<Record<string, number>>;

class Scenario {
  private arrivals: Arrivals | null = null;
  private days = 1;
  private startMs = 90_000;
  private objective = { ttft: 2000, tpot: 50, share: 99, minutes: 0 };
  private faults: Faults = NO_FAULTS;
  private readonly results: { readonly name: string; readonly result: SimulationResult }[] = [];

  run(line: string): string[] {
    const [command = '', ...words] = line.split(/\s+/);
    const plain = words.filter((word) => !word.includes('='));
    const given: Options = Object.fromEntries(
      words.filter((word) => word.includes('=')).map((word) => [word.split('=')[0], Number(word.split('=')[1])]),
    );
    if (command === 'arrivals') return this.setArrivals(given);
    if (command === 'policy') return this.policy(words.join(' '), plain[0] as string, given);
    if (command === 'day') return this.day();
    if (command === 'events') return this.events();
    if (command === 'compare') return this.compare();
    if (command === 'start') this.startMs = (given['seconds'] as number) * 1000;
    else if (command === 'objective') this.objective = { ...this.objective, ...given };
    else if (command === 'fault') this.fault(plain[0] as string, given);
    else throw new Error(`unknown command: ${line}`);
    return [];
  }

  private setArrivals(given: Options): string[] {
    const { seed = 1, days = 1, low = 0, high = 1, peak = 14, sharpness = 1.5, bursts = 0, output = 400 } = given;
    const { from, to = 18, rise = 10 } = given;
    this.days = days;
    this.arrivals = dailyArrivals({
      seed,
      days,
      lowPerSecond: low,
      highPerSecond: high,
      peakHour: peak,
      sharpness,
      shift: from === undefined ? null : { fromHour: from, toHour: to, riseMinutes: rise },
      bursts: { perDay: bursts, factor: 2.5, durationS: 900 },
      outputTokens: { median: output, sigma: 0.6 },
    });
    return [`${this.arrivals.count} requests in ${days} days`];
  }

  private fault(kind: string, given: Options): void {
    const at = (name: string) => Math.round((given[name] as number) * HOUR_MS);
    const { crashesAtMs, missing } = this.faults;
    if (kind === 'crash') this.faults = { ...this.faults, crashesAtMs: [...crashesAtMs, at('hour')] };
    else if (kind === 'missing') {
      this.faults = { ...this.faults, missing: [...missing, { fromMs: at('from'), toMs: at('to') }] };
    } else this.faults = { ...this.faults, stuckStarts: given['share'] as number };
  }

  private policy(name: string, kind: string, given: Options): string[] {
    const { min = 0, max = 20, threshold = 8, standby = 0 } = given;
    const rules: Readonly<Record<string, ScalingRule>> = {
      keda: kedaRule(threshold, min),
      kpa: { kind: 'kpa', policy: { target: threshold, targetUtilizationPercentage: 100 } },
      proactive: proactiveRule(),
      fixed: { kind: 'fixed' },
    };
    const result = simulate(
      fleetOf({ rule: rules[kind] as ScalingRule, minReplicas: min, maxReplicas: max, standby }),
      this.arrivals as Arrivals,
      {
        model: { ...MODEL, start: { ...MODEL.start, medianMs: this.startMs } },
        objectives: { ttftMs: this.objective.ttft, tpotMs: this.objective.tpot },
        faults: this.faults,
        measureFromMs: Math.max(0, this.days - 1) * DAY_MS,
        endMs: this.days * DAY_MS,
        controlMs: 5000,
        seed: 3,
      },
    );
    this.results.push({ name, result });
    const share = (value: number | null) => `${((value ?? 0) * 100).toFixed(2)} %`;
    const broken = result.invariants.filter(({ holds }) => !holds);
    return [
      `${share(result.attained)} within the objectives, ${share(result.minutesAttained)} of the minutes, ${result.replicaHours.toFixed(1)} replica-hours`,
      `TTFT p95 ${result.ttftMs?.p95.toFixed(0)} ms, TPOT p95 ${result.tpotMs?.p95.toFixed(1)} ms, at most ${result.mostReady} replicas, ${result.starts} starts, ${result.flaps} flaps`,
      ...broken.map(({ name: what, text }) => `not so: ${what}: ${text}`),
    ];
  }

  private get last(): SimulationResult {
    return this.results.at(-1)?.result as SimulationResult;
  }

  private day(): string[] {
    return Array.from({ length: 24 }, (_, hour) => {
      const from = (this.days - 1) * DAY_MS + hour * HOUR_MS;
      const rows = this.last.timeline.filter(({ atMs }) => atMs > from && atMs <= from + HOUR_MS);
      const ready = rows.map((row) => row.ready);
      const rate = rows.reduce((sum, row) => sum + row.arrivals, 0) / 3600;
      const late = rows.filter(({ ttftP95Ms }) => ttftP95Ms !== null && ttftP95Ms > this.objective.ttft).length;
      const span = `${Math.min(...ready)}-${Math.max(...ready)}`;
      return `${String(hour).padStart(2, '0')}: ${rate.toFixed(2)}/s, ${span} ready${late > 0 ? `, ${late} minutes late` : ''}`;
    });
  }

  private events(): string[] {
    const clock = (at: number) => new Date(at).toISOString().slice(11, 19);
    return this.last.events.map(({ at, type, text }) => `${clock(at)} ${type}: ${text}`);
  }

  private compare(): string[] {
    const { share, minutes } = this.objective;
    const holding = this.results.filter(
      ({ result }) => (result.attained ?? 0) * 100 >= share && (result.minutesAttained ?? 0) * 100 >= minutes,
    );
    const best = (kind: string) =>
      holding
        .filter(({ name }) => name.startsWith(kind))
        .sort((a, b) => a.result.replicaHours - b.result.replicaHours)[0];
    const [ours, theirs] = [best('proactive'), best('keda')];
    if (ours === undefined || theirs === undefined) return ['one of them does not meet the objective'];
    const [a, b] = [ours.result.replicaHours, theirs.result.replicaHours];
    expect(a).toBeLessThan(b);
    return [
      `${ours.name}: ${a.toFixed(1)} replica-hours, ${theirs.name}: ${b.toFixed(1)}; ${((1 - a / b) * 100).toFixed(0)} % fewer`,
    ];
  }
}

describe('simulated days', () => {
  const files = readdirSync(FOLDER).filter((name) => name.endsWith('.txt'));
  test.each(files)('%s', { timeout: 60_000 }, (name) => {
    const url = new URL(name, FOLDER);
    const before = readFileSync(url, 'utf8');
    const scenario = new Scenario();
    const after: string[] = [];
    for (const line of before.split('\n')) {
      if (line.startsWith('  ')) continue;
      after.push(line);
      if (line !== '' && !line.startsWith('#')) after.push(...scenario.run(line).map((text) => `  ${text}`));
    }
    if (process.env['REWRITE'] === '1') writeFileSync(url, after.join('\n'));
    else expect(after.join('\n')).toBe(before);
  });
});
