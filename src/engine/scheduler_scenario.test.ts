/**
 * Scheduler scenarios: files a person can read. `config`, `add`, `abort`, `reset` and `step [n]` lines are the input; the
 * lines under them, indented, are what happened and are compared. REWRITE=1 writes them anew; review the diff.
 *
 *   1: a 0+8, b 0+4 -> a=17 | admit a b | preempt c | wait d | free 3
 *
 * is step 1: a computed 8 tokens from position 0, b 4; a got token 17 (`a=17.` when that was its last). After a `cost` line
 * (ms a step, a decode row, a prefill token, a position attended to) steps take time, which is shown, and tokens are not;
 * `gap` tells the longest time between two tokens of one request since the last `gap`.
 */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { EngineCore, type EngineCoreConfig } from './engine_core.ts';
import { FAKE_VOCAB, type FakeCosts, makePrompt, makeRequest, TimedExecutor } from './testdata/fake_executor.ts';
import type { StepOutputs } from './types.ts';

const FOLDER = new URL('./testdata/', import.meta.url);

const DEFAULTS: EngineCoreConfig = {
  vocabSize: FAKE_VOCAB,
  blockSize: 4,
  numBlocks: 64,
  maxModelLen: 256,
  maxNumSeqs: 8,
  maxNumBatchedTokens: 16,
  enablePrefixCaching: true,
  enableChunkedPrefill: true,
  schedulingPolicy: 'fcfs',
  longPrefillTokenThreshold: 0,
  targetItlMs: 0,
  watermark: 0,
};

class Scenario {
  private executor = new TimedExecutor(DEFAULTS.numBlocks, DEFAULTS.blockSize);
  private core = new EngineCore(DEFAULTS, this.executor, this.executor.clock);
  private costs: FakeCosts | null = null;
  /** Per request: when it got its last token. */
  private readonly lastTokenMs = new Map<string, number>();
  private longestGapMs = 0;
  private readonly prompts = new Map<string, Int32Array>();
  private steps = 0;
  private resets = 0;

  run(line: string): string[] {
    const [command = '', ...words] = line.split(/\s+/);
    const named = words.filter((w) => w.includes('=')).map((w) => w.split('=') as [string, string]);
    const options = Object.fromEntries(named);
    const plain = words.filter((w) => !w.includes('='));
    if (command === 'config') return this.configure(options);
    if (command === 'cost') return this.setCosts(options);
    if (command === 'gap') return this.gap();
    if (command === 'add') return this.add(plain[0] as string, options);
    if (command === 'abort') this.core.apply({ kind: 'abort', ids: plain });
    else if (command === 'reset') this.core.apply({ kind: 'reset_prefix_cache', token: this.resets++ });
    else if (command === 'poison') this.executor.poisoned.add(plain[0] as string);
    else if (command === 'step') return this.step(Number(plain[0] ?? 1));
    else throw new Error(`unknown command: ${line}`);
    return [];
  }

  private configure(options: Record<string, string>): string[] {
    const parse = (text: string) => (/^(true|false|[\d.]+)$/.test(text) ? JSON.parse(text) : text);
    const given = Object.fromEntries(Object.entries(options).map(([key, value]) => [key, parse(value)]));
    for (const key of Object.keys(given)) if (!(key in DEFAULTS)) throw new Error(`unknown config key ${key}`);
    const config = { ...DEFAULTS, ...given };
    this.executor = new TimedExecutor(config.numBlocks, config.blockSize);
    if (this.costs !== null) this.executor.costs = this.costs;
    this.core = new EngineCore(config, this.executor, this.executor.clock);
    this.lastTokenMs.clear();
    return [];
  }

  private setCosts(options: Record<string, string>): string[] {
    const cost = (name: string) => Number(options[name] ?? 0);
    this.costs = { step: cost('step'), row: cost('row'), token: cost('token'), position: cost('position') };
    this.executor.costs = this.costs;
    return [];
  }

  private gap(): string[] {
    const longest = this.longestGapMs;
    this.longestGapMs = 0;
    return [`longest ${longest.toFixed(0)} ms`];
  }

