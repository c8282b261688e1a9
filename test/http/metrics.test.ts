import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { METRICS } from '../../src/metrics/definitions.ts';
import { type Bench, bench } from './harness.ts';

interface Family {
  readonly type: string;
  readonly labels: Set<string>;
  /** Label sets of the children, values of closed labels included. */
  readonly children: Set<string>;
  readonly buckets: Set<number>;
}

const OPEN = new Set(['model_name', 'le', 'handler', 'method', 'status']);

/** The Prometheus text form as families. */
function parse(text: string): Map<string, Family> {
  const families = new Map<string, Family>();
  for (const line of text.split('\n')) {
    const type = /^# TYPE (\S+) (\S+)$/.exec(line);
    if (type)
      families.set(type[1] ?? '', { type: type[2] ?? '', labels: new Set(), children: new Set(), buckets: new Set() });
    const sample = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$/.exec(line);
    if (!sample || line.startsWith('#')) continue;
    const name = sample[1] ?? '';
    const family = families.get(name) ?? families.get(name.replace(/_(bucket|sum|count)$/, ''));
    if (!family) continue;
    const labels = [...(sample[2] ?? '').matchAll(/([\w]+)="((?:[^"\\]|\\.)*)"/g)].map(
      (match) => [match[1] ?? '', match[2] ?? ''] as const,
    );
    for (const [label, value] of labels) {
      if (label === 'le' && name.endsWith('_bucket')) family.buckets.add(Number(value.replace('+Inf', 'Infinity')));
      if (label !== 'le') family.labels.add(label);
    }
    family.children.add(
      labels
        .filter(([label]) => !OPEN.has(label))
        .map(([label, value]) => `${label}=${value}`)
        .sort()
        .join(','),
    );
  }
  return families;
}

let b: Bench;
let ours: Map<string, Family>;
beforeAll(async () => {
  b = await bench();
  for (const stream of [false, true])
    await b.server.app.inject({
      method: 'POST',
      url: '/v1/completions',
      payload: { prompt: 'x', max_tokens: 4, stream },
    });
  await b.server.app.inject('/v1/nope');
  const response = await b.server.app.inject('/metrics');
  expect(response.headers['content-type']).toContain('text/plain');
  ours = parse(response.body);
});
afterAll(() => b.close());

it('exports exactly the current names of the table, and process metrics', () => {
  const names = Object.entries(METRICS)
    .filter(([, definition]) => !('legacy' in definition))
    .map(([name]) => name);
  const exported = [...ours.keys()].filter((name) => /^(vllm:|tokenmill:|http_)/.test(name));
  expect(exported.sort()).toEqual(names.sort());
  for (const name of [
    'process_resident_memory_bytes',
    'process_cpu_seconds_total',
    'process_start_time_seconds',
    'nodejs_eventloop_lag_seconds',
    'nodejs_heap_size_used_bytes',
  ]) {
    expect(ours.has(name), name).toBe(true);
  }
});

it('counts what was asked', async () => {
  const text = await b.server.context.registry.text();
  const value = (pattern: RegExp): number => Number(pattern.exec(text)?.[1]);
  expect(value(/vllm:request_success_total\{[^}]*finished_reason="length"[^}]*\} (\d+)/)).toBe(2);
  expect(value(/vllm:generation_tokens_total\{[^}]*\} (\d+)/)).toBe(8);
  expect(value(/vllm:prompt_tokens_total\{[^}]*\} (\d+)/)).toBe(2);
  expect(value(/vllm:time_to_first_token_seconds_count\{[^}]*\} (\d+)/)).toBe(2);
  expect(value(/vllm:inter_token_latency_seconds_count\{[^}]*\} (\d+)/)).toBe(6);
  expect(value(/http_requests_total\{[^}]*handler="\/v1\/completions"[^}]*\} (\d+)/)).toBe(2);
  expect(value(/http_requests_total\{[^}]*handler="none"[^}]*\} (\d+)/)).toBe(1);
  expect(text).not.toContain('handler="/metrics"');
});

it('old names come with the flag and stay equal to the new ones', async () => {
  const legacy = await bench({ legacyMetrics: true });
  await legacy.server.app.inject({ method: 'POST', url: '/v1/completions', payload: { prompt: 'x', max_tokens: 4 } });
  const families = parse((await legacy.server.app.inject('/metrics')).body);
  for (const name of Object.keys(METRICS)) expect(families.has(name), name).toBe(true);
  expect(families.get('vllm:time_per_output_token_seconds')?.buckets).toEqual(
    families.get('vllm:inter_token_latency_seconds')?.buckets,
  );
  await legacy.close();
});

it('--disable-log-stats leaves out what the engine reports, and requests still work', async () => {
  const off = await bench({ disableLogStats: true });
  const answer = await off.server.app.inject({
    method: 'POST',
    url: '/v1/completions',
    payload: { prompt: 'x', max_tokens: 4 },
  });
  expect(answer.statusCode).toBe(200);
  const families = parse((await off.server.app.inject('/metrics')).body);
  expect([...families.keys()].filter((name) => name.startsWith('vllm:'))).toEqual(['vllm:cache_config_info']);
  expect(families.has('http_requests_total')).toBe(true);
  await off.close();
});

const THEIRS = fileURLToPath(new URL('../../../shared/contract/metrics.txt', import.meta.url));
if (!existsSync(THEIRS)) console.warn(`skipped: recorded /metrics of vLLM are not at ${THEIRS}`);

/** Families of theirs that this engine cannot feed truthfully. */
const ABSENT = [
  /_created$/,
  /^python_/,
  /^vllm:estimated_/,
  /^vllm:engine_sleep_state$/,
  /^vllm:external_prefix_cache/,
  /^vllm:mm_cache/,
  /^process_virtual_memory_bytes$/,
];

describe.skipIf(!existsSync(THEIRS))('against the recorded /metrics of vLLM', () => {
  const theirs = existsSync(THEIRS) ? parse(readFileSync(THEIRS, 'utf8')) : new Map<string, Family>();

  it('every family that applies is here', () => {
    const missing = [...theirs.keys()].filter(
      (name) => !ours.has(name) && !ABSENT.some((pattern) => pattern.test(name)),
    );
    expect(missing).toEqual([]);
  });

  it.each([...theirs.keys()].filter((name) => name in METRICS))('%s: type, labels, children, buckets', (name) => {
    const [mine, recorded] = [ours.get(name), theirs.get(name)];
    expect(mine?.type).toBe(recorded?.type);
    expect([...(mine?.buckets ?? [])]).toEqual([...(recorded?.buckets ?? [])]);
    if (name === 'vllm:cache_config_info') {
      for (const label of mine?.labels ?? []) expect(recorded?.labels).toContain(label);
      return;
    }
    expect([...(mine?.labels ?? [])].sort()).toEqual([...(recorded?.labels ?? [])].sort());
    if (name.startsWith('vllm:'))
      expect([...(mine?.children ?? [])].sort()).toEqual([...(recorded?.children ?? [])].sort());
  });
});
