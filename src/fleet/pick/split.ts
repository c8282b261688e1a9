import type { RevisionRoute } from '../gateway/routing_table.ts';
import type { TrafficSpec } from '../spec/fleet_spec.ts';

/** Value of a header by its name in lower case. */
export type HeaderOf = (name: string) => string | undefined;

export type Split =
  | { readonly kind: 'revision'; readonly revision: RevisionRoute; readonly by: 'header' | 'pin' | 'sticky' | 'draw' }
  /** All shares are 0: the service is stopped. */
  | { readonly kind: 'stopped' }
  /** `x-tokenmill-revision` names none. */
  | { readonly kind: 'unknown'; readonly name: string };

/** `draw` is uniform in [0, 1). */
export declare function chooseRevision(
  service: {
    readonly id: string;
    readonly revisions: readonly RevisionRoute[];
    readonly traffic: Pick<TrafficSpec, 'pins' | 'stickyBy'>;
  },
  header: HeaderOf,
  draw: number,
): Split;
