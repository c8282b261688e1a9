/**
 * HTTPRoute: which rule of which route a request meets, what its path becomes, and which backend gets it (Gateway API v1,
 * HTTPRouteMatch precedence).
 */
import { TokenmillError } from '../../base/errors.ts';
import type { NamedMatch, RouteMatch, RouteRule, RouteSpec } from '../spec/fleet_spec.ts';
import { SafeRegex } from './safe_regex.ts';
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

interface Compiled {
  readonly route: RouteSpec;
  readonly rule: RouteRule;
  readonly match: RouteMatch;
  /** One of the route's, lower case; '' = any. */
  readonly hostname: string;
  readonly path: (path: string) => boolean;
  readonly named: readonly ((request: RoutedRequest) => boolean)[];
}

const EVERYTHING: RouteMatch = {
  path: { type: 'PathPrefix', value: '/' },
  method: null,
  headers: [],
  query: [],
};

const MAX_MATCHES = 100_000;

const PATH_RANK = { Exact: 0, RegularExpression: 1, PathPrefix: 2 } as const;

export class RouteMatcher {
  /** First that holds wins. */
  private readonly compiled: readonly Compiled[];

  /** @throws TokenmillError invalid_manifest: a regular expression that is refused, or a rewrite without a prefix. */
  constructor(routes: readonly RouteSpec[]) {
    const compiled = routes.flatMap(compileRoute);
    if (compiled.length > MAX_MATCHES) {
      throw new TokenmillError(
        'invalid_manifest',
        `The routes have ${compiled.length} matches, at most ${MAX_MATCHES}.`,
        {
          remedy: 'Remove routes that no request needs.',
        },
      );
    }
    this.compiled = compiled.sort(precedence);
  }

  match(request: RoutedRequest): Routed | null {
    const host = hostOf(request.host);
    for (const candidate of this.compiled) {
      const { route, rule, match, hostname } = candidate;
      if (!hostMatches(hostname, host) || !candidate.path(request.path)) continue;
      if (match.method !== null && match.method !== request.method) continue;
      if (!candidate.named.every((holds) => holds(request))) continue;
      return { route, rule, match, path: rewritten(request.path, match, rule.pathPrefixTo) };
    }
    return null;
  }
}

/** Id of the service, or null = answer 500: its share leads nowhere, or all weights are 0. `draw` is uniform in [0, 1). */
export function chooseBackend(rule: RouteRule, draw: number): string | null {
  let total = 0;
  for (const { weight } of rule.backends) total += weight;
  let rest = draw * total;
  for (const { service, weight } of rule.backends) {
    if (rest < weight) return service;
    rest -= weight;
  }
  return null;
}

function compileRoute(route: RouteSpec): Compiled[] {
  const hostnames = route.hostnames.length === 0 ? [''] : route.hostnames.map((name) => name.toLowerCase());
  return route.rules.flatMap((rule) => {
    const matches = rule.matches.length === 0 ? [EVERYTHING] : rule.matches;
    return matches.flatMap((match) => {
      if (rule.pathPrefixTo !== null && match.path.type !== 'PathPrefix') {
        throw new TokenmillError('invalid_manifest', `Route ${route.id} replaces a prefix where its match has none.`, {
          param: 'ReplacePrefixMatch',
          remedy: 'Match that rule by PathPrefix only.',
        });
      }
      const path = pathTest(match.path);
      const named = [
        ...match.headers.map((wanted) => namedTest(wanted, wanted.name.toLowerCase(), ({ header }) => header)),
        ...match.query.map((wanted) => namedTest(wanted, wanted.name, ({ query }) => query)),
      ];
      return hostnames.map((hostname) => ({ route, rule, match, hostname, path, named }));
    });
  });
}

function pathTest({ type, value }: RouteMatch['path']): Compiled['path'] {
  if (type === 'Exact') return (path) => path === value;
  if (type === 'RegularExpression') {
    const regex = new SafeRegex(value);
    return (path) => regex.test(path);
  }
  const prefix = withoutSlash(value);
  return (path) => path.startsWith(prefix) && (path.length === prefix.length || path[prefix.length] === '/');
}

function namedTest(
  wanted: NamedMatch,
  name: string,
  from: (request: RoutedRequest) => (name: string) => string | null | undefined,
): (request: RoutedRequest) => boolean {
  const regex = wanted.type === 'RegularExpression' ? new SafeRegex(wanted.value) : null;
  return (request) => {
    const value = from(request)(name);
    if (value === undefined || value === null) return false;
    return regex === null ? value === wanted.value : regex.test(value);
  };
}

/**
 * Most particular first. A fleet file gives objects no age, so routes that are equal otherwise go by name, as those of one
 * `kubectl apply` do; within a route the first rule wins (sorting is stable).
 */
function precedence(a: Compiled, b: Compiled): number {
  return (
    hostRank(a.hostname) - hostRank(b.hostname) ||
    b.hostname.length - a.hostname.length ||
    PATH_RANK[a.match.path.type] - PATH_RANK[b.match.path.type] ||
    pathLength(b.match) - pathLength(a.match) ||
    Number(a.match.method === null) - Number(b.match.method === null) ||
    b.match.headers.length - a.match.headers.length ||
    b.match.query.length - a.match.query.length ||
    (a.route.id < b.route.id ? -1 : Number(a.route.id > b.route.id))
  );
}

function hostRank(hostname: string): number {
  if (hostname === '') return 2;
  return hostname.startsWith('*.') ? 1 : 0;
}

function pathLength({ path }: RouteMatch): number {
  return path.type === 'PathPrefix' ? withoutSlash(path.value).length : path.value.length;
}

function withoutSlash(path: string): string {
  return path.endsWith('/') ? path.slice(0, -1) : path;
}

/** Without port and final dot, lower case. */
function hostOf(host: string): string {
  const name = host.startsWith('[') ? host.slice(0, host.indexOf(']') + 1) : (host.split(':', 1)[0] as string);
  return (name.endsWith('.') ? name.slice(0, -1) : name).toLowerCase();
}

function hostMatches(hostname: string, host: string): boolean {
  if (hostname === '' || hostname === host) return true;
  return hostname.startsWith('*.') && host.length > hostname.length - 1 && host.endsWith(hostname.slice(1));
}

/** ReplacePrefixMatch: whole elements, one slash between. */
function rewritten(path: string, match: RouteMatch, prefixTo: string | null): string {
  if (prefixTo === null) return path;
  const rest = path.slice(withoutSlash(match.path.value).length);
  return withoutSlash(prefixTo) + rest || '/';
}
