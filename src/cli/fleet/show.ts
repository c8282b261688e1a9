/** The answers of `get` and `describe` as texts. Pure. */

import type { StoredEvent } from '../../fleet/supervisor/state_store.ts';
import type { ReplicaRow, RevisionRow, ServiceDescription, ServiceRow } from '../../fleet/supervisor/views.ts';
import { age, shown, table } from './table.ts';

export function servicesText(rows: readonly ServiceRow[]): string {
  if (rows.length === 0) return 'The fleet has no services.';
  return table(
    ['NAME', 'READY', 'WANTED', 'BOUNDS', 'ROLLOUT', 'TRAFFIC', 'MODELS'],
    rows.map((row) => [
      row.id,
      `${row.ready}/${row.replicas}`,
      row.pinned === null ? String(row.wanted) : `${row.wanted} (by hand)`,
      `${row.minReplicas}-${row.maxReplicas}`,
      row.rollout.phase,
      trafficText(row.revisions),
      row.models.join(','),
    ]),
  );
}

function trafficText(revisions: readonly RevisionRow[]): string {
  const shares = revisions.filter(({ percent }) => percent > 0).map(({ id, percent }) => `${id}=${shown(percent)}%`);
  return shares.length === 0 ? '-' : shares.join(',');
}

export function replicasText(rows: readonly ReplicaRow[], now: number): string {
  if (rows.length === 0) return 'There are no replicas.';
  return table(
    ['NAME', 'SERVICE', 'STATUS', 'RESTARTS', 'IN FLIGHT', 'PID', 'URL', 'AGE'],
    rows.map((row) => [
      row.id,
      row.service,
      row.phase,
      String(row.restarts),
      String(row.inFlight),
      row.pid === null ? '-' : String(row.pid),
      row.url,
      age(now - row.createdAt),
    ]),
  );
}

export function revisionsText(rows: readonly RevisionRow[], now: number): string {
  if (rows.length === 0) return 'There are no revisions.';
  return table(
    ['NAME', 'SERVICE', 'TRAFFIC', 'READY', 'TAGS', 'AGE', 'STATUS'],
    rows.map((row) => [
      row.id,
      row.service,
      `${shown(row.percent)}%`,
      `${row.ready}/${row.replicas}`,
      row.tags.join(',') || '-',
      age(now - row.createdAt),
      row.failed ?? 'ok',
    ]),
  );
}

export function eventsText(events: readonly StoredEvent[], now: number): string {
  if (events.length === 0) return 'There are no events.';
  return table(
    ['AGE', 'SERVICE', 'TYPE', 'MESSAGE'],
    events.map(({ at, service, type, text }) => [age(now - at), service || '-', type, text]),
  );
}

export function descriptionText(description: ServiceDescription, now: number): string {
  const { decision, rollout, signals } = description;
  const known = Object.entries(signals).filter(([, value]) => value !== null);
  const indent = (text: string): string => text.replace(/^/gm, '  ');
  const facts: (readonly [string, string])[] = [
    ['Name', description.id],
    ['Kind', `${description.kind} (${description.at})`],
    ['Models', description.models.join(', ')],
    ['Replicas', `${description.ready} ready of ${description.replicas}; ${description.wanted} wanted`],
    ['Scaling', `${description.scaling}, ${description.minReplicas} to ${description.maxReplicas}`],
    ['Decision', decision === null ? 'none yet' : `${age(now - decision.at)} ago: ${decision.reason}`],
    ['Rollout', rollout.reason === '' ? rollout.phase : `${rollout.phase}: ${rollout.reason}`],
  ];
  return [
    ...facts.map(([name, text]) => `${`${name}:`.padEnd(11)}${text}`),
    '',
    'Signals:',
    ...known.map(([name, value]) => `  ${name.padEnd(28)}${shown(value, 2)}`),
    '',
    'Conditions:',
    indent(
      table(
        ['TYPE', 'STATUS', 'REASON', 'MESSAGE'],
        description.conditions.map(({ type, status, reason, message }) => [type, status, reason, message]),
      ),
    ),
    '',
    'Revisions:',
    indent(revisionsText(description.revisions, now)),
    '',
    'Replicas:',
    indent(replicasText(description.replicaRows, now)),
    ...(description.notices.length === 0
      ? []
      : ['', 'Notices:', ...description.notices.map(({ field, text }) => `  ${field}: ${text}`)]),
    '',
    'Events:',
    indent(eventsText(description.events, now)),
  ].join('\n');
}
