/** `tokenmill verify FOLDER`: a model folder's golden files against what a backend computes. */
import { join } from 'node:path';
import { TokenmillError } from '../base/errors.ts';
import { parseCommandLine } from '../config/command_line.ts';
import type { FlagTable } from '../config/flag_types.ts';
import { FLAGS } from '../config/flags.ts';
import { helpText } from '../config/help.ts';
import { inspectMachine } from '../config/machine.ts';
import { resolveIsa, resolveThreads } from '../config/resolve.ts';
import { createBackend } from '../executor/backends.ts';
import { inspectModel } from '../executor/load.ts';
import { alignColumns } from './plan_text.ts';
import { type VerifyReport, verifyFolder } from './verify_report.ts';

const { backend, isa, threads, dtype, quantization, kvCacheDtype } = FLAGS;
const VERIFY_FLAGS = {
  backend,
  isa,
  threads,
  dtype,
  quantization,
  kvCacheDtype,
  configFile: {
    kind: 'string',
    cli: '--config-file',
    default: 'config.json',
    group: 'own',
    doc: 'Configuration to read in the folder, e.g. config.v5.json.',
  },
  maxModelLen: { ...FLAGS.maxModelLen, group: 'own' },
  trace: {
    kind: 'bool',
    cli: '--trace',
    default: false,
    group: 'own',
    doc: 'Run the reference backend beside it and name the first op that differs.',
  },
  json: { kind: 'bool', cli: '--json', default: false, group: 'own', doc: 'The report as JSON.' },
} as const satisfies FlagTable;

const USAGE = [
  'Usage: tokenmill verify FOLDER [flags]',
  '',
  'Runs the prompts of golden.json and compares logits and greedy tokens with golden.st.',
  'Exit status 1 when the model disagrees beyond the tolerance.',
];
const GROUPS = { own: 'What to compare', device: 'Device and numbers', cache: 'KV cache' };

export async function verifyCommand(args: readonly string[]): Promise<number> {
  const { values, positionals, notes, help } = await parseCommandLine(args, VERIFY_FLAGS);
  if (help !== null) {
    console.log(helpText({ usage: USAGE, table: VERIFY_FLAGS, groups: GROUPS }, help));
    return 0;
  }
  for (const note of notes) process.stderr.write(`${note}\n`);
  const [folder] = positionals;
  if (folder === undefined || positionals.length > 1) {
    throw new TokenmillError('flag_invalid', 'verify takes one folder.', { remedy: 'See tokenmill verify --help.' });
  }
  const used = createBackend(values.backend);
  const machine = inspectMachine(values.backend === 'cpu' ? used.isaLevels : []);
  const ownType = values.backend === 'reference' ? 'float32' : inspectModel(folder).checkpointDType;
  const weightDType = values.dtype === 'auto' ? ownType : values.dtype;
  const exact = weightDType === 'float32';
  const report = verifyFolder({
    folder,
    backend: used,
    reference: values.backend === 'reference' ? used : createBackend('reference'),
    isa: resolveIsa(values, machine),
    weightDType,
    quantization: values.quantization,
    kvDType: values.kvCacheDtype === 'auto' ? (exact ? 'float32' : 'bfloat16') : values.kvCacheDtype,
    threads: resolveThreads(values, machine),
    configFile: values.configFile,
    trace: values.trace,
    ...(values.maxModelLen === null ? {} : { maxModelLen: values.maxModelLen }),
  });
  console.log(values.json ? JSON.stringify(report, null, 2) : reportText(report, join(folder)));
  return report.passed ? 0 : 1;
}

function reportText(report: VerifyReport, folder: string): string {
  const header = ['prompt', 'tokens', 'max error', 'mean KL', 'max KL', 'top-1', 'greedy'];
  const rows = report.prompts.map((prompt) => [
    String(prompt.index),
    String(prompt.length),
    prompt.maxAbsError.toExponential(2),
    prompt.meanKl.toExponential(2),
    prompt.maxKl.toExponential(2),
    percent(prompt.top1Agreement),
    `${prompt.greedyTokens - prompt.greedyMismatches}/${prompt.greedyTokens}`,
  ]);
  const { maxAbsError, meanKl, maxKl, top1Agreement, againstReference: same, firstDifference: first } = report;
  const all = [
    'all',
    '',
    maxAbsError.toExponential(2),
    meanKl.toExponential(2),
    maxKl.toExponential(2),
    percent(top1Agreement),
  ];
  const lines = [
    `${report.name} (${folder}) on ${report.backend}, ${report.isa}, ${report.mode}`,
    '',
    alignColumns([header, ...rows, all]),
  ];
  if (same !== null) {
    lines.push(
      '',
      `against the reference backend with the same rounding: max error ${same.maxAbsError.toExponential(2)}, mean KL ${same.meanKl.toExponential(2)}, max KL ${same.maxKl.toExponential(2)}`,
    );
  }
  if (first !== null) {
    lines.push(
      '',
      `first op that differs: call ${first.call}, ${first.op} -> ${first.value}: error ${first.nmse.toExponential(2)}, bound ${first.bound.toExponential(2)}`,
    );
  }
  return [
    ...lines,
    '',
    report.passed ? 'passed' : report.failures.map((failure) => `FAILED: ${failure}`).join('\n'),
  ].join('\n');
}

function percent(share: number): string {
  return `${(100 * share).toFixed(1)}%`;
}
