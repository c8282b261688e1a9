/** `tokenmill bench <what>`: each benchmark is one file of src/cli/bench. */
import { TokenmillError } from '../base/errors.ts';
import { nearestName } from '../base/nearest.ts';

type Bench = (args: readonly string[]) => Promise<number>;

const BENCHES: Readonly<Record<string, { readonly doc: string; readonly load: () => Promise<Bench> }>> = {
  latency: {
    doc: 'How long one batch takes.',
    load: async () => (await import('./bench/latency.ts')).benchLatency,
  },
  throughput: {
    doc: 'Tokens a second over a heap of requests.',
    load: async () => (await import('./bench/throughput.ts')).benchThroughput,
  },
  serve: {
    doc: 'Load on any OpenAI-compatible server, measured from outside.',
    load: async () => (await import('./bench/serve.ts')).benchServe,
  },
  modes: {
    doc: 'One by one, static batches, continuous batching, shared prefix: the same requests.',
    load: async () => (await import('./bench/modes.ts')).benchModes,
  },
  stall: {
    doc: 'How long streams wait while a long prompt arrives, with and without --target-itl-ms.',
    load: async () => (await import('./bench/stall.ts')).benchStall,
  },
  kernels: {
    doc: "Each op at a model's sizes, against the measured roof of the machine.",
    load: async () => (await import('./bench/kernels.ts')).benchKernels,
  },
  steps: {
    doc: 'Where the time of whole steps goes: each op, and what lies outside kernels.',
    load: async () => (await import('./bench/steps.ts')).benchSteps,
  },
  start: {
    doc: 'From the begin of a process to its first token, and its peak memory.',
    load: async () => (await import('./bench/start.ts')).benchStart,
  },
  'make-model': {
    doc: 'A model of a known shape with random weights.',
    load: async () => (await import('./bench/make_model.ts')).benchMakeModel,
  },
};

function helpText(): string {
  return [
    'Usage: tokenmill bench <what> [flags]',
    '',
    ...Object.entries(BENCHES).map(([name, { doc }]) => `  ${name.padEnd(10)}  ${doc}`),
    '',
    'tokenmill bench <what> --help shows its flags.',
    '',
  ].join('\n');
}

export async function benchCommand(args: readonly string[]): Promise<number> {
  const [name = '--help', ...rest] = args;
  if (name === '--help' || name === '-h') {
    process.stdout.write(helpText());
    return 0;
  }
  const bench = Object.hasOwn(BENCHES, name) ? BENCHES[name] : undefined;
  if (bench !== undefined) return (await bench.load())(rest);
  const names = Object.keys(BENCHES);
  const guess = nearestName(name, names);
  throw new TokenmillError('flag_invalid', `There is no benchmark called ${JSON.stringify(name.slice(0, 80))}.`, {
    remedy: guess === null ? `Known: ${names.join(', ')}.` : `Did you mean ${guess}?`,
  });
}
