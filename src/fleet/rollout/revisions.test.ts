import { describe, expect, test } from 'vitest';
import { FakeWorld, makeSpec, makeTemplate } from '../control/testdata/fake_world.ts';
import { hashOf } from './revisions.ts';

describe('revisions', () => {
  test('a hash is of the content, not of the order of keys', () => {
    const template = makeTemplate('v1', { env: { A: '1', B: '2' }, args: ['--x', '1'] });
    const turned = Object.fromEntries(Object.entries({ ...template, env: { B: '2', A: '1' } }).reverse());
    expect(hashOf(turned as unknown as typeof template)).toBe(hashOf(template));
    expect(hashOf({ ...template, args: ['1', '--x'] })).not.toBe(hashOf(template));
    expect(hashOf({ ...template, memoryBytes: 0 })).not.toBe(hashOf(template));
    expect(hashOf(template)).toMatch(/^[0-9a-f]{64}$/);
  });

  test('the ring keeps what is pointed to and the newest of the others', () => {
    const world = new FakeWorld();
    const base = makeSpec();
    const rollout = { ...base.rollout, revisionHistoryLimit: 2 };
    const kept: string[][] = [];
    for (const model of ['v1', 'v2', 'v3', 'v4', 'v5', 'v6']) {
      for (let i = 0; i < 40; i++) world.tick({ ...base, rollout, template: makeTemplate(model) }, 1);
      kept.push((world.state?.revisions ?? []).map(({ id }) => id.replace('llama-0000', '')));
    }
    // Stable, previous and two more.
    expect(kept.map((ids) => ids.join(' '))).toEqual(['1', '1 2', '1 2 3', '1 2 3 4', '2 3 4 5', '3 4 5 6']);
  });

  test('a canary may be called like a revision', () => {
    const world = new FakeWorld();
    const canary = { name: 'llama-00001', template: makeTemplate('v2'), percent: 10, minReplicas: null };
    const spec = { ...makeSpec(), canaries: [canary] };
    for (let i = 0; i < 20; i++) world.tick(spec, 1);
    const ids = (world.state?.revisions ?? []).map(({ id }) => id);
    expect(new Set(ids).size).toBe(ids.length);
    expect(ids).toHaveLength(2);
  });
});
