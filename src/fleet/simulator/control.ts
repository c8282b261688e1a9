/**
 * Who decides in a simulation: sees what the control loop sees and gives the actions the supervisor would carry out. `scaleControl`
 * drives `decideScale` for a service of one revision; what decides on rollouts too takes its place with the same form.
 */

import type { ScaleObserved } from '../autoscaler/scale_decision.ts';
import { decideScale } from '../autoscaler/scaler.ts';
import type { Action, FleetEvent, ReplicaObserved } from '../control/fleet_state.ts';
import type { ServiceSpec } from '../spec/fleet_spec.ts';

export interface ControlSeen {
  readonly replicas: readonly ReplicaObserved[];
  /** Asked for only when a decision is due: taking signals and queries costs time. */
  readonly scale: (replicas: number) => ScaleObserved;
  /** Requests held by the gateway. */
  readonly waiting: number;
}

export interface ControlStep {
  /** How many replicas are wanted in all. */
  readonly wanted: number;
  readonly actions: readonly Action[];
  readonly events: readonly FleetEvent[];
}

/** Called every round with the time in ms since 1970; keeps its own memory. */
export type Control = (seen: ControlSeen, now: number) => ControlStep;

const REVISION = 'simulated';

/** The rule of the service at its real period, and what makes the count true. */
export function scaleControl({ id, scaling }: ServiceSpec): Control {
  let memory: unknown = null;
  let nextAt = Number.NEGATIVE_INFINITY;
  let wanted = scaling.minReplicas;
  return (seen, now) => {
    const events: FleetEvent[] = [];
    const heldAtZero = wanted === 0 && seen.waiting > 0;
    if (now >= nextAt || heldAtZero) {
      const decision = decideScale(scaling, seen.scale(wanted), memory, now);
      ({ memory, nextAt } = decision);
      if (decision.replicas !== wanted) {
        const type = decision.replicas > wanted ? 'ScaledUp' : 'ScaledDown';
        events.push({ at: now, service: id, type, text: decision.reason });
      }
      wanted = decision.replicas;
    }
    return { wanted, actions: reconciled(id, scaling.standby, wanted, seen.replicas), events };
  };
}

function reconciled(service: string, standby: number, wanted: number, replicas: readonly ReplicaObserved[]): Action[] {
  const asleep = replicas.filter(({ phase }) => phase === 'asleep');
  const serving = replicas.filter(({ phase }) => phase === 'starting' || phase === 'ready');
  const missing = wanted - serving.length;
  const woken = asleep.slice(0, Math.max(0, missing));
  const left = missing - woken.length;
  const start = (count: number, isAsleep: boolean): Action[] =>
    count > 0 ? [{ kind: 'start', service, revision: REVISION, count, asleep: isAsleep }] : [];
  const room = standby - (asleep.length - woken.length);
  const leaving = [...serving].sort(byWorth).slice(0, Math.max(0, -missing));
  const sleeping = leaving.filter(({ phase }) => phase === 'ready').slice(0, Math.max(0, room));
  return [
    ...woken.map(({ id }): Action => ({ kind: 'wake', replica: id })),
    ...start(left, false),
    ...sleeping.map(({ id }): Action => ({ kind: 'sleep', replica: id })),
    ...leaving
      .filter((replica) => !sleeping.includes(replica))
      .map(({ id }): Action => ({ kind: 'stop', replica: id, reason: 'fewer are wanted' })),
    ...start(room - sleeping.length, true),
  ];
}

/** Those that do not serve yet go first, then those with the least to finish. */
function byWorth(a: ReplicaObserved, b: ReplicaObserved): number {
  const ready = (replica: ReplicaObserved) => (replica.phase === 'ready' ? 1 : 0);
  return ready(a) - ready(b) || a.inFlight - b.inFlight || b.createdAt - a.createdAt;
}
