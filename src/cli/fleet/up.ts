/** `tokenmill up`, `down` and `upgrade`: a fleet's begin, its end, and the change of the supervisor under it. */
import { setTimeout as sleep } from 'node:timers/promises';
import { type DestinationStream, pino } from 'pino';
import { systemClock } from '../../base/clock.ts';
import { ERRORS, TokenmillError } from '../../base/errors.ts';
import { version } from '../../base/package_root.ts';
import { FLEET_FLAGS } from '../../config/fleet_flags.ts';
import { readFleet } from '../../fleet/spec/read_fleet.ts';
import { ensureLogFolder, logPath } from '../../fleet/supervisor/machine_host.ts';
import type { FleetFile } from '../../fleet/supervisor/manifests.ts';
import { isAlive } from '../../fleet/supervisor/process_identity.ts';
import { type Entry, spawnDetached } from '../../fleet/supervisor/replica_process.ts';
import { tailLog } from '../../fleet/supervisor/rotated_log.ts';
import { type ApplyResult, type FleetStatus, Supervisor } from '../../fleet/supervisor/supervisor.ts';
import { noticesText, printChanges } from './ask.ts';
import { FleetClient } from './client.ts';
import { parseFleetArgs, readFleetFiles, stateFolder } from './command.ts';
import { fleetPlanText } from './fleet_plan_text.ts';

const { stateDir, filename, dryRun, detach, force } = FLEET_FLAGS;
const START_PATIENCE_MS = 30_000;
const POLL_MS = 50;

function ownEntry(): Entry {
  return { file: process.execPath, args: [process.argv[1] as string] };
}

export async function upCommand(args: readonly string[]): Promise<number> {
  const usage = [
    'Usage: tokenmill up fleet.yaml ... [flags]',
    '',
    'Runs the fleet that the files describe on this machine, behind one gateway. Ctrl-C ends it, with what is in flight.',
  ];
  const parsed = await parseFleetArgs(args, {
    usage,
    table: { stateDir, filename, dryRun, detach },
    maxPositionals: 64,
  });
  if (parsed === null) return 0;
  const { values } = parsed;
  const files = readFleetFiles([...parsed.positionals, ...values.filename], usage[0] as string);
  const spec = readFleet(files);
  if (values.dryRun) {
    process.stdout.write(fleetPlanText(spec));
    return 0;
  }
  const folder = stateFolder(values.stateDir);
  if (values.detach) return upDetached(folder, files);
  process.stderr.write(noticesText(spec.notices));
  const log = pino({ level: 'info', base: null }, readable(process.stderr));
  const supervisor = await Supervisor.start({ stateDir: folder, entry: ownEntry(), log, version: version() }, files);
  void announce(supervisor);
  return untilEnd(supervisor, folder);
}

/** Says where requests go, once they can. */
async function announce(supervisor: Supervisor): Promise<void> {
  let isOver = false;
  const end = (): void => {
    isOver = true;
  };
  supervisor.done.then(end, end);
  while (!isOver && supervisor.status().gateway === null && supervisor.status().problem === null) await sleep(POLL_MS);
  if (!isOver) process.stderr.write(`\n${statusText(supervisor.status())}\n`);
}

/** The supervisor without a terminal; its files are in the state folder or come over the API. Started by `up --detach`. */
export async function superviseCommand(args: readonly string[]): Promise<number> {
  const usage = ['Usage: tokenmill supervise --state-dir FOLDER'];
  const parsed = await parseFleetArgs(args, { usage, table: { stateDir, takeOver: TAKE_OVER }, maxPositionals: 0 });
  if (parsed === null) return 0;
  const log = pino({ level: 'info', base: null, timestamp: pino.stdTimeFunctions.isoTime });
  const folder = stateFolder(parsed.values.stateDir);
  const { takeOver } = parsed.values;
  const supervisor = await Supervisor.start({ stateDir: folder, entry: ownEntry(), log, version: version(), takeOver });
  return untilEnd(supervisor, folder);
}

const TAKE_OVER = {
  kind: 'bool',
  cli: '--take-over',
  default: false,
  group: 'fleet',
  doc: 'Ask the supervisor that runs to hand over.',
} as const;

async function untilEnd(supervisor: Supervisor, folder: string): Promise<number> {
  let signals = 0;
  const onSignal = (): void => {
    signals++;
    supervisor.end(signals === 1 ? 'down' : 'kill');
    if (signals === 1)
      process.stderr.write('Ending: requests in flight are finished. A second signal ends them too.\n');
  };
  process.on('SIGINT', onSignal).on('SIGTERM', onSignal);
  const ending = await supervisor.done;
  if (ending === 'handover') process.stderr.write(`Another supervisor has taken over ${folder}.\n`);
  return signals > 1 ? 130 : 0;
}

