#!/usr/bin/env node
/** `tokenmill <command>`: dispatch, and one way to print errors. Commands are imported when called: help starts at once. */
import { TokenmillError } from '../base/errors.ts';
import { nearestName } from '../base/nearest.ts';
import { version } from '../base/package_root.ts';

type Command = (args: readonly string[]) => Promise<number>;

interface CommandRow {
  readonly doc: string;
  readonly load: () => Promise<Command>;
}

const COMMANDS: Readonly<Record<string, CommandRow>> = {
  serve: {
    doc: 'Serve a model on an OpenAI-compatible HTTP API.',
    load: async () => (await import('./serve.ts')).serveCommand,
  },
  chat: { doc: 'Talk with a model in the terminal.', load: async () => (await import('./chat.ts')).chatCommand },
  run: { doc: 'Answer one prompt and exit.', load: async () => (await import('./run.ts')).runCommand },
  pull: { doc: 'Download a model into the cache.', load: async () => (await import('./pull.ts')).pullCommand },
  plan: {
    doc: 'Show what would be loaded, how much memory it takes, and why.',
    load: async () => (await import('./plan.ts')).planCommand,
  },
  doctor: {
    doc: 'Examine this machine: instruction sets, bandwidth, limits, folders.',
    load: async () => (await import('./doctor.ts')).doctorCommand,
  },
  verify: {
    doc: 'Compare a model folder that has golden files with what a backend computes.',
    load: async () => (await import('./verify.ts')).verifyCommand,
  },
  bench: {
    doc: 'Measure latency, throughput, a server, kernels; make random models.',
    load: async () => (await import('./bench.ts')).benchCommand,
  },
  up: {
    doc: 'Run a fleet of servers behind one gateway.',
    load: async () => (await import('./fleet/up.ts')).upCommand,
  },
  down: { doc: 'End the fleet.', load: async () => (await import('./fleet/up.ts')).downCommand },
  get: {
    doc: 'List services, replicas, revisions or events of the fleet.',
    load: async () => (await import('./fleet/ask.ts')).getCommand,
  },
  describe: {
    doc: 'Everything about one service of the fleet.',
    load: async () => (await import('./fleet/ask.ts')).describeCommand,
  },
  logs: {
    doc: 'What replicas and the gateway wrote.',
    load: async () => (await import('./fleet/logs.ts')).logsCommand,
  },
  diff: { doc: 'What apply would change.', load: async () => (await import('./fleet/ask.ts')).diffCommand },
  apply: {
    doc: 'Give the fleet new or changed objects.',
    load: async () => (await import('./fleet/ask.ts')).applyCommand,
  },
  delete: {
    doc: 'Take services out of the fleet.',
    load: async () => (await import('./fleet/ask.ts')).deleteCommand,
  },
  scale: {
    doc: 'Set the replicas of a service by hand.',
    load: async () => (await import('./fleet/ask.ts')).scaleCommand,
  },
  rollout: {
    doc: 'Watch, undo, promote, pause or resume a rollout.',
    load: async () => (await import('./fleet/ask.ts')).rolloutCommand,
  },
  simulate: {
    doc: 'What a fleet would do to a day of requests, in virtual time.',
    load: async () => (await import('./fleet/simulate.ts')).simulateCommand,
  },
  upgrade: {
    doc: 'Take over the running fleet with this version.',
    load: async () => (await import('./fleet/up.ts')).upgradeCommand,
  },
};

/** Started by other commands; nobody types them. */
const MEMBERS: Readonly<Record<string, CommandRow['load']>> = {
  supervise: async () => (await import('./fleet/up.ts')).superviseCommand,
};

function helpText(): string {
  const width = Math.max(...[...Object.keys(COMMANDS), 'version'].map((name) => name.length));
  return [
    'tokenmill: LLM inference and serving for Node.js',
    '',
    'Usage: tokenmill <command> [model] [flags]',
    '',
    ...Object.entries(COMMANDS).map(([name, { doc }]) => `  ${name.padEnd(width)}  ${doc}`),
    `  ${'version'.padEnd(width)}  Print the version.`,
    '',
    'tokenmill <command> --help shows its flags. Without a model the embedded one is used.',
    '',
  ].join('\n');
}

async function main(args: readonly string[]): Promise<number> {
  const [name = '--help', ...rest] = args;
  if (name === 'version' || name === '--version' || name === '-v') {
    console.log(version());
    return 0;
  }
  if (name === 'help' && rest[0] !== undefined) return main([rest[0], '--help']);
  if (name === 'help' || name === '--help' || name === '-h') {
    process.stdout.write(helpText());
    return 0;
  }
  const command = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
  const load = command?.load ?? (Object.hasOwn(MEMBERS, name) ? MEMBERS[name] : undefined);
  if (load !== undefined) return (await load())(rest);
  const guess = nearestName(name, [...Object.keys(COMMANDS), 'version', 'help']);
  throw new TokenmillError('flag_invalid', `Unknown command ${JSON.stringify(name.slice(0, 80))}.`, {
    remedy: guess ? `Did you mean ${guess}?` : `Commands: ${Object.keys(COMMANDS).join(', ')}, version, help.`,
  });
}

/** What a user can cause is one line with its cure; anything else is our bug and shows its stack. */
function report(error: unknown): number {
  if (error instanceof TokenmillError) {
    process.stderr.write(`error: ${error.message} (${error.code})\n`);
    return error.exitCode;
  }
  process.stderr.write(`internal error: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`);
  return 70;
}

process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  // `tokenmill run ... | head`: the reader has left.
  if (error.code === 'EPIPE') process.exit(0);
  throw error;
});

main(process.argv.slice(2)).then(
  (code) => {
    process.exitCode = code;
  },
  (error: unknown) => {
    process.exitCode = report(error);
  },
);
