/** `bench kernels`: each op at a model's sizes through the backend, against the measured roof. */
import { writeFile } from 'node:fs/promises';
import { createCpuBackend } from '../../backends/cpu/cpu_backend.ts';
import { KV_DTYPE_NAMES } from '../../base/kv_dtypes.ts';
import { QUANTIZATIONS } from '../../base/quantization.ts';
import { parseCommandLine } from '../../config/command_line.ts';
import type { ConfigOf, FlagTable } from '../../config/flag_types.ts';
import { helpText } from '../../config/help.ts';
import { type JsonObject, loadModelConfig, recordProgram } from '../../models/index.ts';
import { fuseProgram } from '../../program/fuse.ts';
import { shapeConfig } from '../../weights/random_model.ts';
import { teamText } from '../team_text.ts';
import { type KernelOptions, type KernelRun, kernelRuns, type StepShape } from './kernel_runs.ts';
import { formatNumber, table } from './plot.ts';
import { progressLine } from './progress.ts';
import { measureRoof, type Roof } from './roof.ts';

const MANY = 1_000_000;

export const KERNEL_FLAGS = {
  shape: {
    kind: 'string',
    cli: '--shape',
    default: 'smol-135m',
    group: 'own',
    doc: 'Shape of `bench make-model` whose sizes are used.',
  },
  tokens: {
    kind: 'list',
    cli: '--tokens',
    default: ['1', '8', '32', '512'],
    group: 'own',
    doc: 'Tokens of a step: up to 64 are that many sequences that decode, more are one prompt.',
  },
  context: {
    kind: 'int',
    cli: '--context',
    default: 1024,
    min: 0,
    max: MANY,
    group: 'own',
    doc: 'Tokens in the KV cache before the step, of each sequence.',
  },
  ops: { kind: 'list', cli: '--ops', default: [], group: 'own', doc: 'Only these ops.' },
  dtype: {
    kind: 'choice',
    cli: '--dtype',
    of: ['bfloat16', 'float16', 'float32'],
    default: 'bfloat16',
    group: 'own',
    doc: 'Type of the linear weights.',
  },
  quantization: {
    kind: 'choice',
    cli: '--quantization',
    of: QUANTIZATIONS,
    synonyms: { int4: 'int4_g32' },
    default: 'none',
    group: 'own',
    doc: 'Quantisation of the linear weights.',
  },
  kvCacheDtype: {
    kind: 'choice',
    cli: '--kv-cache-dtype',
    of: KV_DTYPE_NAMES,
    default: 'bfloat16',
    group: 'own',
    doc: 'Type of keys and values.',
  },
  threads: {
    kind: 'int',
    cli: '--threads',
    default: null,
    min: 1,
    max: 1024,
    group: 'own',
    doc: 'Threads. Default: physical cores.',
  },
  isa: { kind: 'string', cli: '--isa', default: null, group: 'own', doc: 'Instruction set. Default: the best here.' },
  repeat: {
    kind: 'int',
    cli: '--repeat',
    default: 20,
    min: 1,
    max: MANY,
    group: 'own',
    doc: 'Timed repetitions; the median counts.',
  },
  outputJson: { kind: 'string', cli: '--output-json', default: null, group: 'own', doc: 'Write the result here.' },
} as const satisfies FlagTable;

type KernelFlags = ConfigOf<typeof KERNEL_FLAGS>;

/** Up to this many tokens a step stands for decoding. */
const MOST_DECODING = 64;

export interface KernelResult {
  readonly tokens: number;
  readonly label: string;
  readonly microseconds: number;
  readonly gbPerS: number;
  readonly gflopPerS: number;
  /** Time at the roof over the time taken. Above 1 when the operands stay in a cache, which the roof knows nothing of. */
  readonly roofShare: number;
}