async function upDetached(folder: string, files: readonly FleetFile[]): Promise<number> {
  const client = new FleetClient(folder);
  if (!(await client.isRunning())) await startDetached(folder, []);
  const answer = await client.post<ApplyResult>('/v1/apply', { files, prune: true });
  const status = await gatewayAnswers(client);
  printChanges(answer, 'table');
  process.stderr.write(`\n${statusText(status)}`);
  return status.problem === null ? 0 : ERRORS.fleet_not_running.exitCode;
}

/** Resolves once its API answers. Throws with the end of its log when it does not come up. */
async function startDetached(folder: string, extra: readonly string[]): Promise<void> {
  ensureLogFolder(folder);
  const path = logPath(folder, 'supervisor');
  const { file, args } = ownEntry();
  const started = spawnDetached([file, ...args, 'supervise', '--state-dir', folder, ...extra], process.env, path);
  const client = new FleetClient(folder);
  const deadline = systemClock.now() + START_PATIENCE_MS;
  for (;;) {
    const status = await client.get<FleetStatus>('/v1/status').catch((error: unknown) => {
      if (error instanceof TokenmillError && error.code === 'fleet_not_running') return null;
      throw error;
    });
    if (status !== null && status.pid === started?.process.pid) return;
    if (started === null || !isAlive(started.process) || systemClock.now() > deadline) {
      throw new TokenmillError('fleet_not_running', `The supervisor did not start: ${tailLog(path, 5).text.trim()}`);
    }
    await sleep(POLL_MS);
  }
}

async function gatewayAnswers(client: FleetClient): Promise<FleetStatus> {
  const deadline = systemClock.now() + START_PATIENCE_MS;
  for (;;) {
    const status = await client.get<FleetStatus>('/v1/status');
    if (status.gateway !== null || status.problem !== null || systemClock.now() > deadline) return status;
    await sleep(POLL_MS);
  }
}

function statusText({ gateway, problem, services, pid, stateDir: folder }: FleetStatus): string {
  const waiting = problem === null ? 'The gateway does not answer yet' : `WARNING: ${problem}; it is tried again`;
  const where = gateway === null ? `${waiting}. See tokenmill logs gateway.` : `Requests go to ${gateway}/v1`;
  return [
    `${where}   (${services === 1 ? '1 service' : `${services} services`}, process ${pid}, state in ${folder})`,
    'tokenmill get, describe, logs -f, rollout status show it; tokenmill down ends it.',
    '',
  ].join('\n');
}

export async function downCommand(args: readonly string[]): Promise<number> {
  const usage = [
    'Usage: tokenmill down [flags]',
    '',
    'Ends the fleet: requests in flight are finished, within the grace of their replicas.',
  ];
  const parsed = await parseFleetArgs(args, { usage, table: { stateDir, force }, maxPositionals: 0 });
  if (parsed === null) return 0;
  const client = new FleetClient(stateFolder(parsed.values.stateDir));
  await client.get('/v1/status');
  await client.post('/v1/down', { force: parsed.values.force });
  while (await client.isRunning()) await sleep(POLL_MS);
  process.stderr.write('The fleet has ended.\n');
  return 0;
}

export async function upgradeCommand(args: readonly string[]): Promise<number> {
  const usage = [
    'Usage: tokenmill upgrade [flags]',
    '',
    'This version takes over the fleet that runs: supervisor and gateway, without a refused request. Replicas stay as they are.',
  ];
  const parsed = await parseFleetArgs(args, { usage, table: { stateDir }, maxPositionals: 0 });
  if (parsed === null) return 0;
  const folder = stateFolder(parsed.values.stateDir);
  const client = new FleetClient(folder);
  const before = await client.get<FleetStatus>('/v1/status');
  await startDetached(folder, ['--take-over']);
  await client.post('/v1/gateway/handover');
  const after = await gatewayAnswers(client);
  process.stderr.write(
    `${before.version} (process ${before.pid}) handed over to ${after.version} (process ${after.pid}).\n`,
  );
  return 0;
}

/** One line an event for a person; everything else as it is. */
function readable(stream: NodeJS.WriteStream): DestinationStream {
  return {
    write(line) {
      const { time, level, msg, service, event, err } = JSON.parse(line) as {
        time: number;
        level: number;
        msg: string;
        service?: string;
        event?: string;
        err?: { message: string };
      };
      const at = new Date(time).toISOString().slice(11, 19);
      const what = [service, event].filter(Boolean).join(' ');
      const cause = err === undefined ? '' : `: ${err.message}`;
      stream.write(`${at} ${level >= 50 ? 'ERROR ' : ''}${what === '' ? '' : `${what}: `}${msg}${cause}\n`);
    },
  };
}
