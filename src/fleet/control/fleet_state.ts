/**
 * What the control loop remembers, sees and does. `decideService` (decide.ts) is a pure function from the first two to the third;
 * the supervisor carries it out for processes, the simulator in virtual time. All of it is JSON: the memory outlives the process.
 */
import type { RevisionStats, ServiceRoute } from '../gateway/routing_table.ts';
import type { ReplicaTemplate } from '../spec/fleet_spec.ts';

/** Memory of one service. */
export interface ServiceState {
  readonly id: string;
  readonly revisions: readonly RevisionState[];
  /** Knative's registers and every rollout's: ids of revisions. */
  readonly registers: Registers;
  readonly rollout: RolloutState;
  /** Of the scaling rule: its own affair, handed back as it was given. */
  readonly scaling: unknown;
  /** What the scaling rule wants in all; null = it has not spoken yet. */
  readonly replicasWanted: number | null;
  /** Set by `tokenmill scale`; rules over the rule until it is taken back. */
  readonly replicasPinned: number | null;
  /** Of the revision that is made next. */
  readonly nextRevision: number;
  /** What the start that was refused last lacked (`memory for llama-00002`), so that its event comes once; null = none was. */
  readonly blocked: string | null;
}

export interface RevisionState {
  /** `NAME-00001`, or the name of a canary. */
  readonly id: string;
  /** Name of the entry of `canaries` it was made for; it keeps that name when it becomes the stable one. */
  readonly canary: string | null;
  /** Of the template, SHA-256 in hex. */
  readonly hash: string;
  readonly template: ReplicaTemplate;
  readonly createdAt: number;
  /** Its replicas failed to start so often that it gets no more until the template changes. */
  readonly failed: string | null;
}

export interface Registers {
  readonly latestCreated: string | null;
  readonly latestReady: string | null;
  readonly latestRolledOut: string | null;
  readonly previousRolledOut: string | null;
}

export interface RolloutState {
  readonly phase: 'idle' | 'progressing' | 'paused' | 'promoting' | 'rollingBack' | 'failed';
  /** Revision that is to get all replicas: the stable one when nothing rolls. */
  readonly target: string | null;
  /** The machine had no room for both revisions: each new replica takes the place of an old one until this rollout ends. */
  readonly inPlace: boolean;
  /** Index into `RolloutSpec.steps`. */
  readonly step: number;
  readonly stepAt: number;
  /** Last time something got better, ms: what the progress deadline counts from. */
  readonly progressAt: number;
  /** Of the sequential tests, by revision; null = none runs. */
  readonly analysis: unknown;
  readonly reason: string;
}

export type ReplicaPhase =
  /** Process runs, not ready yet. */
  | 'starting'
  | 'ready'
  /** Was ready, its readiness fails. */
  | 'unready'
  /** Weights mapped, no KV cache; wakes in far less than a start. */
  | 'asleep'
  /** Out of the table, finishing what it has. */
  | 'draining'
  /** Ended, waits for its restart until `restartAt`. */
  | 'backoff';

/** One replica as the supervisor sees it. */
export interface ReplicaObserved {
  /** `llama-00002-x7k2p` */
  readonly id: string;
  readonly service: string;
  readonly revision: string;
  readonly phase: ReplicaPhase;
  readonly url: string;
  readonly pid: number | null;
  readonly createdAt: number;
  readonly readyAt: number | null;
  readonly restarts: number;
  readonly restartAt: number | null;
  /** Requests the gateway has with it. */
  readonly inFlight: number;
}

/** What `decideService` sees. Actions of its last decision are done: a started replica is `starting`, a stopped one `draining`. */
export interface ServiceObserved {
  readonly replicas: readonly ReplicaObserved[];
  /** By revision, as the gateway counted. */
  readonly revisions: Readonly<Record<string, RevisionStats>>;
  /** null = not known: every start is allowed. */
  readonly machine: MachineObserved | null;
}

/** What a footprint is made of; null = not known, and then nothing is held back for it. */
export interface Footprint {
  readonly cpuMilli: number | null;
  readonly memoryBytes: number | null;
}

export interface MachineObserved {
  /** Of the machine less what every replica alive has or will take (`freeOf`), those of other services included. */
  readonly freeCpuMilli: number;
  readonly freeMemoryBytes: number;
  /** By revision, where its template says null: from the model's plan or as measured. */
  readonly footprints: Readonly<Record<string, Footprint>>;
}

/** What a person asks of one service. Asked twice, each does what it does once. */
export type ServiceCommand =
  /** Back to `to`, or null: to the stable revision of an unfinished rollout, else to the one before. */
  | { readonly kind: 'undo'; readonly to: string | null }
  /** No further steps, pauses or judgement. */
  | { readonly kind: 'promote' }
  | { readonly kind: 'pause' }
  | { readonly kind: 'resume' }
  /** null: the scaling rule rules again. */
  | { readonly kind: 'scale'; readonly replicas: number | null };

export type Action =
  | {
      readonly kind: 'start';
      readonly service: string;
      readonly revision: string;
      readonly count: number;
      readonly asleep: boolean;
    }
  /** Leaves the table at once, then pre-stop delay, SIGTERM, SIGKILL after the grace. */
  | { readonly kind: 'stop'; readonly replica: string; readonly reason: string }
  | { readonly kind: 'sleep'; readonly replica: string }
  | { readonly kind: 'wake'; readonly replica: string };

/** Everything a person may want to know later; kept in a bounded journal and shown on the fleet page's timeline. */
export interface FleetEvent {
  readonly at: number;
  readonly service: string;
  /** `ScaledUp`, `RevisionReady`, `RolledBack` ... */
  readonly type: string;
  readonly text: string;
}

export interface ServiceDecision {
  readonly state: ServiceState;
  readonly actions: readonly Action[];
  readonly events: readonly FleetEvent[];
  /** For the gateway's table. */
  readonly route: ServiceRoute;
  readonly conditions: readonly Condition[];
}

/** As in the status of a Kubernetes object. */
export interface Condition {
  readonly type: string;
  readonly status: 'True' | 'False' | 'Unknown';
  readonly reason: string;
  readonly message: string;
}
