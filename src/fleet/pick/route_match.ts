import type { RouteMatch, RouteRule, RouteSpec } from '../spec/fleet_spec.ts';
import type { HeaderOf } from './split.ts';

export interface RoutedRequest {
  /** Host header, with or without a port. */
  readonly host: string;
  readonly method: string;
  /** Without the query. */
  readonly path: string;
  readonly header: HeaderOf;
  /** First value of a parameter. */
  readonly query: (name: string) => string | null | undefined;
}

export interface Routed {
  readonly route: RouteSpec;
  readonly rule: RouteRule;
  readonly match: RouteMatch;
  /** After the rewrite. */
  readonly path: string;
}

export declare class RouteMatcher {
  /** @throws TokenmillError invalid_manifest */
  constructor(routes: readonly RouteSpec[]);
  match(request: RoutedRequest): Routed | null;
}

/** Id of the service, or null = answer 500. `draw` is uniform in [0, 1). */
export declare function chooseBackend(rule: RouteRule, draw: number): string | null;
