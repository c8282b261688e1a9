/** Which revision of a service answers a request: named by the request, pinned, the same for the same key, or by lot. */
import type { RevisionRoute } from '../gateway/routing_table.ts';
import type { TrafficSpec } from '../spec/fleet_spec.ts';
import { KeyedHash } from './hash.ts';

/** Value of a header by its name in lower case. */
export type HeaderOf = (name: string) => string | undefined;

export type Split =
  | { readonly kind: 'revision'; readonly revision: RevisionRoute; readonly by: 'header' | 'pin' | 'sticky' | 'draw' }
  /** All shares are 0: the service is stopped. */
  | { readonly kind: 'stopped' }
  /** `x-tokenmill-revision` names none. */
  | { readonly kind: 'unknown'; readonly name: string };

export interface SplitService {
  readonly id: string;
  readonly revisions: readonly RevisionRoute[];
  readonly traffic: Pick<TrafficSpec, 'pins' | 'stickyBy'>;
}

/** Names a revision by its id or one of its tags. */
const REVISION_HEADER = 'x-tokenmill-revision';

/** Who has which share must outlive the gateway, so this is no secret. */
const shares = new KeyedHash(0x746f6b656e6d696cn);

/** `draw` is uniform in [0, 1). Named and pinned revisions answer at 0 percent too, unless the service is stopped. */
export function chooseRevision(service: SplitService, header: HeaderOf, draw: number): Split {
  const { revisions, traffic } = service;
  let total = 0;
  for (const { percent } of revisions) total += percent;
  if (total <= 0) return { kind: 'stopped' };
  const name = header(REVISION_HEADER);
  if (name !== undefined) {
    const revision = named(revisions, name);
    return revision === undefined ? { kind: 'unknown', name } : { kind: 'revision', revision, by: 'header' };
  }
  for (const pin of traffic.pins) {
    if (header(pin.header.toLowerCase()) !== pin.value) continue;
    const revision = named(revisions, pin.to);
    // Its rollout may be over: then the shares decide.
    if (revision !== undefined) return { kind: 'revision', revision, by: 'pin' };
  }
  const key = traffic.stickyBy === null ? undefined : header(traffic.stickyBy.toLowerCase());
  if (key !== undefined) return { kind: 'revision', revision: ofKey(service, key), by: 'sticky' };
  return { kind: 'revision', revision: drawn(revisions, draw * total), by: 'draw' };
}

function named(revisions: readonly RevisionRoute[], name: string): RevisionRoute | undefined {
  return revisions.find(({ id }) => id === name) ?? revisions.find(({ tags }) => tags.includes(name));
}

/**
 * Weighted rendezvous hashing (Schindelhauer and Schomaker 2005): a revision whose share grows only gains keys, whatever the
 * order of the revisions.
 */
function ofKey({ id: service, revisions }: SplitService, key: string): RevisionRoute {
  let best: RevisionRoute | undefined;
  let most = -1;
  for (const revision of revisions) {
    if (revision.percent <= 0) continue;
    const unit = shares.hash53(service, revision.id, key) * 2 ** -53;
    const score = revision.percent / -Math.log(unit);
    if (score > most) {
      most = score;
      best = revision;
    }
  }
  return best as RevisionRoute;
}

function drawn(revisions: readonly RevisionRoute[], at: number): RevisionRoute {
  let rest = at;
  let last: RevisionRoute | undefined;
  for (const revision of revisions) {
    if (revision.percent <= 0) continue;
    if (rest < revision.percent) return revision;
    rest -= revision.percent;
    last = revision;
  }
  return last as RevisionRoute;
}
