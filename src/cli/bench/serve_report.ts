/** From request records to the figures a serving benchmark reports; field names as in vLLM's result file. */
import { TokenmillError } from '../../base/errors.ts';
import type { LoadResult } from './load_generator.ts';
import type { RequestRecord } from './openai_stream.ts';
import { cumulative, formatNumber, histogram, table } from './plot.ts';
import { type Summary, summarize } from './statistics.ts';

export const METRIC_NAMES = ['ttft', 'tpot', 'itl', 'e2el'] as const;
export type MetricName = (typeof METRIC_NAMES)[number];

/** Milliseconds a request may take by metric, all of which it must keep to count as good. */
export type Goodput = Readonly<Partial<Record<MetricName, number>>>;

/** `['ttft:500', 'tpot:50']`; `e2e` is `e2el`. */
export function parseGoodput(terms: readonly string[]): Goodput | null {
  const limits: Partial<Record<MetricName, number>> = {};
  for (const term of terms) {
    const [name, limit] = term.split(':');
    const metric = name === 'e2e' ? 'e2el' : name;
    const known = METRIC_NAMES.find((candidate) => candidate === metric && candidate !== 'itl');
    const ms = Number(limit);
    if (known === undefined || limit === undefined || !(ms > 0)) {
      throw new TokenmillError('flag_invalid', `--goodput ${term} is not a metric and its limit in milliseconds.`, {
        param: '--goodput',
        remedy: 'Give ttft:MS, tpot:MS or e2el:MS.',
      });
    }
    limits[known] = ms;
  }
  return terms.length === 0 ? null : limits;
}

/** Time per output token after the first, ms; null for answers of one token or none. */
export function tpotMs({ ttftMs, e2eMs, outputTokens }: RequestRecord): number | null {
  return ttftMs === null || outputTokens < 2 ? null : (e2eMs - ttftMs) / (outputTokens - 1);
}

function isGood(record: RequestRecord, limits: Goodput): boolean {
  const { ttft = Infinity, tpot = Infinity, e2el = Infinity } = limits;
  return (record.ttftMs ?? Infinity) <= ttft && (tpotMs(record) ?? 0) <= tpot && record.e2eMs <= e2el;
}

export interface ServeReport {
  readonly durationS: number;
  readonly completed: number;
  readonly failed: number;
  readonly errors: Readonly<Record<string, number>>;
  readonly mostInFlight: number;
  /** Null when the server told no usage and the client did not know. */
  readonly inputTokens: number | null;
  readonly cachedTokens: number;
  readonly outputTokens: number;
  readonly outputTokensAreChunks: boolean;
  readonly requestsPerS: number;
  readonly outputTokensPerS: number;
  readonly totalTokensPerS: number | null;
  /** Requests a second that kept every limit; null without limits. */
  readonly goodputPerS: number | null;
  /** How late requests were sent, ms. */
  readonly late: Summary | null;
  readonly metrics: Readonly<Record<MetricName, Summary | null>>;
}

function valuesOf(records: readonly RequestRecord[], metric: MetricName): number[] {
  switch (metric) {
    case 'ttft':
      return records.flatMap(({ ttftMs }) => ttftMs ?? []);
    case 'tpot':
      return records.flatMap((record) => tpotMs(record) ?? []);
    case 'itl':
      return records.flatMap(({ itlMs }) => itlMs);
    case 'e2el':
      return records.map(({ e2eMs }) => e2eMs);
  }
}

const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);

export function reportServe(result: LoadResult, goodput: Goodput | null): ServeReport {
  const good = result.records.filter(({ error }) => error === null);
  const errors: Record<string, number> = {};
  for (const { error } of result.records) if (error !== null) errors[error] = (errors[error] ?? 0) + 1;
  const inputs = good.map(({ promptTokens }) => promptTokens);
  const inputTokens = inputs.includes(null) ? null : sum(inputs as number[]);
  const outputTokens = sum(good.map((record) => record.outputTokens));
  const perS = (count: number) => count / result.durationS;
  return {
    durationS: result.durationS,
    completed: good.length,
    failed: result.records.length - good.length,
    errors,
    mostInFlight: result.mostInFlight,
    inputTokens,
    cachedTokens: sum(good.map((record) => record.cachedTokens)),
    outputTokens,
    outputTokensAreChunks: good.some((record) => record.outputTokensAreChunks),
    requestsPerS: perS(good.length),
    outputTokensPerS: perS(outputTokens),
    totalTokensPerS: inputTokens === null ? null : perS(inputTokens + outputTokens),
    goodputPerS: goodput === null ? null : perS(good.filter((record) => isGood(record, goodput)).length),
    late: summarize(good.map(({ lateMs }) => lateMs)),
    metrics: {
      ttft: summarize(valuesOf(good, 'ttft')),
      tpot: summarize(valuesOf(good, 'tpot')),
      itl: summarize(valuesOf(good, 'itl')),
      e2el: summarize(valuesOf(good, 'e2el')),
    },
  };
}

