/** `tokenmill plan`: what would be loaded, without loading it. */
import { locateModel } from '../client/model_source.ts';
import { formatBytes } from '../config/format.ts';
import { inspectMachine } from '../config/machine.ts';
import { resolve } from '../config/resolve.ts';
import { createBackend } from '../executor/backends.ts';
import { inspectModel, inspectPacked } from '../executor/load.ts';
import { progressLine } from './bench/progress.ts';
import { parseEngineArgs, printNotes } from './engine_args.ts';
import { downloadText } from './load_progress.ts';
import { planTable } from './plan_text.ts';

const PLAN_FLAGS = {
  json: { kind: 'bool', cli: '--json', default: false, group: 'own', doc: 'The plan as JSON.' },
} as const;

const USAGE = [
  'Usage: tokenmill plan [model] [flags]',
  '',
  'Shows what serve would load with the same flags, how much memory it takes, and why.',
];

export async function planCommand(args: readonly string[]): Promise<number> {
  const parsed = await parseEngineArgs(args, {
    usage: USAGE,
    own: PLAN_FLAGS,
    heading: 'Output',
    shown: ['model', 'device', 'cache', 'scheduler'],
    modelFirst: true,
    maxPositionals: 1,
  });
  if (parsed === null) return 0;
  const { config, own, notes } = parsed;
  printNotes(notes);
  const line = progressLine(process.stderr);
  const source = {
    revision: config.revision,
    onProgress: (progress: Parameters<typeof downloadText>[0]) => line.show(downloadText(progress)),
  };
  const { path } = await locateModel(config.model, config, source).finally(() => line.clear());
  const facts = inspectModel(path, (config.hfOverrides ?? {}) as Parameters<typeof inspectModel>[1]);
  const plan = resolve(config, facts, inspectMachine(config.backend === 'cpu' ? createBackend('cpu').isaLevels : []));
  const { config: _, ...worked } = plan;
  const packed = inspectPacked(plan);
  console.log(
    own.json ? JSON.stringify({ ...worked, packedFile: packed }, null, 2) : planTable(plan, packedText(packed)),
  );
  return 0;
}

function packedText(file: ReturnType<typeof inspectPacked>): string {
  if (file === null) return '';
  const size = formatBytes(file.bytes);
  if (file.state === 'present') return `holds these weights (${size}): they are mapped, not packed`;
  return `${file.state === 'damaged' ? 'its file is damaged' : 'does not hold these weights yet'}: ${size} are written after loading`;
}
