/**
 * When a replica that ended is started again: kubelet's crash loop back-off (pkg/kubelet/kuberuntime `doBackOff` over client-go's
 * `flowcontrol.Backoff`). The first restart is at once; each further one waits, counted from the end before it, twice as long.
 */

const FIRST_DELAY_MS = 10_000;
const MAX_DELAY_MS = 300_000;

/** Ran this long: its earlier ends are forgotten. client-go: twice the longest delay. */
const FORGET_MS = 2 * MAX_DELAY_MS;

export interface ReplicaEnd {
  /** Of the process that ended, ms. */
  readonly startedAt: number;
  readonly endedAt: number;
  /** Restarts in a row before it: 0 = the first process of the replica. */
  readonly failures: number;
}

/** When to start it again, ms, and what `failures` is for the next end. */
export function restartAt({ startedAt, endedAt, failures }: ReplicaEnd): {
  readonly at: number;
  readonly failures: number;
} {
  const inARow = endedAt - startedAt > FORGET_MS ? 0 : failures;
  const delayMs = inARow === 0 ? 0 : Math.min(MAX_DELAY_MS, FIRST_DELAY_MS * 2 ** Math.min(inARow - 1, 30));
  return { at: endedAt + delayMs, failures: inARow + 1 };
}