  private countGaps(outputs: StepOutputs['outputs']): void {
    for (const { id, timing } of outputs) {
      const before = this.lastTokenMs.get(id);
      if (before !== undefined) this.longestGapMs = Math.max(this.longestGapMs, timing.lastTokenMs - before);
      this.lastTokenMs.set(id, timing.lastTokenMs);
    }
  }

  private add(id: string, options: Record<string, string>): string[] {
    const prompt = makePrompt(id.charCodeAt(0), Number(options['prompt']));
    if (options['like'] !== undefined) {
      const [other = '', length = ''] = options['like'].split(':');
      prompt.set((this.prompts.get(other) as Int32Array).subarray(0, Number(length)));
    }
    this.prompts.set(id, prompt);
    const sampling = {
      maxTokens: Number(options['max'] ?? 4),
      promptLogprobs: options['promptLogprobs'] === undefined ? null : Number(options['promptLogprobs']),
    };
    const rest = { priority: Number(options['priority'] ?? 0), cacheSalt: options['salt'] ?? null };
    this.core.apply({ kind: 'add', requests: [makeRequest(id, prompt, sampling, rest)] });
    return [];
  }

  /** At most `count` steps, fewer when the work is done. */
  private step(count: number): string[] {
    const lines: string[] = [];
    while (lines.length < count && this.core.hasWork()) lines.push(this.oneStep());
    return lines;
  }

  private oneStep(): string {
    const { scheduler } = this.core;
    const ran = new Set(scheduler.running.map((s) => s.id));
    const before = this.executor.steps.length;
    const { outputs, stats, prefixCacheResets } = this.core.step();
    this.core.check();
    const work = this.executor.steps.slice(before).flat();
    const admitted = work.filter((w) => !ran.has(w.id)).map((w) => w.id);
    const there = new Set([...scheduler.running.map((s) => s.id), ...outputs.map((o) => o.id)]);
    const preempted = [...ran].filter((id) => !there.has(id));
    this.countGaps(outputs);
    const computed = work.map((w) => `${w.id} ${w.start}+${w.count}`).join(', ');
    const parts = [this.costs === null ? computed + results(outputs) : `${computed} | ${stats.stepMs.toFixed(0)} ms`];
    if (admitted.length > 0) parts.push(`admit ${admitted.join(' ')}`);
    if (preempted.length > 0) parts.push(`preempt ${preempted.join(' ')}`);
    if (preempted.length !== stats.preemptions) parts.push(`preemptions ${stats.preemptions}`);
    if (stats.prefixHits > 0) parts.push(`hit ${stats.prefixHits} of ${stats.prefixQueries}`);
    for (const { ok } of prefixCacheResets) parts.push(ok ? 'cache emptied' : 'cache in use');
    if (stats.numWaiting > 0) parts.push(`wait ${stats.numWaiting}`);
    parts.push(`free ${scheduler.blocks.freeBlocks}`);
    return `${++this.steps}: ${parts.join(' | ')}`;
  }
}

function results(outputs: StepOutputs['outputs']): string {
  const words = outputs.map((o) => {
    if (o.error !== null) return `${o.id}: ${o.error.code} ${o.error.message}`;
    const end = o.finishReason === null ? '' : o.finishReason === 'length' ? '.' : `. ${o.finishReason}`;
    const cached =
      o.cachedTokens > 0 && o.timing.firstTokenMs === o.timing.lastTokenMs ? ` (cached ${o.cachedTokens})` : '';
    const logprobs = o.promptLogprobs === null ? '' : ` (${o.promptLogprobs.length} prompt logprobs)`;
    return `${o.id}=${o.newTokenIds.join(',')}${end}${cached}${logprobs}`;
  });
  return words.length === 0 ? '' : ` -> ${words.join(' ')}`;
}

describe('scheduler scenarios', () => {
  const files = readdirSync(FOLDER).filter((name) => name.endsWith('.txt'));
  test.each(files)('%s', (name) => {
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
