import { expect, it } from 'vitest';
import { indexTable } from './table_index.ts';
import { parseTable } from './table_schema.ts';
import { serviceOf, tableOf } from './testdata/harness.ts';

const whole = tableOf({ services: [serviceOf('one', ['http://127.0.0.1:1'])] });
const index = (table: typeof whole) => indexTable(table, {}, new Map());

it('takes what the control loop writes, unchanged', () => {
  expect(parseTable(JSON.stringify(whole))).toEqual(whole);
});

it.each([
  ['', /no valid JSON|not valid JSON/],
  ['{}', /wrong at version/],
  [JSON.stringify({ ...whole, services: [{ ...whole.services[0], models: [] }] }), /services\.0\.models/],
  [JSON.stringify({ ...whole, services: [serviceOf('one', ['ftp://x:1'])] }), /endpoints\.0\.url: is no http/],
  [JSON.stringify({ ...whole, gateway: { ...whole.gateway, port: 70_000 } }), /gateway\.port/],
])('refuses %.60s', (text, message) => {
  expect(() => parseTable(text)).toThrow(message);
});

it('refuses a path and a revision that would do the same', () => {
  const service = serviceOf('one', []);
  const revisions = service.revisions.map((revision) => ({ ...revision, id: 'a\nb' }));
  expect(() => parseTable(JSON.stringify({ ...whole, services: [{ ...service, revisions }] }))).toThrow(
    /revisions\.0\.id/,
  );
  const rule = {
    matches: [],
    backends: [],
    setHeaders: {},
    removeHeaders: [],
    pathPrefixTo: '/a b',
    mirrorTo: null,
    requestTimeoutMs: 0,
  };
  const route = { id: 'r', at: { file: 'f', line: 1, column: 1 }, hostnames: [], rules: [rule] };
  expect(() => parseTable(JSON.stringify({ ...whole, routes: [route] }))).toThrow(/pathPrefixTo/);
});

it('refuses a header that would break the request apart', () => {
  const rule = {
    matches: [],
    backends: [],
    setHeaders: { 'x-a': 'b\r\nx: y' },
    removeHeaders: [],
    pathPrefixTo: null,
    mirrorTo: null,
    requestTimeoutMs: 0,
  };
  const route = { id: 'r', at: { file: 'f', line: 1, column: 1 }, hostnames: [], rules: [rule] };
  expect(() => parseTable(JSON.stringify({ ...whole, routes: [route] }))).toThrow(/setHeaders/);
});

it('refuses a name of two services and a condition it cannot follow', () => {
  const twice = tableOf({ services: [serviceOf('one', []), { ...serviceOf('two', []), models: ['two', 'one'] }] });
  expect(() => index(twice)).toThrow(/is of two services/);
  const steps = [
    {
      name: '',
      target: { service: 'default/one' },
      data: '$request' as const,
      weight: null,
      condition: '@reverse',
      dependency: 'Soft' as const,
    },
  ];
  const graph = {
    id: 'g',
    at: { file: 'f', line: 1, column: 1 },
    nodes: { root: { router: 'Switch' as const, steps } },
  };
  expect(() => index(tableOf({ services: [serviceOf('one', [])], graphs: [graph] }))).toThrow(/@reverse/);
});
