/** `bench steps`: where the time of whole steps goes, op by op, and how much lies outside kernels. */
import { writeFile } from 'node:fs/promises';
import { systemClock } from '../../base/clock.ts';
import { TokenmillError } from '../../base/errors.ts';
import { Rng } from '../../base/rng.ts';
import { type Span, SpanRecorder } from '../../base/spans.ts';
import { type WiredEngine, wireEngine } from '../../client/engine_thread.ts';
import { locateModel } from '../../client/model_source.ts';
import type { FlagTable } from '../../config/flag_types.ts';
import { type EngineRequest, type EngineSampling, GREEDY_SAMPLING } from '../../engine/types.ts';
import { parseEngineBench, randomPrompt } from './engine_run.ts';
import { formatNumber, table } from './plot.ts';
import { progressLine } from './progress.ts';
import { median } from './statistics.ts';

const DOC = 'Where the time of whole steps goes: each op, and what lies outside kernels.';

const STEPS_FLAGS = {
  sequences: {
    kind: 'list',
    cli: '--sequences',
    default: ['1', '8', '32'],
    group: 'own',
    doc: 'Sequences of a step that decodes; one table each.',
  },
  prompts: { kind: 'list', cli: '--prompts', default: ['512'], group: 'own', doc: 'Tokens of a step that prefills.' },
  context: {
    kind: 'int',
    cli: '--context',
    default: 128,
    min: 1,
    max: 1_000_000,
    group: 'own',
    doc: 'Tokens of each sequence before the first step that counts.',
  },
  repeat: {
    kind: 'int',
    cli: '--repeat',
    default: 30,
    min: 1,
    max: 10_000,
    group: 'own',
    doc: 'Steps measured; medians count.',
  },
  temperature: {
    kind: 'float',
    cli: '--temperature',
    default: 0,
    min: 0,
    max: 100,
    group: 'own',
    doc: 'Above 0 rows are sampled, with top_p 0.95.',
  },
  outputJson: { kind: 'string', cli: '--output-json', default: null, group: 'own', doc: 'Write the result here.' },
} as const satisfies FlagTable;

export interface StepCase {
  readonly kind: 'decode' | 'prefill';
  /** Sequences that decode, or tokens of the prompt. */
  readonly size: number;
  readonly context: number;
  readonly repeat: number;
  readonly temperature: number;
}

export interface StepPart {
  readonly name: string;
  /** Times a step. */
  readonly count: number;
  readonly ms: number;
}

export interface StepBreakdown {
  readonly steps: number;
  readonly stepMs: number;
  /** Longest first. */
  readonly ops: readonly StepPart[];
  /** In their order; `run` without its kernels. */
  readonly outside: readonly StepPart[];
  readonly outsideMs: number;
}

function samplingOf({ temperature }: StepCase, maxTokens: number): EngineSampling {
  return { ...GREEDY_SAMPLING, temperature, topP: temperature > 0 ? 0.95 : 1, maxTokens };
}

/** Runs the case to its end and returns the spans of the steps that count. */
export function recordSteps({ core, loaded }: WiredEngine, spans: SpanRecorder, work: StepCase): Span[] {
  const rng = new Rng(1);
  const decode = work.kind === 'decode';
  const request = (i: number): EngineRequest => ({
    id: `steps-${i}`,
    promptTokenIds: randomPrompt(decode ? work.context : work.size, loaded.plan.vocabSize, rng),
    sampling: samplingOf(work, decode ? 1_000_000 : 1),
    priority: 0,
    cacheSalt: null,
    arrivalMs: 0,
    skipPrefixCache: true,
  });
  const requests = Array.from({ length: decode ? work.size : work.repeat }, (_, i) => request(i));
  if (decode) {
    core.apply({ kind: 'add', requests });
    // All in, and one round of decoding to warm up.
    for (let all = 0; all < 2; ) all += core.step().stats.generatedTokens === work.size ? 1 : 0;
    spans.spans.length = 0;
    for (let i = 0; i < work.repeat; i++) core.step();
  } else {
    spans.spans.length = 0;
    for (const one of requests) {
      core.apply({ kind: 'add', requests: [one] });
      core.step();
    }
  }
  const recorded = [...spans.spans];
  core.apply({ kind: 'abort', ids: requests.map(({ id }) => id) });
  while (core.hasWork()) core.step();
  return recorded;
}

/** Milliseconds of every part of every step; parts inside `run` that are ops, and those outside of it. */
class Parts {
  readonly ms = new Map<string, number[]>();
  private readonly counts = new Map<string, number>();
  private step = -1;

  nextStep(): void {
    this.step++;
    this.counts.clear();
  }

  add(name: string, ms: number): void {
    const list = this.ms.get(name) ?? [];
    while (list.length <= this.step) list.push(0);
    list[this.step] = (list[this.step] as number) + ms;
    this.ms.set(name, list);
    this.counts.set(name, (this.counts.get(name) ?? 0) + 1);
  }

