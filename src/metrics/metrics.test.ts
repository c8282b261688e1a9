import { describe, expect, it } from 'vitest';
import { bucketsOf, oneTwoFive, parseCustomBuckets } from './buckets.ts';
import { METRICS, type MetricDefinition, metricNames } from './definitions.ts';
import { describeMetrics } from './describe.ts';
import { EngineMetrics } from './observer.ts';
import { MetricsRegistry } from './registry.ts';

const options = { modelName: 'm', maxModelLen: 1024, processMetrics: false };
const cache = { blockSize: 16, numBlocks: 100, kvDType: 'bfloat16', enablePrefixCaching: true, memoryUtilization: 0.9 };
const step = {
  numRunning: 0,
  numWaiting: 0,
  kvUsage: 0,
  prefixQueries: 0,
  prefixHits: 0,
  preemptions: 0,
  promptTokens: 0,
  generatedTokens: 0,
  tokenBudget: 2048,
  stepMs: 0,
};

/** `name{labels}` -> value, without buckets. */
async function values(registry: MetricsRegistry): Promise<Map<string, number>> {
  const lines = (await registry.text()).split('\n').filter((line) => line !== '' && !line.startsWith('#'));
  return new Map(
    lines.map((line) => [line.slice(0, line.lastIndexOf(' ')), Number(line.slice(line.lastIndexOf(' ') + 1))]),
  );
}

const E = '{model_name="m",engine="0"}';

describe('the table', () => {
  it('has names that Prometheus takes, counters that end in _total, histograms with buckets', () => {
    for (const [name, definition] of Object.entries(METRICS) as [string, MetricDefinition][]) {
      expect(name).toMatch(/^[a-z_]+(:[a-z0-9_]+)?$/);
      expect(definition.help.length, name).toBeGreaterThan(8);
      if (definition.type === 'counter') expect(name).toMatch(/_total$/);
      expect(definition.type === 'histogram', name).toBe(definition.buckets !== undefined);
    }
  });

  it('changes only on purpose: names, types, labels and buckets are recorded', async () => {
    const lines = (Object.entries(METRICS) as [string, MetricDefinition][]).map(([name, d]) => {
      const labels = Object.entries(d.labels).map(([label, values]) =>
        values ? `${label}=${values.join('|')}` : label,
      );
      const buckets = d.buckets ? ` [${bucketsOf(d.buckets, 2048).join(' ')}]` : '';
      return `${d.legacy ? 'legacy ' : ''}${d.type} ${name}{${labels.join(',')}}${buckets}`;
    });
    await expect(`${lines.join('\n')}\n`).toMatchFileSnapshot('./testdata/families.txt');
  });

  it('is described completely', () => {
    const text = describeMetrics();
    for (const name of Object.keys(METRICS)) expect(text).toContain(`\`${name}\``);
    for (const line of text.split('\n').filter((row) => row.startsWith('| `vllm:')))
      expect(line.split('|').length).toBeGreaterThan(4);
  });

  it('keeps the old names apart', () => {
    const plain = metricNames({ legacy: false });
    expect(plain).not.toContain('vllm:gpu_cache_usage_perc');
    expect(metricNames({ legacy: true })).toEqual(expect.arrayContaining([...plain, 'vllm:gpu_cache_usage_perc']));
  });
});

