/** Replicas, gateway counters and a machine in virtual time, which do what decideService asks. For tests. */
import { Rng } from '../../../base/rng.ts';
import type { RevisionStats } from '../../gateway/routing_table.ts';
import type { ReplicaTemplate, ServiceSpec } from '../../spec/fleet_spec.ts';
import { decideService } from '../decide.ts';
import type { Action, ReplicaObserved, ServiceDecision, ServiceObserved, ServiceState } from '../fleet_state.ts';
import { footprintOf, freeOf } from '../placement.ts';
import { restartAt } from '../restart.ts';

/** How processes of a template behave. */
export interface Behaviour {
  readonly startMs: number;
  readonly wakeMs: number;
  readonly drainMs: number;
  /** Ends as often as it is started, after this long; null = never. */
  readonly crashMs: number | null;
  /** Share of requests that fail, 0..1. */
  readonly errors: number;
}

export const HEALTHY: Behaviour = { startMs: 10_000, wakeMs: 2000, drainMs: 5000, crashMs: null, errors: 0 };

const PROBE = { path: '/health', initialDelayMs: 0, periodMs: 1000, timeoutMs: 1000, successThreshold: 1, failureThreshold: 3 };

export function makeTemplate(model: string, change: Partial<ReplicaTemplate> = {}): ReplicaTemplate {
  return {
    model,
    args: [],
    env: {},
    cpuMilli: null,
    memoryBytes: null,
    readiness: PROBE,
    liveness: PROBE,
    startup: PROBE,
    terminationGraceMs: 30_000,
    preStopMs: 0,
    minReadyMs: 0,
    ...change,
  };
}

export function makeSpec(change: Partial<ServiceSpec> = {}): ServiceSpec {
  return {
    id: 'default/llama',
    kind: 'InferenceService',
    at: { file: 'fleet.yaml', line: 1, column: 1 },
    models: ['llama'],
    template: makeTemplate('v1'),
    canaries: [],
    canaryTrafficPercent: null,
    scaling: { minReplicas: 1, maxReplicas: 10, standby: 0, rule: { kind: 'fixed' } },
    rollout: {
      strategy: 'rolling',
      maxSurge: { percent: 25 },
      maxUnavailable: { percent: 25 },
      steps: [],
      analysis: null,
      progressDeadlineMs: 600_000,
      revisionHistoryLimit: 10,
    },
    traffic: {
      pins: [],
      stickyBy: null,
      shadow: null,
      queue: { maxRequests: 100, maxBytes: 1e6, ttlMs: 30_000, coldTtlMs: 600_000 },
      fallbacks: [],
      priority: 0,
      hedgeAfterMs: 0,
      idleTimeoutMs: 60_000,
    },
    stopped: false,
    labels: {},
    ...change,
  };
}

interface Process {
  replica: ReplicaObserved;
  readonly template: ReplicaTemplate;
  /** When the phase changes by itself. */
  dueAt: number;
  failures: number;
  startedAt: number;
}

export class FakeWorld {
  now = 0;
  state: ServiceState | null = null;
  machine: { cpuMilli: number; memoryBytes: number } | null = null;
  requestsPerTick = 0;
  readonly behaviours = new Map<string, Behaviour>();
  private processes: Process[] = [];
  private readonly stats = new Map<string, RevisionStats>();
  private readonly rng = new Rng(1);
  private made = 0;

  get replicas(): ReplicaObserved[] {
    return this.processes.map(({ replica }) => replica);
  }

  behaviourOf(model: string): Behaviour {
    return this.behaviours.get(model) ?? HEALTHY;
  }

  observe(): ServiceObserved {
    const alive = this.processes.map(({ template, replica }) => footprintOf(template, replica.revision, null));
    const free = this.machine === null ? null : freeOf(this.machine, alive);
    return {
      replicas: this.replicas,
      revisions: Object.fromEntries(this.stats),
      machine: free === null ? null : { freeCpuMilli: free.cpuMilli, freeMemoryBytes: free.memoryBytes, footprints: {} },
    };
  }

  /** One decision, and what comes of it after `tickMs`. */
  tick(spec: ServiceSpec, scale: number, tickMs = 1000): ServiceDecision {
    this.turn();
    const decision = decideService(deepFreeze(spec), deepFreeze(this.state), deepFreeze(this.observe()), scale, this.now);
    this.state = JSON.parse(JSON.stringify(decision.state)) as ServiceState;
    for (const action of decision.actions) this.carryOut(action);
    this.serve(decision);
    this.now += tickMs;
    return decision;
  }