/** The faster of the machine's two limits is never the one that binds. */
export function roofSeconds(cost: KernelRun['cost'], usesInt8: boolean, roof: Roof): number {
  const peak = usesInt8 ? roof.int8GOps : Math.max(roof.fp32GFlops, roof.bf16GFlops);
  return Math.max(cost.bytes / (roof.bandwidthGBs * 1e9), cost.flops / (peak * 1e9));
}

export function stepShape(tokens: number, context: number): StepShape {
  return tokens <= MOST_DECODING ? { sequences: tokens, tokens: 1, context } : { sequences: 1, tokens, context };
}

function measure(
  flags: KernelFlags,
  roof: Roof,
  options: KernelOptions,
  onRun: (label: string) => void,
): KernelResult[] {
  const backend = createCpuBackend();
  const config = loadModelConfig(shapeConfig(flags.shape) as JsonObject);
  const results: KernelResult[] = [];
  for (const text of flags.tokens) {
    const shape = stepShape(Number(text), flags.context);
    const program = fuseProgram(recordProgram(config, { maxModelLen: shape.context + shape.tokens }));
    for (const { label, run, cost } of kernelRuns(program, shape, options)) {
      if (flags.ops.length > 0 && !flags.ops.includes(run.op)) continue;
      onRun(label);
      const { seconds } = backend.runOp(run);
      results.push({
        tokens: Number(text),
        label,
        microseconds: seconds * 1e6,
        gbPerS: cost.bytes / seconds / 1e9,
        gflopPerS: cost.flops / seconds / 1e9,
        roofShare: roofSeconds(cost, run.op.startsWith('linear') && flags.quantization !== 'none', roof) / seconds,
      });
    }
  }
  return results;
}

function format(results: readonly KernelResult[]): string[] {
  const rows = results.map((result) => [
    `${result.tokens} tokens: ${result.label}`,
    formatNumber(result.microseconds),
    formatNumber(result.gbPerS),
    formatNumber(result.gflopPerS),
    `${Math.round(result.roofShare * 100)}%`,
  ]);
  return table([['', 'us', 'GB/s', 'GFLOP/s', 'of the roof'], ...rows]);
}

export async function benchKernels(args: readonly string[]): Promise<number> {
  const { values, help } = await parseCommandLine(args, KERNEL_FLAGS);
  if (help !== null) {
    const usage = [
      'Usage: tokenmill bench kernels [flags]',
      '',
      "Each op at a model's sizes, against the measured roof of the machine.",
    ];
    console.log(helpText({ usage, table: KERNEL_FLAGS, groups: { own: 'Benchmark' } }, help));
    return 0;
  }
  const roof = measureRoof(values.threads, values.isa ?? undefined);
  const { threads } = roof;
  const options: KernelOptions = {
    weightDType: values.dtype,
    quantization: values.quantization,
    kvDType: values.kvCacheDtype,
    blockSize: 16,
    threads,
    repeat: values.repeat,
    isa: roof.isa,
  };
  const progress = progressLine(process.stderr);
  const results = measure(values, roof, options, (label) => progress.show(label));
  progress.clear();
  const peaks = `${formatNumber(roof.bandwidthGBs)} GB/s, fp32 ${formatNumber(roof.fp32GFlops)} GFLOP/s, bf16 ${formatNumber(roof.bf16GFlops)} GFLOP/s, int8 ${formatNumber(roof.int8GOps)} GOP/s`;
  process.stdout.write(
    `${values.shape}, ${roof.isa}, ${threads} threads. Measured roof: ${peaks}\n${teamText(threads, roof.team)}\n\n${format(results).join('\n')}\n`,
  );
  process.stdout.write('\nOperands that fit into a cache can be faster than memory; the roof is that of memory.\n');
  if (values.outputJson !== null) {
    await writeFile(
      values.outputJson,
      `${JSON.stringify({ date: new Date().toISOString(), roof, flags: values, results }, null, 2)}\n`,
    );
  }
  return 0;
}
