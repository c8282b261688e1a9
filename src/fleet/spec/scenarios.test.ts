/** testdata/*.txt: fleet files with what is said of them, or what they become. REWRITE=1 records the answers anew. */
import { readFileSync, writeFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { stringify } from 'yaml';
import { TokenmillError } from '../../base/errors.ts';
import { KNATIVE_ROLLOUT, QUEUE, ROLLOUT, TEMPLATE, TRAFFIC } from './defaults.ts';
import type { FleetSpec } from './fleet_spec.ts';
import { DEFAULT_GATEWAY } from './kinds/inference_pool.ts';
import { readFleet } from './read_fleet.ts';

interface Scenario {
  readonly title: string;
  readonly text: string;
  readonly expected: string;
}

const pathOf = (name: string) => new URL(`testdata/${name}.txt`, import.meta.url);

function scenarios(name: string): { readonly head: string; readonly all: Scenario[] } {
  const [head = '', ...parts] = readFileSync(pathOf(name), 'utf8').split(/^@@ /m);
  const all = parts.map((part) => {
    const [, title = '', text = '', expected = ''] = /^(.*)\n([\s\S]*?)^=>\n([\s\S]*)$/m.exec(part) ?? [];
    return { title, text, expected: expected.trimEnd() };
  });
  return { head, all };
}

function check(name: string, answer: (text: string) => string): void {
  const { head, all } = scenarios(name);
  const written = all.map(({ title, text }) => `@@ ${title}\n${text}=>\n${answer(text).trimEnd()}\n`);
  if (process.env['REWRITE']) writeFileSync(pathOf(name), `${head}${written.join('\n')}`);
  describe(name, () => {
    it.each(all)('$title', ({ text, expected }) => {
      expect(answer(text).trimEnd()).toBe(expected);
    });
  });
}

const same = (a: unknown, b: unknown) => JSON.stringify(a) === JSON.stringify(b);

check('refused', (text) => {
  try {
    readFleet([{ file: 'f.yaml', text }]);
  } catch (error) {
    expect(error).toBeInstanceOf(TokenmillError);
    expect((error as TokenmillError).code).toBe('invalid_manifest');
    return (error as TokenmillError).message;
  }
  return 'ACCEPTED';
});

check('accepted', (text) => shortened(readFleet([{ file: 'f.yaml', text }])));

/** Without what is as the defaults have it. */
function shortened({ services, routes, graphs, gateway, notices }: FleetSpec): string {
  const parts = {
    services: services.map((service) => ({
      ...without(service, { canaries: [], canaryTrafficPercent: null, stopped: false, traffic: TRAFFIC }),
      at: undefined,
      template: without(service.template, TEMPLATE),
      ...(service.canaries.length > 0 && {
        canaries: service.canaries.map((canary) => ({
          ...canary,
          template: without(canary.template, service.template),
        })),
      }),
      rollout: same(service.rollout, KNATIVE_ROLLOUT) ? 'of Knative' : without(service.rollout, ROLLOUT),
      ...(!same(service.traffic, TRAFFIC) && {
        traffic: { ...without(service.traffic, TRAFFIC), queue: without(service.traffic.queue, QUEUE) },
      }),
    })),
    routes: routes.map((route) => ({ ...route, at: undefined })),
    graphs: graphs.map((graph) => ({ ...graph, at: undefined })),
    gateway: without(gateway, DEFAULT_GATEWAY),
    notices: notices.map(({ at, object, field, text }) => `${at.line}:${at.column} ${object} ${field}: ${text}`),
  };
  return stringify(pruned(parts), { lineWidth: 140, collectionStyle: 'any', aliasDuplicateObjects: false });
}

function without(value: object, defaults: object): Record<string, unknown> {
  const base = defaults as Record<string, unknown>;
  return Object.fromEntries(Object.entries(value).filter(([key, item]) => !same(item, base[key])));
}

function pruned(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(pruned);
  if (typeof value !== 'object' || value === null) return value;
  const entries = Object.entries(value).map(([key, item]) => [key, pruned(item)] as const);
  return Object.fromEntries(entries.filter(([, item]) => item !== undefined && !same(item, []) && !same(item, {})));
}