/** The result file: vLLM's keys, so that scripts which read those read these. */
export function toJson(report: ServeReport, about: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const json: Record<string, unknown> = {
    ...about,
    duration: report.durationS,
    completed: report.completed,
    failed: report.failed,
    errors: report.errors,
    max_concurrent_requests: report.mostInFlight,
    total_input_tokens: report.inputTokens,
    total_cached_tokens: report.cachedTokens,
    total_output_tokens: report.outputTokens,
    request_throughput: report.requestsPerS,
    request_goodput: report.goodputPerS,
    output_throughput: report.outputTokensPerS,
    total_token_throughput: report.totalTokensPerS,
  };
  for (const metric of METRIC_NAMES) {
    const summary = report.metrics[metric];
    if (summary === null) continue;
    json[`mean_${metric}_ms`] = summary.mean;
    json[`median_${metric}_ms`] = summary.p50;
    json[`std_${metric}_ms`] = summary.std;
    for (const p of [50, 90, 95, 99] as const) json[`p${p}_${metric}_ms`] = summary[`p${p}`];
  }
  return json;
}

const TITLES: Readonly<Record<MetricName, string>> = {
  ttft: 'time to first token',
  tpot: 'time per output token',
  itl: 'gap between chunks',
  e2el: 'end to end',
};

/** The report for a terminal. */
export function formatServe(report: ServeReport, records: readonly RequestRecord[]): string[] {
  const orUnknown = (value: number | null) => (value === null ? 'n/a' : formatNumber(value));
  const rows = [
    ['requests', `${report.completed} completed, ${report.failed} failed, at most ${report.mostInFlight} at once`],
    ['duration', `${formatNumber(report.durationS)} s`],
    [
      'tokens',
      `${report.inputTokens ?? 'n/a'} in (${report.cachedTokens} cached), ${report.outputTokens} out${report.outputTokensAreChunks ? ' (chunks: the server sends no usage)' : ''}`,
    ],
    [
      'throughput',
      `${formatNumber(report.requestsPerS)} requests/s, ${formatNumber(report.outputTokensPerS)} output tokens/s, ${orUnknown(report.totalTokensPerS)} tokens/s`,
    ],
  ];
  if (report.goodputPerS !== null)
    rows.push(['goodput', `${formatNumber(report.goodputPerS)} requests/s within all limits`]);
  if (report.late !== null && report.late.max > 5) {
    rows.push([
      'sent late',
      `${formatNumber(report.late.mean)} ms on average, ${formatNumber(report.late.max)} ms at most`,
    ]);
  }
  const lines = rows.map(([name, value]) => `${(name as string).padEnd(12)}${value}`);
  const heads = ['ms', 'mean', 'p50', 'p90', 'p95', 'p99'];
  const cells = METRIC_NAMES.map((metric) => {
    const summary = report.metrics[metric];
    const values =
      summary === null
        ? heads.slice(1).map(() => 'n/a')
        : [summary.mean, summary.p50, summary.p90, summary.p95, summary.p99].map(formatNumber);
    return [TITLES[metric], ...values];
  });
  lines.push('', ...table([heads, ...cells]));
  const good = records.filter(({ error }) => error === null);
  lines.push('', 'time to first token', ...cumulative(valuesOf(good, 'ttft'), 'ms'));
  lines.push('', 'gap between chunks', ...histogram(valuesOf(good, 'itl'), 'ms'));
  const errors = Object.entries(report.errors);
  for (const [error, count] of errors.slice(0, 5)) lines.push('', `${count} failed: ${error}`);
  return lines;
}
