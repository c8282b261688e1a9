/** HTTPRoute (gateway.networking.k8s.io/v1): its form, and as the gateway's table has it. */
import type { NamedMatch, RouteMatch, RouteRule, RouteSpec } from '../fleet_spec.ts';
import type { Kind, Objects } from '../objects.ts';
import type { ObjectContext, Path } from '../problems.ts';
import {
  duration,
  ignored,
  int,
  list,
  object,
  oneOf,
  optional,
  type ReadBy,
  refused,
  refusedAll,
  required,
  str,
} from '../schema.ts';
import { OBJECT } from './metadata.ts';

const BACKEND_REF = {
  name: required(str()),
  namespace: optional(str()),
  group: optional(str({ allowEmpty: true })),
  kind: optional(str()),
  port: optional(int({ min: 1, max: 65_535 })),
};

const HEADER = object({ name: required(str()), value: required(str({ allowEmpty: true })) });

const NAMED_MATCH = object({
  name: required(str({ maxLength: 256 })),
  value: required(str({ maxLength: 4096, allowEmpty: true })),
  type: optional(oneOf('Exact', 'RegularExpression')),
});

const FILTER = object({
  type: required(
    oneOf(
      'RequestHeaderModifier',
      'URLRewrite',
      'RequestMirror',
      'ResponseHeaderModifier',
      'RequestRedirect',
      'ExtensionRef',
      'CORS',
    ),
  ),
  requestHeaderModifier: optional(
    object({
      set: optional(list(HEADER)),
      remove: optional(list(str())),
      add: refused('headers are set, not added to; use set'),
    }),
  ),
  urlRewrite: optional(
    object({
      hostname: ignored('replicas do not look at the host'),
      path: optional(
        object({
          type: required(oneOf('ReplaceFullPath', 'ReplacePrefixMatch')),
          replacePrefixMatch: optional(str({ allowEmpty: true })),
          replaceFullPath: refused('use ReplacePrefixMatch'),
        }),
      ),
    }),
  ),
  requestMirror: optional(
    object({
      backendRef: required(object(BACKEND_REF)),
      percent: optional(int({ min: 0, max: 100 })),
      fraction: refused('all requests are mirrored; traffic.shadow of a model takes a share'),
    }),
  ),
  ...refusedAll(
    ['responseHeaderModifier', 'requestRedirect', 'extensionRef', 'cors'],
    'the gateway has no such filter',
  ),
});

