/** Commands that ask or change a fleet that runs: get, describe, rollout, scale, apply, diff, delete. */
import { setTimeout as sleep } from 'node:timers/promises';
import { systemClock } from '../../base/clock.ts';
import { TokenmillError } from '../../base/errors.ts';
import { nearestName } from '../../base/nearest.ts';
import { FLEET_FLAGS } from '../../config/fleet_flags.ts';
import type { Notice } from '../../fleet/spec/fleet_spec.ts';
import type { StoredEvent } from '../../fleet/supervisor/state_store.ts';
import type { ApplyResult } from '../../fleet/supervisor/supervisor.ts';
import type { ReplicaRow, ServiceDescription, ServiceRow } from '../../fleet/supervisor/views.ts';
import { FleetClient } from './client.ts';
import { oneName, parseFleetArgs, readFleetFiles, stateFolder } from './command.ts';
import { fleetDiff } from './fleet_diff.ts';
import { descriptionText, eventsText, replicasText, revisionsText, servicesText } from './show.ts';

const { stateDir, output, filename, dryRun, replicas, toRevision, watch } = FLEET_FLAGS;
const WATCH_PERIOD_MS = 500;

const RESOURCES: Readonly<Record<string, string>> = {
  services: 'services',
  service: 'services',
  svc: 'services',
  isvc: 'services',
  inferenceservices: 'services',
  replicas: 'replicas',
  replica: 'replicas',
  pods: 'replicas',
  pod: 'replicas',
  revisions: 'revisions',
  revision: 'revisions',
  events: 'events',
  event: 'events',
};

function print(value: unknown, format: string, text: () => string): void {
  console.log(format === 'json' ? JSON.stringify(value, null, 2) : text());
}

export async function getCommand(args: readonly string[]): Promise<number> {
  const usage = [
    'Usage: tokenmill get [services|replicas|revisions|events] [service] [flags]',
    '',
    'Lists what the fleet has.',
  ];
  const parsed = await parseFleetArgs(args, { usage, table: { stateDir, output }, maxPositionals: 2 });
  if (parsed === null) return 0;
  const [what = 'services', service = null] = parsed.positionals;
  const resource = Object.hasOwn(RESOURCES, what.toLowerCase()) ? RESOURCES[what.toLowerCase()] : undefined;
  if (resource === undefined) {
    const guess = nearestName(what, Object.keys(RESOURCES));
    throw new TokenmillError('flag_invalid', `There are no ${JSON.stringify(what.slice(0, 80))} in a fleet.`, {
      remedy: guess === null ? 'There are services, replicas, revisions and events.' : `Did you mean ${guess}?`,
    });
  }
  const client = new FleetClient(stateFolder(parsed.values.stateDir));
  const format = parsed.values.output;
  const now = systemClock.now();
  if (resource === 'replicas') {
    const answer = await client.get<{ replicas: ReplicaRow[] }>('/v1/replicas', { service });
    print(answer.replicas, format, () => replicasText(answer.replicas, now));
  } else if (resource === 'events') {
    const answer = await client.get<{ events: StoredEvent[] }>('/v1/events', { service });
    print(answer.events, format, () => eventsText(answer.events, now));
  } else {
    const answer = await client.get<{ services: ServiceRow[] }>('/v1/services', { service });
    const revisions = answer.services.flatMap((row) => row.revisions);
    if (resource === 'revisions') print(revisions, format, () => revisionsText(revisions, now));
    else print(answer.services, format, () => servicesText(answer.services));
  }
  return 0;
}

export async function describeCommand(args: readonly string[]): Promise<number> {
  const usage = ['Usage: tokenmill describe SERVICE [flags]', '', 'Everything about one service, and why it is so.'];
  const parsed = await parseFleetArgs(args, { usage, table: { stateDir, output }, maxPositionals: 2 });
  if (parsed === null) return 0;
  const service = oneName(parsed.positionals.slice(-1), 'service', usage[0] as string);
  const description = await new FleetClient(stateFolder(parsed.values.stateDir)).get<ServiceDescription>(
    '/v1/describe',
    { service },
  );
  print(description, parsed.values.output, () => descriptionText(description, systemClock.now()));
  return 0;
}

export async function scaleCommand(args: readonly string[]): Promise<number> {
  const usage = [
    'Usage: tokenmill scale SERVICE --replicas N',
    '',
    'Sets the number of replicas by hand; --replicas auto takes it back.',
  ];
  const parsed = await parseFleetArgs(args, { usage, table: { stateDir, output, replicas }, maxPositionals: 2 });
  if (parsed === null) return 0;
  const service = oneName(parsed.positionals.slice(-1), 'service', usage[0] as string);
  if (!args.some((arg) => arg.startsWith('--replicas'))) {
    throw new TokenmillError('flag_invalid', 'How many replicas?', { param: '--replicas', remedy: usage[0] as string });
  }
  const client = new FleetClient(stateFolder(parsed.values.stateDir));
  const answer = await client.post<{ service: string; text: string }>('/v1/scale', {
    service,
    replicas: parsed.values.replicas,
  });
  print(answer, parsed.values.output, () => `${answer.service}: ${answer.text}`);
  return 0;
}

const ROLLOUT_ACTIONS = ['status', 'history', 'undo', 'promote', 'pause', 'resume'] as const;

