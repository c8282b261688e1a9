/** What came of a simulation, for people: figures, the day as small plots, changes with their reasons, policies side by side. */
import type { SimulationResult, TimelineRow } from '../../fleet/simulator/result.ts';
import { formatNumber, table } from '../bench/plot.ts';

export interface NamedResult {
  readonly name: string;
  readonly result: SimulationResult;
}

const STEPS = '▁▂▃▄▅▆▇█';
const WIDTH = 72;
const EVENTS_SHOWN = 20;

/** Figures, plots, what must hold, and the last changes. */
export function simulationText(result: SimulationResult): string[] {
  return [
    ...table(figures(result)),
    '',
    ...plots(result.timeline),
    '',
    ...result.invariants.map(({ name, holds, text }) => `${holds ? 'holds' : 'BROKEN'}  ${name}: ${text}`),
    ...eventLines(result),
  ];
}

/** One row a policy; the last column is what the cost is of the first one's. */
export function comparisonText(results: readonly NamedResult[]): string[] {
  const first = results[0]?.result;
  if (first === undefined) return ['(nothing simulated)'];
  const header = [
    '',
    'in objective',
    'TTFT p95',
    'TPOT p95',
    'replica-hours',
    'cost',
    'of the first',
    'changes',
    'flaps',
  ];
  const rows = results.map(({ name, result }) => [
    name,
    percent(result.attained),
    ms(result.ttftMs?.p95),
    ms(result.tpotMs?.p95),
    formatNumber(result.replicaHours),
    formatNumber(result.cost),
    first.cost > 0 ? percent(result.cost / first.cost) : 'n/a',
    String(changes(result).length),
    String(result.flaps),
  ]);
  const broken = results.flatMap(({ name, result }) =>
    result.invariants
      .filter(({ holds }) => !holds)
      .map((invariant) => `${name}: BROKEN ${invariant.name}: ${invariant.text}`),
  );
  return [...table([header, ...rows]), ...broken];
}

function figures(result: SimulationResult): string[][] {
  const lost = result.refused + result.expired + result.broken;
  return [
    ['rule', result.rule],
    ['requests', String(result.requests)],
    ['completed', String(result.completed)],
    [
      'refused, given up, broken',
      `${result.refused}, ${result.expired}, ${result.broken} (${percent(lost / Math.max(1, result.requests))})`,
    ],
    ['TTFT p50, p95, p99', percentiles(result.ttftMs)],
    ['TPOT p50, p95, p99', percentiles(result.tpotMs)],
    ['requests within the objectives', percent(result.attained)],
    ['minutes within the objective', percent(result.minutesAttained)],
    ['replica-hours', formatNumber(result.replicaHours)],
    ['hours asleep', formatNumber(result.asleepHours)],
    ['cost', formatNumber(result.cost)],
    ['replicas at most', String(result.mostReady)],
    ['starts', String(result.starts)],
    ['changes, flaps', `${changes(result).length}, ${result.flaps}`],
  ];
}

function percentiles(values: SimulationResult['ttftMs']): string {
  return values === null ? 'n/a' : [values.p50, values.p95, values.p99].map(ms).join(', ');
}

function changes({ events }: SimulationResult) {
  return events.filter(({ type }) => type === 'ScaledUp' || type === 'ScaledDown');
}

/** Lines of one character a span of time, each from 0 to its own highest value. */
function plots(timeline: readonly TimelineRow[]): string[] {
  if (timeline.length === 0) return ['(no timeline)'];
  const spans = Math.min(WIDTH, timeline.length);
  const spanOf = (span: number) =>
    timeline.slice(Math.floor((span * timeline.length) / spans), Math.floor(((span + 1) * timeline.length) / spans));
  const most = (of: (row: TimelineRow) => number | null) =>
    Array.from({ length: spans }, (_, span) => spanOf(span).reduce((top, row) => Math.max(top, of(row) ?? 0), 0));
  const everyS = Math.max(1, ((timeline[1]?.atMs ?? 0) - (timeline[0]?.atMs ?? 0)) / 1000);
  const rows = [
    line(
      'arrivals/s',
      most(({ arrivals }) => arrivals / everyS),
    ),
    line(
      'ready',
      most(({ ready }) => ready),
    ),
    line(
      'wanted',
      most(({ wanted }) => wanted),
    ),
    line(
      'held',
      most(({ waiting }) => waiting),
    ),
    line(
      'TTFT p95 ms',
      most(({ ttftP95Ms }) => ttftP95Ms),
    ),
  ];
  const widest = Math.max(...rows.map(({ name }) => name.length));
  return rows.map(({ name, shape, top }) => `${name.padStart(widest)} │${shape}│ to ${formatNumber(top)}`);
}

function line(
  name: string,
  values: readonly number[],
): { readonly name: string; readonly shape: string; readonly top: number } {
  const top = Math.max(...values);
  const shape = values.map((value) =>
    value <= 0 ? ' ' : (STEPS[Math.min(7, Math.floor((value / top) * 8))] as string),
  );
  return { name, shape: shape.join(''), top };
}

function eventLines(result: SimulationResult): string[] {
  const shown = result.events.slice(-EVENTS_SHOWN);
  if (shown.length === 0) return [];
  const left = result.events.length - shown.length;
  const time = (at: number) => new Date(at).toISOString().replace('T', ' ').slice(0, 19);
  return [
    '',
    left > 0 ? `Last ${shown.length} of ${result.events.length} events:` : 'Events:',
    ...shown.map(({ at, type, text }) => `${time(at)}  ${type}  ${text}`),
  ];
}

function percent(share: number | null): string {
  return share === null ? 'n/a' : `${(share * 100).toFixed(2)} %`;
}

function ms(value: number | undefined): string {
  return value === undefined ? 'n/a' : `${formatNumber(value)} ms`;
}