  /** The first `count` ready replicas fail their readiness for 15 s. */
  setUnready(count: number): void {
    for (const p of this.processes.filter(({ replica }) => replica.phase === 'ready').slice(0, count)) {
      p.replica = { ...p.replica, phase: 'unready' };
      p.dueAt = this.now + 15_000;
    }
  }

  /** What is due. */
  private turn(): void {
    this.processes = this.processes.filter(({ replica, dueAt }) => replica.phase !== 'draining' || dueAt > this.now);
    for (const p of this.processes) {
      const { phase } = p.replica;
      if (phase === 'backoff' && p.dueAt <= this.now) this.launch(p);
      else if (phase === 'starting' && p.dueAt <= this.now) this.started(p);
      else if (phase === 'unready' && p.dueAt <= this.now) p.replica = { ...p.replica, phase: 'ready', readyAt: this.now };
    }
  }

  private launch(p: Process): void {
    const { startMs, crashMs } = this.behaviourOf(p.template.model);
    p.startedAt = this.now;
    p.dueAt = this.now + (crashMs ?? startMs);
    p.replica = { ...p.replica, phase: 'starting', restarts: p.replica.restarts + 1, restartAt: null };
  }

  private started(p: Process): void {
    if (this.behaviourOf(p.template.model).crashMs === null) {
      p.replica = { ...p.replica, phase: 'ready', readyAt: this.now };
      return;
    }
    const next = restartAt({ startedAt: p.startedAt, endedAt: this.now, failures: p.failures });
    p.failures = next.failures;
    p.dueAt = next.at;
    p.replica = { ...p.replica, phase: 'backoff', restartAt: next.at };
  }

  private carryOut(action: Action): void {
    if (action.kind === 'start') {
      const template = this.state?.revisions.find(({ id }) => id === action.revision)?.template as ReplicaTemplate;
      for (let i = 0; i < action.count; i++) this.start(action.revision, template, action.asleep);
      return;
    }
    const p = this.processes.find(({ replica }) => replica.id === action.replica);
    if (p === undefined) throw new Error(`${action.kind} of ${action.replica}, which is not there`);
    if (p.replica.phase === 'draining') throw new Error(`${action.kind} of ${action.replica}, which drains`);
    const { drainMs, wakeMs } = this.behaviourOf(p.template.model);
    if (action.kind === 'stop') {
      p.replica = { ...p.replica, phase: 'draining' };
      p.dueAt = this.now + drainMs;
    } else if (action.kind === 'sleep') p.replica = { ...p.replica, phase: 'asleep', readyAt: null };
    else {
      if (p.replica.phase !== 'asleep') throw new Error(`wake of ${action.replica}, which is ${p.replica.phase}`);
      p.replica = { ...p.replica, phase: 'starting' };
      p.dueAt = this.now + wakeMs;
    }
  }

  private start(revision: string, template: ReplicaTemplate, asleep: boolean): void {
    const id = `${revision}-${String(this.made++).padStart(3, '0')}`;
    const { startMs, crashMs } = this.behaviourOf(template.model);
    const replica: ReplicaObserved = {
      id,
      service: 'default/llama',
      revision,
      phase: asleep ? 'asleep' : 'starting',
      url: `http://127.0.0.1/${id}`,
      pid: null,
      createdAt: this.now,
      readyAt: null,
      restarts: 0,
      restartAt: null,
      inFlight: 0,
    };
    const dueAt = this.now + (crashMs ?? startMs);
    this.processes.push({ replica, template, dueAt, failures: 0, startedAt: this.now });
  }

  /** Requests by the shares of the route. */
  private serve({ route, state }: ServiceDecision): void {
    for (let i = 0; i < this.requestsPerTick; i++) {
      let at = this.rng.next() * 100;
      const chosen = route.revisions.find(({ percent }) => (at -= percent) < 0);
      if (chosen === undefined || chosen.endpoints.length === 0) continue;
      const model = state.revisions.find(({ id }) => id === chosen.id)?.template.model ?? '';
      const none = { bounds: [], counts: [0], sum: 0 };
      const before = this.stats.get(chosen.id) ?? { requests: 0, errors: 0, promptTokens: 0, outputTokens: 0, ttftMs: none, tpotMs: none };
      const failed = this.rng.next() < this.behaviourOf(model).errors ? 1 : 0;
      this.stats.set(chosen.id, { ...before, requests: before.requests + 1, errors: before.errors + failed });
    }
  }
}

/** A decision that changes what it was given throws. */
export function deepFreeze<T>(value: T): T {
  if (typeof value !== 'object' || value === null || Object.isFrozen(value)) return value;
  for (const entry of Object.values(value)) deepFreeze(entry);
  return Object.freeze(value);
}