export const ROUTE_SPEC = object({
  parentRefs: optional(
    list(
      object({
        name: required(str()),
        namespace: optional(str()),
        group: optional(str({ allowEmpty: true })),
        kind: optional(str()),
        port: optional(int({ min: 1, max: 65_535 })),
        sectionName: optional(str()),
      }),
    ),
  ),
  hostnames: optional(
    list(str({ pattern: /^(\*\.)?[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/, form: 'a host name' }), { max: 16 }),
  ),
  rules: optional(
    list(
      object({
        name: optional(str()),
        matches: optional(
          list(
            object({
              path: optional(
                object({
                  type: optional(oneOf('Exact', 'PathPrefix', 'RegularExpression')),
                  value: optional(str({ maxLength: 1024 })),
                }),
              ),
              method: optional(oneOf('GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'CONNECT', 'OPTIONS', 'TRACE', 'PATCH')),
              headers: optional(list(NAMED_MATCH, { max: 16 })),
              queryParams: optional(list(NAMED_MATCH, { max: 16 })),
            }),
            { max: 64 },
          ),
        ),
        filters: optional(list(FILTER, { max: 16 })),
        backendRefs: optional(
          list(
            object({
              ...BACKEND_REF,
              weight: optional(int({ min: 0, max: 1_000_000 })),
              filters: refused('filters stand at the rule'),
            }),
            { max: 16 },
          ),
        ),
        timeouts: optional(
          object({
            request: optional(duration()),
            backendRequest: ignored('silence within a stream is bounded by the service'),
          }),
        ),
      }),
      { max: 16 },
    ),
  ),
});

export type RouteValue = ReadBy<typeof ROUTE_SPEC>;
type RuleValue = NonNullable<RouteValue['rules']>[number];
type MatchValue = NonNullable<RuleValue['matches']>[number];
type BackendValue = Omit<NonNullable<RuleValue['backendRefs']>[number], 'weight' | 'filters'>;

const table = object({ ...OBJECT, spec: required(ROUTE_SPEC) });

export const HTTP_ROUTE: Kind<ReadBy<typeof table>> = {
  group: 'gateway.networking.k8s.io',
  versions: ['v1', 'v1beta1'],
  kind: 'HTTPRoute',
  table,
};

/** Where names lead, filled from the services and the pools. */
export interface Destinations {
  /** `namespace/name` of a Service of Kubernetes -> id. */
  readonly services: ReadonlyMap<string, string>;
  /** `namespace/name` of a pool -> ids. */
  readonly pools: ReadonlyMap<string, readonly string[]>;
}

export interface RouteScope {
  readonly cx: ObjectContext;
  readonly namespace: string;
  readonly objects: Objects;
  readonly destinations: Destinations;
}

export function readRoutes(objects: Objects, destinations: Destinations): RouteSpec[] {
  return objects.read(HTTP_ROUTE).map(({ cx, namespace, name, value }) => {
    const scope: RouteScope = { cx, namespace, objects, destinations };
    return routeSpec(`${namespace}/${name}`, value.spec, ['spec'], scope);
  });
}

/** `path` is that of the fields within the object. */
export function routeSpec(id: string, value: RouteValue, path: Path, scope: RouteScope): RouteSpec {
  for (const [i, { name, namespace, kind }] of (value.parentRefs ?? []).entries()) {
    const at = namespace ?? scope.namespace;
    if ((kind ?? 'Gateway') === 'Gateway' && scope.objects.has('Gateway', at, name)) continue;
    scope.cx.notice(
      [...path, 'parentRefs', i],
      `${kind ?? 'Gateway'} ${at}/${name} is not in the files; the one gateway here takes the route`,
    );
  }
  const rules = (value.rules ?? [NO_RULE]).map((rule, i) => ruleOf(rule, [...path, 'rules', i], scope));
  return { id, at: scope.cx.at, hostnames: value.hostnames ?? [], rules };
}

const NO_RULE: RuleValue = { name: null, matches: null, filters: null, backendRefs: null, timeouts: null };

function ruleOf(rule: RuleValue, path: Path, scope: RouteScope): RouteRule {
  const matches = rule.matches?.length
    ? rule.matches.map((match, i) => matchOf(match, [...path, 'matches', i], scope.cx))
    : [matchOf({ path: null, method: null, headers: null, queryParams: null }, path, scope.cx)];
  const filters = filtersOf(rule, path, scope);
  if (filters.pathPrefixTo !== null && matches.some((match) => match.path.type !== 'PathPrefix')) {
    scope.cx.error([...path, 'filters'], 'ReplacePrefixMatch needs matches of type PathPrefix only');
  }
  if (!rule.backendRefs?.length) scope.cx.notice(path, 'has no backendRefs: its requests are answered with 500');
  return {
    matches,
    backends: backendsOf(rule, path, scope),
    ...filters,
    requestTimeoutMs: rule.timeouts?.request ?? 0,
  };
}

function matchOf(match: MatchValue, path: Path, cx: ObjectContext): RouteMatch {
  const type = match.path?.type ?? 'PathPrefix';
  const value = match.path?.value ?? '/';
  if (type !== 'RegularExpression' && !value.startsWith('/')) cx.error([...path, 'path', 'value'], 'must begin with /');
  if (type === 'RegularExpression') checkPattern(value, [...path, 'path', 'value'], cx);
  const named = (field: 'headers' | 'queryParams'): NamedMatch[] =>
    (match[field] ?? []).map((item, i) => {
      if (item.type === 'RegularExpression') checkPattern(item.value, [...path, field, i, 'value'], cx);
      return { name: item.name, type: item.type ?? 'Exact', value: item.value };
    });
  return { path: { type, value }, method: match.method, headers: named('headers'), query: named('queryParams') };
}

function checkPattern(pattern: string, path: Path, cx: ObjectContext): void {
  try {
    new RegExp(pattern, 'u');
  } catch (error) {
    cx.error(path, `is not a regular expression: ${(error as Error).message}`);
  }
}

type Filters = Pick<RouteRule, 'setHeaders' | 'removeHeaders' | 'pathPrefixTo' | 'mirrorTo'>;

/** Which block belongs to which type of filter. */
const BLOCKS = {
  RequestHeaderModifier: 'requestHeaderModifier',
  URLRewrite: 'urlRewrite',
  RequestMirror: 'requestMirror',
} as const;

function filtersOf(rule: RuleValue, path: Path, scope: RouteScope): Filters {
  const setHeaders: Record<string, string> = Object.create(null);
  const removeHeaders: string[] = [];
  let pathPrefixTo: string | null = null;
  let mirrorTo: string | null = null;
  for (const [i, filter] of (rule.filters ?? []).entries()) {
    const at = [...path, 'filters', i];
    const block = BLOCKS[filter.type as keyof typeof BLOCKS];
    if (block === undefined)
      scope.cx.error([...at, 'type'], `the gateway has no ${filter.type}; it has ${Object.keys(BLOCKS).join(', ')}`);
    else if (filter[block] === null) scope.cx.error(at, `${block} is missing: type ${filter.type} needs it`);
    for (const { name, value } of filter.requestHeaderModifier?.set ?? []) setHeaders[name.toLowerCase()] = value;
    removeHeaders.push(...(filter.requestHeaderModifier?.remove ?? []).map((name) => name.toLowerCase()));
    if (filter.urlRewrite?.path?.type === 'ReplacePrefixMatch')
      pathPrefixTo = filter.urlRewrite.path.replacePrefixMatch ?? '/';
    if (filter.requestMirror !== null) mirrorTo = mirrorOf(filter.requestMirror, [...at, 'requestMirror'], scope);
  }
  return { setHeaders, removeHeaders, pathPrefixTo, mirrorTo };
}

type MirrorValue = NonNullable<ReadBy<typeof FILTER>['requestMirror']>;

function mirrorOf({ backendRef, percent }: MirrorValue, path: Path, scope: RouteScope): string | null {
  if (percent !== null && percent < 100) {
    scope.cx.error([...path, 'percent'], 'all requests are mirrored; traffic.shadow of a model takes a share');
  }
  const [first] = leadsTo(backendRef, [...path, 'backendRef'], scope) ?? [];
  return first ?? null;
}

/**
 * A pool that several services share gives each of them an equal part of its weight; weights are made whole by the least common
 * multiple.
 */
function backendsOf(rule: RuleValue, path: Path, scope: RouteScope): RouteRule['backends'] {
  const found = (rule.backendRefs ?? []).map((ref, i) => ({
    services: leadsTo(ref, [...path, 'backendRefs', i], scope),
    weight: ref.weight ?? 1,
  }));
  const common = found.reduce((all, { services }) => leastCommonMultiple(all, services?.length || 1), 1);
  // Fractions do as well where whole numbers would grow beyond all bounds.
  const multiple = common > MAX_MULTIPLE ? 1 : common;
  return found.flatMap(({ services, weight }): RouteRule['backends'] => {
    const whole = weight * multiple;
    if (services === null) return [{ service: null, weight: whole }];
    return services.map((service) => ({ service, weight: whole / services.length }));
  });
}

const MAX_MULTIPLE = 1_000_000;

function leastCommonMultiple(a: number, b: number): number {
  let [x, y] = [a, b];
  while (y !== 0) [x, y] = [y, x % y];
  return (a / x) * b;
}

/** Ids of services; null = nowhere, which a cluster answers with 500 and so do we. */
function leadsTo(
  ref: BackendValue,
  path: Path,
  { cx, namespace, destinations, objects }: RouteScope,
): readonly string[] | null {
  const kind = ref.kind ?? 'Service';
  const at = `${ref.namespace ?? namespace}/${ref.name}`;
  const nowhere = (why: string) => {
    cx.notice(path, `${why}; its share of the requests is answered with 500`);
    return null;
  };
  if (ref.namespace !== null && ref.namespace !== namespace) {
    return nowhere(`${kind} ${at} is in another namespace, which no ReferenceGrant allows`);
  }
  if (kind === 'Service' && (ref.group ?? '') === '') {
    const service = destinations.services.get(at);
    if (service !== undefined) return [service];
    const names = [...destinations.services.keys()].filter((name) => name.startsWith(`${namespace}/`));
    return nowhere(`there is no Service ${at}; there are ${names.slice(0, 8).join(', ') || 'none'}`);
  }
  if (kind === 'InferencePool') {
    const services = destinations.pools.get(at);
    if (services?.length) return services;
    const known = services !== undefined || objects.has('InferencePool', ref.namespace ?? namespace, ref.name);
    return nowhere(known ? `InferencePool ${at} selects no service` : `there is no InferencePool ${at}`);
  }
  cx.error(
    [...path, 'kind'],
    `${ref.group ? `${ref.group}/` : ''}${kind} is no backend; Service and InferencePool are`,
  );
  return null;
}
