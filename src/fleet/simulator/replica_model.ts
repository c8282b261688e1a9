/** What a replica does with its requests, how long it takes to be there, and what goes wrong: the numbers a simulation runs on. */
import { TokenmillError } from '../../base/errors.ts';

/** Measured at one batch size (`tokenmill bench` has the figures); in between it is linear. */
export interface BatchPoint {
  readonly batch: number;
  /** Per output token of each request, ms. */
  readonly tpotMs: number;
  /** Per prompt token while that many are decoded, ms. */
  readonly prefillMsPerToken: number;
}

export interface ReplicaModel {
  /** Ascending by batch. */
  readonly batches: readonly BatchPoint[];
  /** Requests at a time; the gateway holds the others. */
  readonly slots: number;
  /** Log-normal: median in ms, sigma of the logarithm. */
  readonly start: { readonly medianMs: number; readonly sigma: number };
  readonly wakeMs: number;
}

export interface Faults {
  /** The busiest replica ends then, ms since the start of the simulation. */
  readonly crashesAtMs: readonly number[];
  /** Share of starts that never become ready; given up after `startTimeoutMs`. */
  readonly stuckStarts: number;
  readonly startTimeoutMs: number;
  /** While nothing can be measured. */
  readonly missing: readonly { readonly fromMs: number; readonly toMs: number }[];
}

export const NO_FAULTS: Faults = { crashesAtMs: [], stuckStarts: 0, startTimeoutMs: 600_000, missing: [] };

const MAX_SLOTS = 4096;

/** Values at each batch size from 0 to the slots. */
export interface BatchTable {
  readonly tpotMs: Float64Array;
  readonly prefillMsPerToken: Float64Array;
}

/** `invalid_request` for a model that no replica could have. */
export function batchTable({ batches, slots }: ReplicaModel): BatchTable {
  const refuse = (why: string) => {
    throw new TokenmillError('invalid_request', `The replica model ${why}.`);
  };
  if (!Number.isSafeInteger(slots) || slots < 1 || slots > MAX_SLOTS)
    refuse(`has ${slots} slots, not 1 to ${MAX_SLOTS}`);
  if (batches.length === 0) refuse('has no measured batch');
  for (const [at, { batch, tpotMs, prefillMsPerToken }] of batches.entries()) {
    if (!(batch > (batches[at - 1]?.batch ?? 0))) refuse('lists batches that do not ascend from 1');
    if (!(tpotMs > 0 && prefillMsPerToken > 0)) refuse(`takes no time at batch ${batch}`);
  }
  const column = (of: (point: BatchPoint) => number) =>
    Float64Array.from({ length: slots + 1 }, (_, batch) => interpolated(batches, batch, of));
  return { tpotMs: column(({ tpotMs }) => tpotMs), prefillMsPerToken: column((point) => point.prefillMsPerToken) };
}

/** Beyond the last point it goes on as between the last two. */
function interpolated(points: readonly BatchPoint[], batch: number, of: (point: BatchPoint) => number): number {
  const above = points.findIndex((point) => point.batch >= batch);
  if (above === 0 || points.length === 1) return of(points[0] as BatchPoint);
  const right = above < 0 ? points.length - 1 : above;
  const [a, b] = [points[right - 1] as BatchPoint, points[right] as BatchPoint];
  return of(a) + ((of(b) - of(a)) * (batch - a.batch)) / (b.batch - a.batch);
}
