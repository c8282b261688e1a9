/** The few gauges of an engine's /metrics that choosing needs (model server protocol of the inference extension). */
import type { LoraState } from '../pick/scorers.ts';

export interface EngineSample {
  /** Null = the engine does not say. */
  readonly waiting: number | null;
  readonly running: number | null;
  /** 0..1 */
  readonly kvUsage: number | null;
  readonly lora: LoraState | null;
  /** Tokens that the KV cache holds, all ranks together. */
  readonly cacheTokens: number | null;
}

/** Of one name; data-parallel ranks have a line each. */
const MAX_SERIES = 1024;
const MAX_LINE_CHARS = 65_536;

function eachLine(text: string, name: string, visit: (labels: string, value: number) => void): void {
  let at = text.startsWith(name) ? 0 : text.indexOf(`\n${name}`) + 1;
  for (let series = 0; series < MAX_SERIES; series++) {
    if (at === 0 && !text.startsWith(name)) return;
    const start = at + name.length;
    const lineEnd = text.indexOf('\n', start);
    const line = text.slice(start, Math.min(lineEnd < 0 ? text.length : lineEnd, start + MAX_LINE_CHARS));
    const match = /^(\{.*\})?\s+(\S+)/.exec(line);
    const value = Number(match?.[2] ?? Number.NaN);
    if (match !== null && Number.isFinite(value)) visit(match[1] ?? '', value);
    at = text.indexOf(`\n${name}`, start) + 1;
    if (at === 0) return;
  }
}

function total(text: string, name: string): number | null {
  let sum: number | null = null;
  eachLine(text, name, (_labels, value) => {
    sum = (sum ?? 0) + Math.max(0, value);
  });
  return sum;
}

function greatest(text: string, name: string): number | null {
  let most: number | null = null;
  eachLine(text, name, (_labels, value) => {
    most = Math.max(most ?? 0, value);
  });
  return most === null ? null : Math.min(1, most);
}

const names = (list: string | undefined): string[] =>
  (list ?? '')
    .split(',')
    .filter((name) => name !== '')
    .slice(0, 256);

function label(labels: string, name: string): string | undefined {
  return new RegExp(`[{,]${name}="([^"]*)"`).exec(labels)?.[1];
}

/** The newest series wins. */
function loraState(text: string): LoraState | null {
  let newest = Number.NEGATIVE_INFINITY;
  let state: LoraState | null = null;
  eachLine(text, 'vllm:lora_requests_info', (labels, value) => {
    if (value < newest) return;
    newest = value;
    state = {
      max: Number(label(labels, 'max_lora') ?? 0) || 0,
      running: names(label(labels, 'running_lora_adapters')),
      waiting: names(label(labels, 'waiting_lora_adapters')),
    };
  });
  return state;
}

function cacheTokens(text: string): number | null {
  let tokens: number | null = null;
  eachLine(text, 'vllm:cache_config_info', (labels) => {
    const count = Number(label(labels, 'block_size')) * Number(label(labels, 'num_gpu_blocks'));
    if (Number.isSafeInteger(count) && count > 0) tokens = (tokens ?? 0) + count;
  });
  return tokens;
}

export function parseEngineSample(text: string): EngineSample {
  return {
    waiting: total(text, 'vllm:num_requests_waiting'),
    running: total(text, 'vllm:num_requests_running'),
    kvUsage: greatest(text, 'vllm:kv_cache_usage_perc'),
    lora: loraState(text),
    cacheTokens: cacheTokens(text),
  };
}
