/**
 * Our answers beside Prometheus's own: random series and queries, evaluated by `promtool test rules` (Debian's package prometheus)
 * and by us. Times of evaluation lie between samples, because versions 2 and 3 differ on whether a border belongs to a range, and
 * counters that begin within a range begin high, because they differ on how far such a one is extrapolated to zero.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { Rng } from '../../base/rng.ts';
import { evaluateQuery } from './evaluate.ts';
import { type Labels, SampleStore } from './sample_store.ts';

const STEP_MS = 15_000;
const SAMPLES = 60;
const QUERIES = 600;

/** null = no sample there; 'stale' = the series ends. */
type Sample = number | null | 'stale';

interface RandomSeries {
  readonly name: string;
  readonly labels: Labels;
  readonly samples: readonly Sample[];
}

const round = (value: number) => Math.round(value * 1000) / 1000;

function holes(rng: Rng, samples: Sample[]): Sample[] {
  const from = rng.next() < 0.15 ? rng.int(0, 30) : 0;
  return samples.map((sample, at) => {
    if (at < from || rng.next() < 0.04) return null;
    return rng.next() < 0.01 ? 'stale' : sample;
  });
}

function counter(rng: Rng): Sample[] {
  let value = 1e6 + rng.int(0, 1000);
  return holes(
    rng,
    Array.from({ length: SAMPLES }, () => {
      value += rng.int(0, 30) * rng.next();
      return round(value);
    }),
  );
}

/** From 0 and without holes: its first values bound how far back it can be stretched. */
function young(rng: Rng): Sample[] {
  let value = 0;
  return Array.from({ length: SAMPLES }, (_, at) => {
    if (at > 0) value = rng.next() < 0.02 ? 0 : value + rng.int(0, 3);
    return value;
  });
}