describe('buckets', () => {
  it('1-2-5 series up to the limit', () => {
    expect(oneTwoFive(1024)).toEqual([1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]);
    expect(oneTwoFive(1)).toEqual([1]);
    expect(bucketsOf('request_tokens', 60)).toEqual([1, 2, 5, 10, 20, 50]);
  });

  it('custom ones replace a family; wrong ones are refused', async () => {
    const custom = parseCustomBuckets({ time_to_first_token: [1, 100] });
    const registry = new MetricsRegistry({ ...options, customBuckets: custom });
    const text = await registry.text();
    expect(text.match(/vllm:time_to_first_token_seconds_bucket\{le="[^"]*"/g)).toEqual(
      ['1', '100', '+Inf'].map((le) => `vllm:time_to_first_token_seconds_bucket{le="${le}"`),
    );
    for (const wrong of [
      null,
      [],
      5,
      { x: [1] },
      { request_latency: [] },
      { request_latency: [2, 1] },
      { request_latency: [0] },
      { request_latency: ['1'] },
    ]) {
      expect(() => parseCustomBuckets(wrong)).toThrow(/custom-histogram-buckets/);
    }
  });
});

describe('the registry', () => {
  it('starts every known child at 0, so that rates work from the first scrape', async () => {
    const all = await values(new MetricsRegistry(options));
    for (const reason of ['stop', 'length', 'abort', 'error', 'repetition']) {
      expect(all.get(`vllm:request_success_total{model_name="m",engine="0",finished_reason="${reason}"}`)).toBe(0);
    }
    expect(all.get(`vllm:time_to_first_token_seconds_count${E}`)).toBe(0);
    expect(all.get('vllm:admission_rejections_total{model_name="m",reason="max_num_queued_reqs"}')).toBe(0);
  });

  it('shares nothing with another registry', async () => {
    const [one, two] = [new MetricsRegistry(options), new MetricsRegistry(options)];
    one.counter('vllm:generation_tokens_total')(5);
    expect((await values(one)).get(`vllm:generation_tokens_total${E}`)).toBe(5);
    expect((await values(two)).get(`vllm:generation_tokens_total${E}`)).toBe(0);
  });
});

describe('what the engine reports', () => {
  it('steps feed gauges, counters and the old names', async () => {
    const registry = new MetricsRegistry({ ...options, legacy: true });
    const metrics = new EngineMetrics(registry, 1024, cache);
    metrics.onStep({
      ...step,
      numRunning: 3,
      numWaiting: 2,
      kvUsage: 0.5,
      prefixQueries: 10,
      prefixHits: 4,
      preemptions: 1,
      promptTokens: 6,
      generatedTokens: 3,
      stepMs: 20,
    });
    metrics.onStep({ ...step, kvUsage: 0.25, prefixQueries: 10, generatedTokens: 1, stepMs: 10 });
    const all = await values(registry);
    expect(all.get(`vllm:num_requests_running${E}`)).toBe(0);
    expect(all.get(`vllm:kv_cache_usage_perc${E}`)).toBe(0.25);
    expect(all.get(`vllm:gpu_cache_usage_perc${E}`)).toBe(0.25);
    expect(all.get(`vllm:prefix_cache_queries_total${E}`)).toBe(20);
    expect(all.get(`vllm:gpu_prefix_cache_hit_rate${E}`)).toBe(0.2);
    expect(all.get(`vllm:generation_tokens_total${E}`)).toBe(4);
    expect(all.get(`vllm:num_preemptions_total${E}`)).toBe(1);
    expect(all.get(`vllm:iteration_tokens_total_count${E}`)).toBe(2);
    expect(all.get(`vllm:iteration_tokens_total_sum${E}`)).toBe(10);
    expect([...all.keys()].find((key) => key.startsWith('vllm:cache_config_info'))).toContain('block_size="16"');
  });

  it('a request of two choices: times by the clock it was given, counts by choice', async () => {
    const registry = new MetricsRegistry(options);
    const metrics = new EngineMetrics(registry, 1024, cache);
    const request = metrics.onRequest({ arrivalMs: 1000, n: 2, maxTokens: null });
    const prompt = new Int32Array(10);
    const timing = { scheduledMs: 1500, firstTokenMs: 3000, lastTokenMs: 3000, preemptions: 0 };
    const first = { tokenIds: [1], promptTokenIds: prompt, finishReason: null, cachedTokens: 4, timing };
    request.onOutput({ ...first, index: 0 }, 3100);
    request.onOutput({ ...first, index: 1, finishReason: 'stop' }, 3100);
    request.onOutput(
      { ...first, index: 0, finishReason: 'length', timing: { ...timing, lastTokenMs: 5000, preemptions: 2 } },
      5100,
    );
    request.onEnd('error');
    const all = await values(registry);
    const get = (name: string): number | undefined => all.get(`vllm:${name}${E}`);
    expect(get('time_to_first_token_seconds_sum')).toBeCloseTo(4.2);
    expect(get('inter_token_latency_seconds_sum')).toBeCloseTo(2);
    expect(get('request_queue_time_seconds_sum')).toBeCloseTo(1);
    expect(get('request_prefill_time_seconds_sum')).toBeCloseTo(3);
    expect(get('request_decode_time_seconds_sum')).toBeCloseTo(2);
    expect(get('request_inference_time_seconds_sum')).toBeCloseTo(5);
    expect(get('e2e_request_latency_seconds_sum')).toBeCloseTo(2.1 + 4.1);
    expect(get('request_time_per_output_token_seconds_sum')).toBeCloseTo(2);
    expect([get('prompt_tokens_total'), get('prompt_tokens_cached_total')]).toEqual([20, 8]);
    expect([get('request_generation_tokens_count'), get('request_generation_tokens_sum')]).toEqual([2, 3]);
    expect([get('request_max_num_generation_tokens_count'), get('request_max_num_generation_tokens_sum')]).toEqual([
      1, 2,
    ]);
    expect([get('request_params_n_count'), get('request_params_n_sum')]).toEqual([1, 2]);
    expect(get('request_params_max_tokens_sum')).toBe(2 * 1014);
    expect(get('request_num_preemptions_sum')).toBe(2);
    expect(get('request_prefill_kv_computed_tokens_sum')).toBe(12);
    const reason = (name: string): number | undefined =>
      all.get(`vllm:request_success_total{model_name="m",engine="0",finished_reason="${name}"}`);
    expect([reason('stop'), reason('length'), reason('error'), reason('abort')]).toEqual([1, 1, 0, 0]);
  });

  it('a request that ends without a finish reason is an abort or an error, once', async () => {
    const registry = new MetricsRegistry(options);
    const metrics = new EngineMetrics(registry, 1024, cache);
    const request = metrics.onRequest({ arrivalMs: 0, n: 1, maxTokens: 5 });
    request.onEnd('abort');
    request.onEnd('error');
    const all = await values(registry);
    expect(all.get('vllm:request_success_total{model_name="m",engine="0",finished_reason="abort"}')).toBe(1);
    expect(all.get('vllm:request_success_total{model_name="m",engine="0",finished_reason="error"}')).toBe(0);
  });
});