  summary(): StepPart[] {
    return [...this.ms].map(([name, list]) => ({ name, count: this.counts.get(name) ?? 0, ms: median(list) }));
  }
}

export function breakDown(spans: readonly Span[]): StepBreakdown {
  const [ops, outside] = [new Parts(), new Parts()];
  const stepMs: number[] = [];
  const outsideMs: number[] = [];
  for (const { name, startMs, endMs, depth, children } of spans) {
    const ms = endMs - startMs;
    if (depth === 0 && name === 'step') {
      for (const parts of [ops, outside]) parts.nextStep();
      stepMs.push(ms);
      outsideMs.push(ms);
      continue;
    }
    const kernelMs = children?.marksMs.at(-1) ?? 0;
    outside.add(children === null ? name : `${name}, but for its ops`, ms - kernelMs);
    outsideMs.push((outsideMs.pop() ?? 0) - kernelMs);
    for (const [i, op] of (children?.names ?? []).entries()) {
      ops.add(op, (children?.marksMs[i + 1] as number) - (children?.marksMs[i] as number));
    }
  }
  return {
    steps: stepMs.length,
    stepMs: median(stepMs),
    ops: ops.summary().sort((a, b) => b.ms - a.ms),
    outside: outside.summary(),
    outsideMs: median(outsideMs),
  };
}

function format({ stepMs, ops, outside, outsideMs }: StepBreakdown): string[] {
  const row = ({ name, count, ms }: StepPart) => [
    name,
    String(count),
    ms < 0.1 ? ms.toFixed(4) : formatNumber(ms),
    `${((100 * ms) / stepMs).toFixed(1)}%`,
  ];
  const rows = [...ops, ...outside, { name: 'outside of ops', count: 1, ms: outsideMs }];
  return table([['', 'times', 'ms', 'of the step'], ...rows.map(row), row({ name: 'step', count: 1, ms: stepMs })]);
}

function readSizes(flag: string, list: readonly string[], most: number): number[] {
  return list.map((text) => {
    const size = Number(text);
    if (Number.isInteger(size) && size >= 1 && size <= most) return size;
    throw new TokenmillError('flag_invalid', `${flag}: ${text.slice(0, 40)} is not a whole number from 1 to ${most}.`, {
      param: flag,
      remedy: `For example ${flag} 1 8.`,
    });
  });
}

export async function benchSteps(args: readonly string[]): Promise<number> {
  const parsed = await parseEngineBench('steps', DOC, STEPS_FLAGS, args);
  if (parsed === null) return 0;
  const { flags } = parsed;
  // Time must not cut a prompt that is to be one step.
  const config = { ...parsed.config, targetItlMs: 0 };
  const { path: modelPath } = await locateModel(config.model, config, { revision: config.revision });
  const spans = new SpanRecorder(systemClock, 'step', Number.POSITIVE_INFINITY);
  // As on a server, where the engine has a thread of its own; here nothing else runs on this one.
  const engine = await wireEngine({ config, modelPath }, { spans, ownsThread: true });
  const { plan } = engine.loaded;
  const { context, repeat, temperature } = flags;
  const progress = progressLine(process.stderr);
  const results: (StepBreakdown & { readonly title: string })[] = [];
  try {
    const common = { context, repeat, temperature };
    const cases: StepCase[] = [
      ...readSizes('--sequences', flags.sequences, plan.maxNumSeqs).map((size) => ({
        kind: 'decode' as const,
        size,
        ...common,
      })),
      ...readSizes('--prompts', flags.prompts, plan.maxNumBatchedTokens).map((size) => ({
        kind: 'prefill' as const,
        size,
        ...common,
      })),
    ];
    for (const one of cases) {
      const title =
        one.kind === 'decode' ? `decode, ${one.size} sequences after ${context} tokens` : `prefill, ${one.size} tokens`;
      progress.show(title);
      results.push({ title, ...breakDown(recordSteps(engine, spans, one)) });
    }
  } finally {
    progress.clear();
    engine.close();
  }
  const { architecture, backend, isa, threads, weightDType, quantization } = plan;
  const weights = quantization === 'none' ? weightDType : quantization;
  const about = `${plan.servedModelNames[0]} (${architecture}), ${backend} ${isa}, ${threads} threads, weights ${weights}`;
  const tables = results.map((result) => `${result.title}\n${format(result).join('\n')}\n`);
  process.stdout.write(`${about}; medians of ${repeat} steps\n\n${tables.join('\n')}`);
  if (flags.outputJson !== null) {
    const json = { date: new Date().toISOString(), about, work: flags, results };
    await writeFile(flags.outputJson, `${JSON.stringify(json, null, 2)}\n`);
  }
  return 0;
}
