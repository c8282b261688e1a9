/** A routing table made ready for requests: names to services, routes compiled, external servers with their keys. */
import { TokenmillError } from '../../base/errors.ts';
import { RouteMatcher } from '../pick/route_match.ts';
import { type ScorerWeights, scorerWeights } from '../pick/scorers.ts';
import type { GraphSpec } from '../spec/fleet_spec.ts';
import type { External } from './client_request.ts';
import { ExternalTarget } from './endpoint.ts';
import { type Condition, compileCondition } from './json_path.ts';
import type { RoutingTable, ServiceRoute } from './routing_table.ts';

export interface TableIndex {
  readonly table: RoutingTable;
  readonly services: ReadonlyMap<string, ServiceRoute>;
  /** Name in requests -> id of the service. */
  readonly models: ReadonlyMap<string, string>;
  /** By id, and by the bare name where that names nothing else. */
  readonly graphs: ReadonlyMap<string, GraphSpec>;
  /** Of the steps of graphs, by their text. */
  readonly conditions: ReadonlyMap<string, Condition>;
  readonly matcher: RouteMatcher | null;
  readonly externals: ReadonlyMap<string, External>;
  readonly weights: ScorerWeights;
  readonly objectives: ReadonlyMap<string, number>;
  /** Variables that externals name and that are not set. */
  readonly missingKeys: readonly string[];
}

function modelsOf(services: readonly ServiceRoute[]): Map<string, string> {
  const models = new Map<string, string>();
  for (const { id, models: names } of services) {
    for (const name of names) {
      const other = models.get(name);
      if (other !== undefined && other !== id) {
        throw new TokenmillError('invalid_manifest', `The name ${name} is of two services, ${other} and ${id}.`);
      }
      models.set(name, id);
    }
  }
  return models;
}

function graphsOf(graphs: readonly GraphSpec[], models: ReadonlyMap<string, string>): Map<string, GraphSpec> {
  const found = new Map<string, GraphSpec>();
  for (const graph of graphs) {
    const bare = graph.id.slice(graph.id.indexOf('/') + 1);
    if (!found.has(bare) && !models.has(bare)) found.set(bare, graph);
  }
  for (const graph of graphs) found.set(graph.id, graph);
  return found;
}

function conditionsOf(graphs: readonly GraphSpec[]): Map<string, Condition> {
  const conditions = new Map<string, Condition>();
  for (const { nodes } of graphs) {
    for (const { steps } of Object.values(nodes)) {
      for (const { condition } of steps) {
        if (condition !== null && !conditions.has(condition)) conditions.set(condition, compileCondition(condition));
      }
    }
  }
  return conditions;
}

/** @throws TokenmillError invalid_manifest */
export function indexTable(
  table: RoutingTable,
  env: Readonly<Record<string, string | undefined>>,
  known: ReadonlyMap<string, External>,
): TableIndex {
  const models = modelsOf(table.services);
  const externals = new Map<string, External>();
  const missingKeys: string[] = [];
  for (const { name, url, model, keyEnv } of table.gateway.externals) {
    const key = keyEnv === null ? null : env[keyEnv];
    if (key === undefined || (key !== null && !/^[\x21-\x7e]+$/.test(key))) {
      missingKeys.push(keyEnv as string);
      continue;
    }
    const before = known.get(name);
    const same = before?.url === url && before.key === key ? before.target : new ExternalTarget(url, key);
    externals.set(name, { name, url, key, model, target: same });
  }
  return {
    table,
    services: new Map(table.services.map((service) => [service.id, service])),
    models,
    graphs: graphsOf(table.graphs, models),
    conditions: conditionsOf(table.graphs),
    matcher: table.routes.length === 0 ? null : new RouteMatcher(table.routes),
    externals,
    weights: scorerWeights(table.gateway.scorers),
    objectives: new Map(Object.entries(table.gateway.objectives)),
    missingKeys,
  };
}
