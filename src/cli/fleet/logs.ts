/** `tokenmill logs`: what replicas, the gateway or the supervisor wrote, of a whole service at once. */
import { setTimeout as sleep } from 'node:timers/promises';
import { TokenmillError } from '../../base/errors.ts';
import { FLEET_FLAGS } from '../../config/fleet_flags.ts';
import type { ReplicaRow } from '../../fleet/supervisor/views.ts';
import { FleetClient } from './client.ts';
import { oneName, parseFleetArgs, stateFolder } from './command.ts';

const { stateDir, follow, tail } = FLEET_FLAGS;
const MEMBERS_PERIOD_MS = 1000;
/** Of one that came later, all there is. */
const MAX_LINES = 100_000;

export async function logsCommand(args: readonly string[]): Promise<number> {
  const usage = ['Usage: tokenmill logs SERVICE|REPLICA|gateway|supervisor [flags]', '', 'What they wrote.'];
  const parsed = await parseFleetArgs(args, { usage, table: { stateDir, follow, tail }, maxPositionals: 1 });
  if (parsed === null) return 0;
  const { values } = parsed;
  const name = oneName(parsed.positionals, 'log', usage[0] as string);
  const client = new FleetClient(stateFolder(values.stateDir));
  const seen = new Set<string>();
  const streams: Promise<void>[] = [];
  for (let isFirst = true; ; isFirst = false) {
    const members = await membersOf(client, name);
    for (const member of members) {
      if (seen.has(member)) continue;
      // Replicas may come later: each line says whose it is.
      const prefix = members.length > 1 || !members.includes(name) ? `[${member}] ` : '';
      const lines = isFirst ? values.tail : MAX_LINES;
      seen.add(member);
      streams.push(copyLog(client, member, { lines, follow: values.follow, prefix }));
    }
    if (!values.follow) break;
    await sleep(MEMBERS_PERIOD_MS);
  }
  await Promise.all(streams);
  return 0;
}

/** Replicas of a service; else the name itself, which may be of one that is gone. */
async function membersOf(client: FleetClient, name: string): Promise<readonly string[]> {
  if (name === 'gateway' || name === 'supervisor') return [name];
  const { replicas } = await client.get<{ replicas: ReplicaRow[] }>('/v1/replicas');
  if (replicas.some(({ id }) => id === name)) return [name];
  try {
    const own = await client.get<{ replicas: ReplicaRow[] }>('/v1/replicas', { service: name });
    return own.replicas.map(({ id }) => id);
  } catch (error) {
    if (error instanceof TokenmillError && error.code === 'fleet_object_unknown') return [name];
    throw error;
  }
}

async function copyLog(
  client: FleetClient,
  member: string,
  { lines, follow: goOn, prefix }: { readonly lines: number; readonly follow: boolean; readonly prefix: string },
): Promise<void> {
  const body = await client.stream('/v1/logs', { member, lines: String(lines), follow: goOn ? '1' : '0' });
  const decoder = new TextDecoder();
  let rest = '';
  const write = (line: string): void => {
    process.stdout.write(`${prefix}${line}\n`);
  };
  for await (const chunk of body) {
    const pieces = (rest + decoder.decode(chunk, { stream: true })).split('\n');
    rest = pieces.pop() ?? '';
    for (const piece of pieces) write(piece);
  }
  if (rest !== '') write(rest);
}
