import { expect, it } from 'vitest';
import { parseEngineSample } from './engine_sample.ts';

it('reads the gauges of the model server protocol, ranks added up, the newest adapters', () => {
  const text = `# HELP vllm:num_requests_waiting Requests waiting to be processed.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="a b"} 3
vllm:num_requests_waiting{engine="1",model_name="a b"} 4.0
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 100
vllm:num_requests_running{engine="0"} 2
vllm:kv_cache_usage_perc{engine="0"} 0.25
vllm:kv_cache_usage_perc{engine="1"} 0.5
vllm:lora_requests_info{max_lora="4",running_lora_adapters="old",waiting_lora_adapters=""} 1.0
vllm:lora_requests_info{max_lora="8",running_lora_adapters="x,y",waiting_lora_adapters="z"} 2.0
vllm:cache_config_info{block_size="16",cache_dtype="auto",engine="0",num_gpu_blocks="100"} 1.0
vllm:cache_config_info{block_size="16",cache_dtype="auto",engine="1",num_gpu_blocks="300"} 1.0
`;
  expect(parseEngineSample(text)).toEqual({
    waiting: 7,
    running: 2,
    kvUsage: 0.5,
    lora: { max: 8, running: ['x', 'y'], waiting: ['z'] },
    cacheTokens: 6400,
  });
});

it('knows what it does not know', () => {
  for (const text of [
    '',
    'vllm:num_requests_waiting',
    'vllm:num_requests_waiting NaN\n',
    'x\nvllm:num_requests_waitingX 3\n',
  ]) {
    expect(parseEngineSample(text)).toEqual({
      waiting: null,
      running: null,
      kvUsage: null,
      lora: null,
      cacheTokens: null,
    });
  }
  expect(parseEngineSample('vllm:num_requests_waiting 2')).toMatchObject({ waiting: 2 });
});
