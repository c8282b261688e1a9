import { describe, expect, test } from 'vitest';
import type { RouteMatch, RouteRule, RouteSpec } from '../spec/fleet_spec.ts';
import { chooseBackend, type RoutedRequest, RouteMatcher } from './route_match.ts';

const at = { file: 'fleet.yaml', line: 1, column: 1 };

const match = (type: RouteMatch['path']['type'], value: string, other: Partial<RouteMatch> = {}): RouteMatch => ({
  path: { type, value },
  method: null,
  headers: [],
  query: [],
  ...other,
});

const rule = (matches: readonly RouteMatch[], other: Partial<RouteRule> = {}): RouteRule => ({
  matches,
  backends: [{ service: 'default/llama', weight: 1 }],
  setHeaders: {},
  removeHeaders: [],
  pathPrefixTo: null,
  mirrorTo: null,
  requestTimeoutMs: 0,
  ...other,
});

const route = (id: string, rules: readonly RouteRule[], hostnames: readonly string[] = []): RouteSpec => ({
  id,
  at,
  hostnames,
  rules,
});

const get = (path: string, other: Partial<RoutedRequest> = {}): RoutedRequest => ({
  host: 'llm.example.com:8080',
  method: 'GET',
  path,
  header: () => undefined,
  query: () => null,
  ...other,
});

const exact = (name: string, value: string) => ({ name, type: 'Exact' as const, value });

/** Id of the route that a request meets. */
const met = (routes: readonly RouteSpec[], request: RoutedRequest) =>
  new RouteMatcher(routes).match(request)?.route.id ?? null;

describe('precedence', () => {
  const header = (name: string) => ({ 'x-a': '1', 'x-b': '2' })[name];
  const query = (name: string) => ({ p: '1', q: '2' })[name];
  /** The more particular one first. */
  test.each<[string, RouteMatch, RouteMatch]>([
    [
      'exact before regular expression',
      match('Exact', '/v1/models'),
      match('RegularExpression', '/v1/models|/very/long'),
    ],
    ['regular expression before prefix', match('RegularExpression', '/v1/.*'), match('PathPrefix', '/v1/models')],
    ['longest prefix', match('PathPrefix', '/v1/models'), match('PathPrefix', '/v1/')],
    ['longer prefix before a method', match('PathPrefix', '/v1/models'), match('PathPrefix', '/v1', { method: 'GET' })],
    [
      'method before headers',
      match('PathPrefix', '/v1', { method: 'GET' }),
      match('PathPrefix', '/v1', { headers: [exact('x-a', '1')] }),
    ],
    [
      'most headers',
      match('PathPrefix', '/v1', { headers: [exact('X-A', '1'), exact('X-B', '2')] }),
      match('PathPrefix', '/v1', { headers: [exact('x-a', '1')] }),
    ],
    [
      'headers before query parameters',
      match('PathPrefix', '/v1', { headers: [exact('x-a', '1')] }),
      match('PathPrefix', '/v1', { query: [exact('p', '1'), exact('q', '2')] }),
    ],
    ['most query parameters', match('PathPrefix', '/v1', { query: [exact('p', '1')] }), match('PathPrefix', '/v1')],
    ['name', match('PathPrefix', '/v1'), match('PathPrefix', '/v1/')],
  ])('%s', (_, first, second) => {
    const request = get('/v1/models', { header, query });
    for (const order of [0, 1]) {
      const routes = [route('default/a', [rule([first])]), route('default/b', [rule([second])])];
      expect(met(order === 0 ? routes : routes.reverse(), request)).toBe('default/a');
    }
    // Both do match.
    expect(met([route('default/b', [rule([second])])], request)).toBe('default/b');
  });

  test('within a route the first rule', () => {
    const first = rule([match('PathPrefix', '/v1')], { mirrorTo: 'first' });
    const routes = [route('a', [first, rule([match('PathPrefix', '/v1')], { mirrorTo: 'second' })])];
    expect(new RouteMatcher(routes).match(get('/v1'))?.rule).toBe(first);
  });

  test('the more particular host first', () => {
    const of = (id: string, ...hosts: string[]) => route(id, [rule([])], hosts);
    const routes = [of('a'), of('b', '*.com'), of('c', '*.example.com'), of('d', 'LLM.example.com', 'other.org')];
    expect(met(routes, get('/'))).toBe('d');
    expect(met(routes, get('/', { host: 'OTHER.org.' }))).toBe('d');
    expect(met(routes, get('/', { host: 'x.y.example.com' }))).toBe('c');
    expect(met(routes, get('/', { host: 'example.com' }))).toBe('b');
    expect(met(routes, get('/', { host: 'com' }))).toBe('a');
    expect(met(routes, get('/', { host: '[::1]:80' }))).toBe('a');
    expect(met(routes.slice(1), get('/', { host: '' }))).toBeNull();
  });
});

