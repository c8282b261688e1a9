/**
 * Knative's pod autoscaler as a pure function (knative/serving, pkg/autoscaler/scaling/autoscaler.go and
 * pkg/reconciler/autoscaling/kpa, read in August 2026): one evaluation, every 2 s. Averages over the two windows are what is
 * observed; taking them is the observer's affair.
 */
import type { KpaPolicy } from './kpa_policy.ts';

export interface KpaObserved {
  /** As set. */
  readonly replicas: number;
  readonly readyReplicas: number;
  /** Average of the metric over the stable window and over the panic window (its last tenth); null = nothing was measured. */
  readonly average: { readonly stable: number; readonly panic: number } | null;
  /** How long requests have gone through the activator (what holds them while there is no replica), ms; null = they do not. */
  readonly activatorMs: number | null;
  /** Some route leads here. */
  readonly reachable: boolean;
}

export interface KpaMemory {
  /** When the panic threshold was last exceeded, ms; null = no panic. */
  readonly panicAt: number | null;
  /** The most that was wanted since the panic began. */
  readonly panicReplicas: number;
  /** What was wanted within the scale-down delay, by the tick it was wanted in. */
  readonly wanted: readonly { readonly tick: number; readonly replicas: number }[];
  /** Of the last evaluation that had an average. */
  readonly desired: { readonly replicas: number; readonly excessBurstCapacity: number } | null;
  readonly phase: 'activating' | 'active' | 'inactive';
  /** Since when that is the phase, ms. */
  readonly phaseAt: number;
  /** The initial scale was reached. */
  readonly initialized: boolean;
}

export interface KpaDecision {
  readonly replicas: number;
  readonly write: boolean;
  readonly reason: 'stable' | 'panic' | 'no data' | 'activating' | 'deactivating' | 'activation timed out' | 'idle';
  /** Room beyond the wanted burst, requests; below 0 there is too little. */
  readonly excessBurstCapacity: number;
  /** Requests are to go through the activator. */
  readonly viaActivator: boolean;
  readonly memory: KpaMemory;
}

const TICK_MS = 2000;

/** Beyond the progress deadline, ms: whoever explains the failure comes first. */
const ACTIVATION_BUFFER_MS = 30_000;

const MAX_INT32 = 2 ** 31 - 1;

/** Before the first evaluation. More than one replica at a start is held for a window: the past is not known. */
export function initialKpaMemory(readyReplicas: number, now: number): KpaMemory {
  return {
    panicAt: readyReplicas > 1 ? now : null,
    panicReplicas: readyReplicas,
    wanted: [],
    desired: null,
    phase: 'activating',
    phaseAt: now,
    initialized: false,
  };
}

/** One evaluation at time `now`, ms. */
export function decideKpa(policy: KpaPolicy, observed: KpaObserved, memory: KpaMemory, now: number): KpaDecision {
  const decided = observed.average === null ? memory : desire(policy, observed, observed.average, memory, now);
  const scaled = scale(policy, observed, decided, now);
  const { want, reason } = scaled;
  const replicas = scaled.write ? (want as number) : observed.replicas;
  const excessBurstCapacity = decided.desired?.excessBurstCapacity ?? initialExcessBurst(policy);
  return {
    replicas,
    write: replicas !== observed.replicas,
    reason: reason ?? (observed.average === null ? 'no data' : decided.panicAt === null ? 'stable' : 'panic'),
    excessBurstCapacity,
    viaActivator: !(want !== null && want > 0 && excessBurstCapacity >= 0),
    memory: withPhase(policy, observed, decided, want, now),
  };
}

function desire(
  policy: KpaPolicy,
  observed: KpaObserved,
  average: { readonly stable: number; readonly panic: number },
  memory: KpaMemory,
  now: number,
): KpaMemory {
  const ready = Math.max(1, observed.readyReplicas);
  const most = Math.ceil(policy.maxScaleUpRate * ready);
  const least = observed.reachable ? Math.floor(ready / policy.maxScaleDownRate) : 0;
  const within = (asked: number) => {
    const count = Math.min(MAX_INT32, Math.max(asked, least), most);
    return asked > 0 ? Math.max(count, policy.activationScale) : count;
  };
  const stable = Math.ceil(average.stable / policy.targetValue);
  const panic = Math.ceil(average.panic / policy.targetValue);
  const over = panic / ready >= policy.panicThresholdPercentage / 100;
  const calm = memory.panicAt !== null && memory.panicAt + policy.windowS * 1000 < now;
  const panicAt = over ? now : calm ? null : memory.panicAt;
  const held = calm && !over ? 0 : memory.panicReplicas;
  // In a panic the count never falls.
  const panicReplicas = panicAt === null ? held : Math.max(held, within(stable), within(panic));
  const wanted = panicAt === null ? within(stable) : panicReplicas;
  const isDelayed = policy.scaleDownDelayS > 0 && observed.reachable;
  const recent = isDelayed ? remembered(policy, memory, wanted, now) : [];
  return {
    ...memory,
    panicAt,
    panicReplicas,
    wanted: isDelayed ? recent : memory.wanted,
    desired: {
      replicas: Math.max(wanted, ...recent.map(({ replicas }) => replicas)),
      excessBurstCapacity: excessBurst(policy, observed.readyReplicas, average.panic),
    },
  };
}