function gauge(rng: Rng): Sample[] {
  const odd = [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
  const hasOdd = rng.next() < 0.2;
  return holes(
    rng,
    Array.from({ length: SAMPLES }, () => (hasOdd && rng.next() < 0.1 ? rng.pick(odd) : round(rng.normal() * 20 + 5))),
  );
}

function randomSeries(rng: Rng): RandomSeries[] {
  const targets = [
    { job: 'a', instance: '1', zone: 'x' },
    { job: 'a', instance: '2', zone: 'y' },
    { job: 'b', instance: '3', zone: 'x' },
    { job: 'b', instance: '4', zone: '' },
  ];
  const series = targets.flatMap((labels) => [
    { name: 'requests_total', labels, samples: counter(rng) },
    { name: 'waiting', labels, samples: gauge(rng) },
    { name: 'running', labels, samples: gauge(rng) },
    { name: 'young_total', labels, samples: young(rng) },
  ]);
  const buckets = targets.slice(0, 2).flatMap((labels) => {
    const counts = ['0.1', '0.5', '2', '+Inf'].map(() => 0);
    const rows = Array.from({ length: SAMPLES }, () => {
      for (const at of counts.keys()) counts[at] = (counts[at] as number) + rng.int(0, 9);
      return counts.map((_, at) => counts.slice(0, at + 1).reduce((sum, count) => sum + count, 1e5));
    });
    return ['0.1', '0.5', '2', '+Inf'].map((le, at) => ({
      name: 'ttft_bucket',
      labels: { ...labels, le },
      samples: rows.map((row) => row[at] as number),
    }));
  });
  const limit = { name: 'limit', labels: { job: 'a', owner: 'me' }, samples: Array<Sample>(SAMPLES).fill(7) };
  return [...series, ...buckets, limit];
}

function randomQuery(rng: Rng): string {
  const pick = (...of: string[]) => rng.pick(of);
  const number = () => pick('0', '1', '2.5', '-3', '0.95', '1e1', '100');
  const where = () =>
    pick('', '', '', '{job="a"}', '{job!="a"}', '{zone=~"x|y"}', '{zone!~"x.*"}', '{zone=""}', '{instance=~"[12]"}');
  const offset = () => pick('', '', '', ' offset 1m', ' offset 90s', ' offset -30s');
  const range = () => `[${pick('30s', '45s', '1m', '2m30s', '5m', '10m')}]`;
  const name = () => pick('waiting', 'running', 'requests_total');
  const gaugeRange = () => `${name()}${where()}${range()}${offset()}`;
  const overTime = () => {
    const of = pick('avg', 'max', 'min', 'sum', 'count', 'last');
    return rng.next() < 0.15
      ? `quantile_over_time(${pick('0', '0.5', '0.95', '1', '1.5')}, ${gaugeRange()})`
      : `${of}_over_time(${gaugeRange()})`;
  };
  const leaf = (): string => {
    const at = rng.int(0, 9);
    if (at < 3) return `${name()}${where()}${offset()}`;
    if (at < 6)
      return `${pick('rate', 'increase', 'irate')}(${pick('requests_total', 'young_total')}${where()}${range()}${offset()})`;
    if (at < 7) return `${pick('delta', 'idelta')}(${pick('waiting', 'running')}${range()})`;
    if (at < 9) return overTime();
    return `absent(${pick('waiting', 'nothing')}${pick('', '{job="a"}', '{job="c",zone=~"x"}')})`;
  };
  const grouping = () => pick('', '', ' by (job)', ' by (zone)', ' without (instance)', ' by (job, zone)');
  const vector = (depth: number): string => {
    if (depth === 0) return leaf();
    const inner = () => vector(depth - 1);
    const shapes: (() => string)[] = [
      () => `${pick('sum', 'avg', 'max', 'min', 'count')}${grouping()} (${inner()})`,
      () => `quantile${grouping()} (${pick('0', '0.5', '0.9')}, ${inner()})`,
      () => `${pick('abs', 'ceil', 'floor', 'round')}(${inner()})`,
      () => `round(${inner()}, ${pick('5', '0.1')})`,
      () => `clamp(${inner()}, -1, ${pick('5', '-2')})`,
      () => `${pick('clamp_min', 'clamp_max')}(${inner()}, ${number()})`,
      () => `(${inner()}) ${pick('+', '-', '*', '/', '^')} ${number()}`,
      // The last digit of anything computed would decide what is left of it.
      () => `${name()}${where()} % ${number()}`,
      () => `${number()} ${pick('+', '-', '*', '/', '^')} (${inner()})`,
      () => `(${inner()}) ${pick('>', '<', '>=', '<=', '==', '!=')} ${pick('', 'bool ')}${number()}`,
      () => `${number()} ${pick('>', '<', '!=')} ${pick('', 'bool ')}(${inner()})`,
      () => `-(${inner()})`,
      () => `(${inner()}) ${pick('and', 'or', 'unless')} ${pick('', 'on (job) ', 'ignoring (zone) ')}(${inner()})`,
      () => `waiting ${pick('+', '-', '/', '>', '<')} ${pick('', 'on (instance) ', 'ignoring (zone) ')}running`,
      () => `waiting ${pick('>', '<=')} bool running`,
      () => `waiting ${pick('*', '/', '>')} on (job) group_left${pick('', ' (owner)')} limit`,
      () => `limit ${pick('*', '-', '<')} on (job) group_right${pick('', ' (owner)')} ${pick('running', 'waiting')}`,
      () => `sum(${inner()}) or vector(0)`,
      () => `vector(scalar(sum(${inner()})) ${pick('+', '*')} ${number()})`,
      () => `(${inner()}) - time() / 1e3`,
      () =>
        `histogram_quantile(${pick('0.5', '0.95', '0', '1', '2')}, sum by (le${pick('', ', job')}) (rate(ttft_bucket${range()})))`,
      () => `histogram_quantile(0.9, ttft_bucket${where()})`,
      () => `${pick('topk', 'bottomk')}(${pick('1', '2', '0')}, requests_total)`,
    ];
    return rng.pick(shapes)();
  };
  return vector(rng.int(0, 3));
}

const sampleText = (sample: Sample) => {
  if (sample === null) return '_';
  if (typeof sample === 'string') return sample;
  return Number.isFinite(sample) ? String(sample) : String(sample).replace('inity', '');
};

const quoted = (labels: Iterable<readonly [string, string]>) =>
  [...labels].map(([label, value]) => `${label}=${JSON.stringify(value)}`).join(', ');

interface Asked {
  readonly expr: string;
  readonly atMs: number;
}

/** What promtool got for each query: `{labels} value` lines, or null when it could not answer. */
function askPromtool(series: readonly RandomSeries[], asked: readonly Asked[]): (string[] | null)[] {
  const folder = mkdtempSync(join(tmpdir(), 'promql-'));
  const test = {
    interval: '15s',
    input_series: series.map(({ name, labels, samples }) => ({
      series: `${name}{${quoted(Object.entries(labels).filter(([, value]) => value !== ''))}}`,
      values: samples.map(sampleText).join(' '),
    })),
    // Nobody has that: so every answer is printed as a difference.
    promql_expr_test: asked.map(({ expr, atMs }) => ({
      expr,
      eval_time: `${atMs}ms`,
      exp_samples: [{ labels: '{never="1"}', value: 0 }],
    })),
  };
  try {
    const file = join(folder, 'test.yml');
    writeFileSync(file, JSON.stringify({ rule_files: [], evaluation_interval: '15s', tests: [test] }));
    const { stderr } = spawnSync('promtool', ['test', 'rules', file], { encoding: 'utf8', maxBuffer: 2 ** 28 });
    const answers = stderr.split(/^ {4}expr: /m).slice(1);
    expect(answers.length, stderr.slice(0, 500)).toBe(asked.length);
    return answers.map((answer) => {
      const got = /^ {8}got: ?(.*)$/m.exec(answer)?.[1];
      return got === undefined ? null : [...got.matchAll(/\{[^}]*\} [+-]?[\w.+-]+/g)].map(([element]) => element);
    });
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function askUs(store: SampleStore, { expr, atMs }: Asked): Map<string, number> | null {
  const result = evaluateQuery(expr, store, atMs);
  if ('failed' in result) return null;
  return new Map(result.elements.map(({ labels, value }) => [`{${quoted(labels)}}`, value]));
}

function near(a: number, b: number): boolean {
  if (Object.is(a, b) || a === b) return true;
  return Math.abs(a - b) <= 1e-9 * Math.max(Math.abs(a), Math.abs(b), 1e-3);
}

const version = spawnSync('promtool', ['--version'], { encoding: 'utf8' });
const missing = version.error !== undefined;
if (missing) console.warn('promtool is not installed (Debian: prometheus); the comparison with Prometheus is skipped.');

it.skipIf(missing).each([1, 2, 3, 4, 5, 6])('answers as Prometheus does, seed %d', (seed) => {
  const rng = new Rng(seed);
  const series = randomSeries(rng);
  const store = new SampleStore();
  for (const { name, labels, samples } of series) {
    for (const [at, sample] of samples.entries()) {
      if (sample === 'stale') store.end(name, labels, at * STEP_MS);
      else if (sample !== null) store.add(name, labels, at * STEP_MS, sample);
    }
  }
  const asked = Array.from({ length: QUERIES }, () => ({
    expr: randomQuery(rng),
    atMs: rng.int(3, SAMPLES + 25) * STEP_MS - rng.int(1000, 14_000),
  }));
  const theirs = askPromtool(series, asked);
  let failures = 0;
  for (const [at, query] of asked.entries()) {
    const [ours, their] = [askUs(store, query), theirs[at] ?? null];
    const what = `${query.expr} at ${query.atMs} ms: ${JSON.stringify(their)}`;
    if (their === null) failures++;
    expect(ours === null, what).toBe(their === null);
    if (ours === null || their === null) continue;
    const expected = their.map((element) => {
      const cut = element.lastIndexOf(' ');
      return [element.slice(0, cut), Number(element.slice(cut + 1).replace('Inf', 'Infinity'))] as const;
    });
    expect([...ours.keys()].sort(), what).toEqual(expected.map(([labels]) => labels).sort());
    for (const [labels, value] of expected) {
      const own = ours.get(labels) as number;
      expect(near(own, value), `${what}: ${labels} is ${own}`).toBe(true);
    }
  }
  // Most queries have an answer, or little was compared.
  expect(failures).toBeLessThan(QUERIES / 5);
});