describe('matches', () => {
  test.each<[string, string, boolean]>([
    ['/v1', '/v1', true],
    ['/v1', '/v1/', true],
    ['/v1', '/v1/chat', true],
    ['/v1', '/v1x', false],
    ['/v1', '/V1', false],
    ['/v1/', '/v1', true],
    ['/v1/', '/v1/x', true],
    ['/', '/anything', true],
  ])('prefix %s holds for %s: %s', (prefix, path, expected) => {
    expect(met([route('a', [rule([match('PathPrefix', prefix)])])], get(path)) !== null).toBe(expected);
  });

  test('all of a match must hold, one of the matches is enough', () => {
    const matches = [
      match('Exact', '/a', { method: 'POST', headers: [{ name: 'X-A', type: 'RegularExpression', value: 'b+' }] }),
      match('Exact', '/c'),
    ];
    const routes = [route('a', [rule(matches)])];
    const header = (name: string) => (name === 'x-a' ? 'bb' : undefined);
    expect(met(routes, get('/a', { method: 'POST', header }))).toBe('a');
    expect(met(routes, get('/a', { header }))).toBeNull();
    expect(met(routes, get('/a', { method: 'POST' }))).toBeNull();
    expect(met(routes, get('/a', { method: 'POST', header: () => 'bbc' }))).toBeNull();
    expect(met(routes, get('/c'))).toBe('a');
  });

  test('a regular expression that could take long is no different, one that is refused names itself', () => {
    const slow = [route('a', [rule([match('RegularExpression', '/(a+)+b')])])];
    expect(met(slow, get(`/${'a'.repeat(8000)}`))).toBeNull();
    expect(() => new RouteMatcher([route('a', [rule([match('RegularExpression', '(?!x)')])])])).toThrow(
      'not supported',
    );
  });
});

describe('rewrite', () => {
  // The table of Gateway API's HTTPPathModifier.
  test.each([
    ['/foo/bar', '/foo', '/xyz', '/xyz/bar'],
    ['/foo/bar', '/foo', '/xyz/', '/xyz/bar'],
    ['/foo/bar', '/foo/', '/xyz', '/xyz/bar'],
    ['/foo/bar', '/foo/', '/xyz/', '/xyz/bar'],
    ['/foo', '/foo', '/xyz', '/xyz'],
    ['/foo/', '/foo', '/xyz', '/xyz/'],
    ['/foo/bar', '/foo', '', '/bar'],
    ['/foo/', '/foo', '', '/'],
    ['/foo', '/foo', '', '/'],
    ['/foo/', '/foo', '/', '/'],
    ['/foo', '/foo', '/', '/'],
    ['/foo', '/', '/xyz', '/xyz/foo'],
  ])('%s, prefix %s to %s: %s', (path, prefix, pathPrefixTo, expected) => {
    const matcher = new RouteMatcher([route('a', [rule([match('PathPrefix', prefix)], { pathPrefixTo })])]);
    expect(matcher.match(get(path))?.path).toBe(expected);
  });

  test('needs a prefix', () => {
    const routes = [route('default/a', [rule([match('Exact', '/a')], { pathPrefixTo: '/b' })])];
    expect(() => new RouteMatcher(routes)).toThrow('Route default/a replaces a prefix where its match has none.');
    expect(new RouteMatcher([route('a', [rule([], { pathPrefixTo: '/b' })])]).match(get('/c'))?.path).toBe('/b/c');
  });
});

describe('backends', () => {
  const of = (...backends: RouteRule['backends']) => rule([], { backends });
  test.each<[RouteRule, number, string | null]>([
    [of({ service: 'a', weight: 1 }, { service: 'b', weight: 3 }), 0.2499, 'a'],
    [of({ service: 'a', weight: 1 }, { service: 'b', weight: 3 }), 0.25, 'b'],
    [of({ service: 'a', weight: 1 }, { service: 'b', weight: 3 }), 0.9999, 'b'],
    [of({ service: 'a', weight: 0 }, { service: 'b', weight: 3 }), 0, 'b'],
    [of({ service: null, weight: 1 }, { service: 'b', weight: 1 }), 0.4, null],
    [of({ service: null, weight: 1 }, { service: 'b', weight: 1 }), 0.6, 'b'],
    [of({ service: 'a', weight: 0 }), 0, null],
    [of(), 0, null],
  ])('%j drawn at %d: %s', (given, draw, expected) => {
    expect(chooseBackend(given, draw)).toBe(expected);
  });
});
