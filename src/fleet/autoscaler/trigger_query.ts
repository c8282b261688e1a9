/** What a trigger's query says now: a signal of the table, a query in PromQL over the fleet's own samples, or the use of a resource. */

import { evaluateQuery } from '../promql/evaluate.ts';
import type { SampleStore } from '../promql/sample_store.ts';
import type { TriggerQuery } from '../spec/fleet_spec.ts';
import { isSignal, type Signals } from './signals.ts';

/**
 * null = not known, or an error as KEDA's prometheus trigger has it: more than one element, or none (NaN and infinity count as
 * none) where `ignoreNullValues` is false. A cron trigger has its value from the clock, when the decision is made. `now` in ms.
 */
export function queryValue(query: TriggerQuery, store: SampleStore, known: Signals, now: number): number | null {
  switch (query.kind) {
    case 'signal':
      return isSignal(query.signal) ? known[query.signal] : null;
    case 'resource':
      return query.resource === 'cpu'
        ? cpuValue(known, query.utilization)
        : known[query.utilization ? 'memory' : 'memory_bytes'];
    case 'cron':
      return null;
    case 'promql': {
      const result = evaluateQuery(query.query, store, now);
      if ('failed' in result || result.elements.length > 1) return null;
      const value = result.elements[0]?.value;
      if (value !== undefined && Number.isFinite(value)) return value;
      return query.ignoreNullValues ? 0 : null;
    }
  }
}

/** Percent, or cores as a quantity of Kubernetes counts them. */
function cpuValue({ cpu, cpu_milli: milli }: Signals, utilization: boolean): number | null {
  return utilization ? cpu : milli === null ? null : milli / 1000;
}
