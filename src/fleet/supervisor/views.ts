/** What `get`, `describe` and the fleet page show: plain JSON, made from the loop's state when it is asked for. */
import { TokenmillError } from '../../base/errors.ts';
import { nearestName } from '../../base/nearest.ts';
import type { Condition, ReplicaPhase, RolloutState } from '../control/fleet_state.ts';
import type { FleetSpec } from '../spec/fleet_spec.ts';
import type { Fleet, ServiceView } from './fleet.ts';
import type { ReplicaRecord } from './replica_lifecycle.ts';
import { type Replicas, urlOf } from './replicas.ts';
import type { StoredEvent } from './state_store.ts';

export interface RevisionRow {
  readonly id: string;
  readonly service: string;
  readonly percent: number;
  readonly tags: readonly string[];
  readonly replicas: number;
  readonly ready: number;
  readonly createdAt: number;
  readonly failed: string | null;
  readonly model: string;
}

export interface ServiceRow {
  readonly id: string;
  readonly kind: string;
  readonly models: readonly string[];
  readonly ready: number;
  /** Alive, those that end not counted. */
  readonly replicas: number;
  readonly wanted: number;
  readonly pinned: number | null;
  readonly minReplicas: number;
  readonly maxReplicas: number;
  readonly rollout: Pick<RolloutState, 'phase' | 'reason'>;
  readonly revisions: readonly RevisionRow[];
  readonly condition: Condition | null;
}

export interface ReplicaRow {
  readonly id: string;
  readonly service: string;
  readonly revision: string;
  readonly phase: ReplicaPhase;
  readonly restarts: number;
  readonly pid: number | null;
  readonly url: string;
  readonly cpus: readonly number[] | null;
  readonly createdAt: number;
  readonly inFlight: number;
}

export interface ServiceDescription extends ServiceRow {
  readonly at: string;
  readonly scaling: string;
  readonly decision: { readonly at: number; readonly reason: string } | null;
  readonly signals: Readonly<Record<string, number | null>>;
  readonly conditions: readonly Condition[];
  readonly replicaRows: readonly ReplicaRow[];
  readonly notices: readonly { readonly field: string; readonly text: string }[];
  readonly events: readonly StoredEvent[];
}

function revisionRows({ spec, state, route }: ServiceView, records: readonly ReplicaRecord[]): RevisionRow[] {
  return (state?.revisions ?? []).map(({ id, createdAt, failed, template }) => {
    const own = records.filter(({ revision, phase }) => revision === id && phase !== 'draining');
    const at = route?.revisions.find((revision) => revision.id === id);
    return {
      id,
      service: spec.id,
      percent: at?.percent ?? 0,
      tags: at?.tags ?? [],
      replicas: own.length,
      ready: own.filter(({ phase }) => phase === 'ready').length,
      createdAt,
      failed,
      model: template.model,
    };
  });
}

function serviceRow(view: ServiceView, records: readonly ReplicaRecord[]): ServiceRow {
  const { spec, state, conditions } = view;
  return {
    id: spec.id,
    kind: spec.kind,
    models: spec.models,
    ready: records.filter(({ phase }) => phase === 'ready').length,
    replicas: records.filter(({ phase }) => phase !== 'draining').length,
    wanted: spec.stopped ? 0 : (state?.replicasPinned ?? state?.replicasWanted ?? 0),
    pinned: state?.replicasPinned ?? null,
    minReplicas: spec.scaling.minReplicas,
    maxReplicas: spec.scaling.maxReplicas,
    rollout: { phase: state?.rollout.phase ?? 'idle', reason: state?.rollout.reason ?? '' },
    revisions: revisionRows(view, records),
    condition: conditions.find(({ type }) => type === 'Ready') ?? null,
  };
}

function replicaRow(record: ReplicaRecord, inFlight: number): ReplicaRow {
  const { id, service, revision, phase, restarts, process, cpus, createdAt } = record;
  return {
    id,
    service,
    revision,
    phase,
    restarts,
    pid: process?.pid ?? null,
    url: urlOf(record),
    cpus,
    createdAt,
    inFlight,
  };
}

/** `llama`, `default/llama`, `isvc/llama` or the name of a model -> the id of the service. Throws `fleet_object_unknown`. */
function resolveService(spec: FleetSpec | null, given: string): string {
  const services = spec?.services ?? [];
  const exact = services.find(({ id }) => id === given);
  if (exact !== undefined) return exact.id;
  const name = given.slice(given.lastIndexOf('/') + 1);
  const named = services.filter(({ id, models }) => id.endsWith(`/${name}`) || models.includes(given));
  if (named.length === 1) return (named[0] as { id: string }).id;
  const ids = services.map(({ id }) => id);
  if (named.length > 1) {
    throw new TokenmillError(
      'fleet_object_unknown',
      `${given} may be any of ${named.map(({ id }) => id).join(', ')}.`,
      {
        remedy: 'Give the namespace as well.',
      },
    );
  }
  const guess = nearestName(given, [...ids, ...ids.map((id) => id.slice(id.indexOf('/') + 1))]);
  throw new TokenmillError('fleet_object_unknown', `There is no service ${JSON.stringify(given.slice(0, 120))}.`, {
    remedy: guess !== null ? `Did you mean ${guess}?` : `Services: ${ids.slice(0, 20).join(', ') || 'none'}.`,
  });
}

/** Reads of the running fleet. */
export class FleetViews {
  private readonly fleet: Fleet;
  private readonly replicas: Replicas;

  constructor(fleet: Fleet, replicas: Replicas) {
    this.fleet = fleet;
    this.replicas = replicas;
  }

  resolve(given: string): string {
    return resolveService(this.fleet.currentSpec(), given);
  }

  view(id: string): ServiceView {
    const view = this.fleet.service(id);
    if (view === null) throw new TokenmillError('fleet_object_unknown', `There is no service ${id}.`);
    return view;
  }

  services(): ServiceRow[] {
    const ids = this.fleet.currentSpec()?.services.map(({ id }) => id) ?? [];
    return ids.map((id) => serviceRow(this.view(id), this.replicas.ofService(id)));
  }

  replicaRows(service: string | null): ReplicaRow[] {
    const records = service === null ? this.replicas.all() : this.replicas.ofService(service);
    return records
      .map((record) => replicaRow(record, this.fleet.inFlightOf(record)))
      .sort((a, b) => (a.id < b.id ? -1 : 1));
  }

  describe(id: string, events: readonly StoredEvent[]): ServiceDescription {
    const view = this.view(id);
    const { spec } = view;
    const decision = this.fleet.timeline.latestDecision(id);
    const object = `${spec.kind} ${spec.id}`;
    return {
      ...serviceRow(view, this.replicas.ofService(id)),
      at: `${spec.at.file}:${spec.at.line}`,
      scaling: spec.scaling.rule.kind,
      decision: decision === null ? null : { at: decision.at, reason: decision.reason },
      signals: this.fleet.signalsOf(spec),
      conditions: view.conditions,
      replicaRows: this.replicaRows(id),
      notices: (this.fleet.currentSpec()?.notices ?? [])
        .filter((notice) => notice.object === object)
        .map(({ field, text }) => ({ field, text })),
      events,
    };
  }
}
