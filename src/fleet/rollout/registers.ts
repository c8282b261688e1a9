/**
 * KServe's four registers of a service in Knative mode: C latestCreated, R latestReady, L latestRolledOut, P previousRolledOut
 * (pkg/controller/v1beta1/inferenceservice and pkg/apis/serving/v1beta1 `PropagateStatus`). Every rollout keeps them here; the split
 * by `canaryTrafficPercent` is their own. Pure.
 */
import type { Registers } from '../control/fleet_state.ts';

export const NO_REGISTERS: Registers = {
  latestCreated: null,
  latestReady: null,
  latestRolledOut: null,
  previousRolledOut: null,
};

export type RegisterEvent =
  /** The template of the object is this revision's now. */
  | { readonly kind: 'created'; readonly revision: string }
  /** A replica of it is available. */
  | { readonly kind: 'ready'; readonly revision: string }
  /** It gets all requests. */
  | { readonly kind: 'served'; readonly revision: string }
  /** `canaryTrafficPercent` as it stands; null = not set. */
  | { readonly kind: 'percent'; readonly percent: number | null };

export function nextRegisters(registers: Registers, event: RegisterEvent): Registers {
  const { latestCreated: c, latestReady: r, latestRolledOut: l, previousRolledOut: p } = registers;
  if (event.kind === 'created') return { ...registers, latestCreated: event.revision };
  if (event.kind === 'ready') return { ...registers, latestReady: event.revision };
  if (event.kind === 'served') {
    if (l === event.revision) return registers;
    return { ...registers, latestRolledOut: event.revision, previousRolledOut: l };
  }
  // A split asked for after the full rollout: both shares would name one revision, so the other one is the one before.
  const isRolledBack = event.percent !== null && event.percent < 100 && l !== null && l === r && r === c && p !== null;
  return isRolledBack ? { ...registers, latestRolledOut: p } : registers;
}

export interface TrafficTarget {
  readonly revision: string;
  readonly percent: number;
  readonly tag: 'latest' | 'prev' | null;
}

/** Who gets what, the latest ready revision first. `tagLatest`: as with `serving.kserve.io/enable-tag-routing`. */
export function trafficTargets(registers: Registers, percent: number | null, tagLatest: boolean): TrafficTarget[] {
  const { latestReady: r, latestRolledOut: l } = registers;
  if (r === null) return [];
  const tag = tagLatest ? 'latest' : null;
  if (percent === null || percent >= 100 || l === null || l === r) return [{ revision: r, percent: 100, tag }];
  return [
    { revision: r, percent, tag },
    { revision: l, percent: 100 - percent, tag: 'prev' },
  ];
}