/** What was wanted within the scale-down delay, this included; without what can no longer be the most. */
function remembered(
  { scaleDownDelayS }: KpaPolicy,
  memory: KpaMemory,
  replicas: number,
  now: number,
): KpaMemory['wanted'] {
  const tick = Math.floor(now / TICK_MS);
  const ticks = Math.ceil((scaleDownDelayS * 1000) / TICK_MS);
  return [
    ...memory.wanted.filter((entry) => tick - entry.tick < ticks && entry.replicas > replicas),
    { tick, replicas },
  ];
}

function excessBurst({ targetBurstCapacity, totalValue }: KpaPolicy, ready: number, panic: number): number {
  if (targetBurstCapacity <= 0) return targetBurstCapacity;
  return Math.floor(ready * totalValue - targetBurstCapacity - panic);
}

/** Before the first average. */
function initialExcessBurst({ targetBurstCapacity, totalValue, initialScale }: KpaPolicy): number {
  if (targetBurstCapacity <= 0) return targetBurstCapacity;
  return Math.trunc(initialScale * totalValue - targetBurstCapacity);
}

interface Scaled {
  /** Null = not known. */
  readonly want: number | null;
  readonly write: boolean;
  readonly reason?: KpaDecision['reason'];
}

function scale(policy: KpaPolicy, observed: KpaObserved, memory: KpaMemory, now: number): Scaled {
  const { desired, initialized, phase } = memory;
  if (desired === null && phase !== 'activating') return { want: null, write: false };
  const starts = policy.initialScale > 1 && !initialized && observed.reachable;
  const least = Math.max(minScale(policy, observed), starts ? policy.initialScale : 0);
  const asked = desired?.replicas ?? 0;
  const most = policy.maxScale || Number.POSITIVE_INFINITY;
  const want = asked < least ? least : Math.min(asked, most);
  return want > 0 ? { want, write: true } : toZero(policy, observed, memory, now);
}

function minScale({ minScale: least }: KpaPolicy, { reachable }: KpaObserved): number {
  return reachable ? least : 0;
}

/** Only after a window without traffic, and not before requests that come then are sure to be held. */
function toZero(policy: KpaPolicy, observed: KpaObserved, memory: KpaMemory, now: number): Scaled {
  if (!policy.scaleToZero) return { want: 1, write: true };
  const phaseMs = now - memory.phaseAt;
  if (memory.phase === 'activating') {
    const failed = phaseMs > policy.progressDeadlineS * 1000 + ACTIVATION_BUFFER_MS;
    return failed
      ? { want: 0, write: true, reason: 'activation timed out' }
      : { want: null, write: false, reason: 'activating' };
  }
  if (memory.phase === 'active') {
    const idle = phaseMs >= policy.windowS * 1000;
    return idle ? { want: 0, write: false, reason: 'deactivating' } : { want: 1, write: true };
  }
  const graceMs = policy.scaleToZeroGracePeriodS * 1000;
  const retentionMs = observed.reachable ? policy.scaleToZeroPodRetentionPeriodS * 1000 : 0;
  const held = policy.targetBurstCapacity === -1 || observed.activatorMs !== null;
  const waited = phaseMs >= graceMs || (observed.activatorMs ?? 0) >= graceMs;
  return held && waited && phaseMs >= retentionMs
    ? { want: 0, write: true, reason: 'idle' }
    : { want: 0, write: false, reason: 'deactivating' };
}

function withPhase(
  policy: KpaPolicy,
  observed: KpaObserved,
  memory: KpaMemory,
  want: number | null,
  now: number,
): KpaMemory {
  const least = minScale(policy, observed);
  const enough = Math.max(least, memory.initialized ? 1 : policy.initialScale);
  const { readyReplicas } = observed;
  let { phase } = memory;
  if (want === 0 || enough === 0) phase = 'inactive';
  else if ((want !== null && want > 0) || phase !== 'inactive') {
    phase = readyReplicas < enough ? 'activating' : 'active';
  }
  return {
    ...memory,
    initialized: memory.initialized || readyReplicas >= enough,
    phase,
    phaseAt: phase === memory.phase ? memory.phaseAt : now,
  };
}
