/** Sends requests at their times, at most so many at once, and collects their records. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Clock } from '../../base/clock.ts';
import type { RequestRecord } from './openai_stream.ts';

export interface LoadPlan {
  /** Ascending, seconds from the start; one entry a request. */
  readonly arrivalsS: readonly number[];
  /** Null = no limit. */
  readonly maxConcurrency: number | null;
}

export interface LoadResult {
  readonly records: readonly RequestRecord[];
  readonly durationS: number;
  readonly mostInFlight: number;
}

/**
 * `send(index, lateMs)` makes request `index`. A request whose time has come while the limit is reached waits for a place,
 * which its record's `lateMs` tells: with a limit the server sees less load than the arrival process asks for.
 */
export async function generateLoad(
  plan: LoadPlan,
  clock: Clock,
  send: (index: number, lateMs: number) => Promise<RequestRecord>,
  onProgress: (done: number, inFlight: number) => void,
): Promise<LoadResult> {
  const startMs = clock.now();
  const records: RequestRecord[] = [];
  const waiting: (() => void)[] = [];
  let inFlight = 0;
  let mostInFlight = 0;
  const one = async (index: number, plannedMs: number) => {
    records[index] = await send(index, Math.max(0, clock.now() - plannedMs));
    inFlight--;
    waiting.shift()?.();
    onProgress(records.filter(Boolean).length, inFlight);
  };
  const running: Promise<void>[] = [];
  for (const [index, arrivalS] of plan.arrivalsS.entries()) {
    const plannedMs = startMs + arrivalS * 1000;
    const wait = plannedMs - clock.now();
    if (wait > 0) await sleep(wait);
    if (plan.maxConcurrency !== null && inFlight >= plan.maxConcurrency) {
      await new Promise<void>((resolve) => waiting.push(resolve));
    }
    inFlight++;
    mostInFlight = Math.max(mostInFlight, inFlight);
    running.push(one(index, plannedMs));
  }
  await Promise.all(running);
  return { records, durationS: (clock.now() - startMs) / 1000, mostInFlight };
}