export async function rolloutCommand(args: readonly string[]): Promise<number> {
  const usage = [
    'Usage: tokenmill rollout status|history|undo|promote|pause|resume SERVICE [flags]',
    '',
    'What becomes of a new revision. status ends with 1 when the rollout has failed.',
  ];
  const parsed = await parseFleetArgs(args, {
    usage,
    table: { stateDir, output, toRevision, watch },
    maxPositionals: 3,
  });
  if (parsed === null) return 0;
  const [given = '', ...names] = parsed.positionals;
  const action = ROLLOUT_ACTIONS.find((name) => name === given);
  if (action === undefined) {
    const guess = nearestName(given, ROLLOUT_ACTIONS);
    throw new TokenmillError('flag_invalid', `Rollouts have no ${JSON.stringify(given.slice(0, 80))}.`, {
      remedy: guess === null ? (usage[0] as string) : `Did you mean ${guess}?`,
    });
  }
  const service = oneName(names.slice(-1), 'service', usage[0] as string);
  const client = new FleetClient(stateFolder(parsed.values.stateDir));
  const format = parsed.values.output;
  if (action === 'status') return rolloutStatus(client, service, format, parsed.values.watch);
  if (action === 'history') {
    const { revisions } = await client.get<ServiceDescription>('/v1/describe', { service });
    print(revisions, format, () => revisionsText(revisions, systemClock.now()));
    return 0;
  }
  const to = action === 'undo' ? parsed.values.toRevision : null;
  const answer = await client.post<{ service: string; text: string }>('/v1/rollout', { service, action, to });
  print(answer, format, () => `${answer.service}: ${answer.text}`);
  return 0;
}

async function rolloutStatus(client: FleetClient, service: string, format: string, wait: boolean): Promise<number> {
  let said = '';
  for (;;) {
    const description = await client.get<ServiceDescription>('/v1/describe', { service });
    const { phase, reason } = description.rollout;
    const traffic = description.revisions
      .filter(({ percent }) => percent > 0)
      .map(({ id, percent }) => `${id} ${percent}%`);
    const text = `${description.id}: ${phase}${reason === '' ? '' : `, ${reason}`} (${traffic.join(', ') || 'no traffic'})`;
    const isOver = phase === 'idle' || phase === 'failed' || phase === 'paused';
    if (!wait || isOver) {
      print(description.rollout, format, () => text);
      return phase === 'failed' ? 1 : 0;
    }
    if (text !== said) process.stderr.write(`${text}\n`);
    said = text;
    await sleep(WATCH_PERIOD_MS);
  }
}

export function noticesText(notices: readonly Notice[]): string {
  return notices
    .map(({ at, object, field, text }) => `notice: ${at.file}:${at.line} ${object} ${field}: ${text}\n`)
    .join('');
}

/** Prints what changes; true when something does. */
export function printChanges({ before, after }: ApplyResult, format: string): boolean {
  const from = before ?? { ...after, services: [], routes: [], graphs: [], notices: [] };
  const text = fleetDiff(from, after);
  process.stderr.write(noticesText(after.notices));
  print({ diff: text, notices: after.notices }, format, () => text.trimEnd() || 'Nothing changes.');
  return text !== '';
}

export async function applyCommand(args: readonly string[]): Promise<number> {
  const usage = [
    'Usage: tokenmill apply fleet.yaml [flags]',
    '',
    'Gives the fleet that runs these objects; others stay as they are.',
  ];
  const table = { stateDir, output, filename, dryRun };
  const parsed = await parseFleetArgs(args, { usage, table, maxPositionals: 64 });
  if (parsed === null) return 0;
  const { values } = parsed;
  const files = readFleetFiles([...parsed.positionals, ...values.filename], usage[0] as string);
  const answer = await new FleetClient(stateFolder(values.stateDir)).post<ApplyResult>('/v1/apply', {
    files,
    dryRun: values.dryRun,
  });
  printChanges(answer, values.output);
  return 0;
}

export async function diffCommand(args: readonly string[]): Promise<number> {
  const usage = [
    'Usage: tokenmill diff fleet.yaml [flags]',
    '',
    'What apply would change. Ends with 1 when there is something.',
  ];
  const parsed = await parseFleetArgs(args, { usage, table: { stateDir, output, filename }, maxPositionals: 64 });
  if (parsed === null) return 0;
  const { values } = parsed;
  const files = readFleetFiles([...parsed.positionals, ...values.filename], usage[0] as string);
  const answer = await new FleetClient(stateFolder(values.stateDir)).post<ApplyResult>('/v1/apply', {
    files,
    dryRun: true,
  });
  return printChanges(answer, values.output) ? 1 : 0;
}

export async function deleteCommand(args: readonly string[]): Promise<number> {
  const usage = [
    'Usage: tokenmill delete SERVICE ... | -f fleet.yaml',
    '',
    'Takes services, or the objects of a file, out of the fleet.',
  ];
  const parsed = await parseFleetArgs(args, { usage, table: { stateDir, output, filename }, maxPositionals: 64 });
  if (parsed === null) return 0;
  const { values, positionals } = parsed;
  if (positionals.length === 0 && values.filename.length === 0) oneName([], 'service', usage[0] as string);
  const files = values.filename.length === 0 ? [] : readFleetFiles(values.filename, usage[0] as string);
  const client = new FleetClient(stateFolder(values.stateDir));
  const answer = await client.post<ApplyResult>('/v1/delete', { services: positionals, files });
  printChanges(answer, values.output);
  return 0;
}
