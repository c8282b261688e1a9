import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Rng } from '../../base/rng.ts';
import type { QueueSpec } from '../spec/fleet_spec.ts';
import { type Dropped, type Held, HoldQueue, type Pool } from './hold_queue.ts';
import { checkScenario } from './testdata/scenario.ts';

const LIMITS: QueueSpec = { maxRequests: 1e6, maxBytes: 1e9, ttlMs: 60_000, coldTtlMs: 600_000 };
const READY: Pool = { endpointsSince: 0, saturated: false, holds: true };

const POOLS: Readonly<Record<string, Partial<Pool>>> = {
  ready: {},
  busy: { saturated: true },
  cold: { endpointsSince: null },
  none: { endpointsSince: null, holds: false },
};

class Scenario {
  private queue = new HoldQueue<string>(LIMITS);
  private pool = READY;
  private readonly held = new Map<string, Held<string>>();

  run(command: string, words: readonly string[]): readonly string[] {
    const [first = '', second = ''] = words;
    const given = new Map(
      words.filter((word) => word.includes('=')).map((word) => word.split('=') as [string, string]),
    );
    if (command === 'limits') {
      this.queue = new HoldQueue(
        Object.fromEntries([...given].map(([k, v]) => [k, Number(v)])) as unknown as QueueSpec,
      );
      return [];
    }
    if (command === 'pool') {
      this.pool = { ...READY, endpointsSince: Number(second), ...POOLS[first] };
      return [];
    }
    if (command === 'hold') return this.hold(Number(first), second, given);
    if (command === 'take') return [this.taken(Number(first))];
    if (command === 'cancel') return [String(this.queue.cancel(this.held.get(first) as Held<string>))];
    if (command === 'expire') return this.dropped(this.queue.expire(this.pool, Number(first)));
    if (command === 'shed') return this.dropped(this.queue.shed(this.pool));
    if (command === 'close') return this.dropped(this.queue.close());
    throw new Error(`unknown command ${command}`);
  }

  private hold(now: number, value: string, given: ReadonlyMap<string, string>): readonly string[] {
    const offered = this.queue.offer(
      {
        value,
        key: given.get('key') ?? '',
        priority: Number(given.get('priority') ?? 0),
        tokens: Number(given.get('tokens') ?? 1),
        bytes: Number(given.get('bytes') ?? 1),
      },
      this.pool,
      now,
    );
    if (offered.kind === 'refused') return [`${offered.status} ${offered.reason}`];
    this.held.set(value, offered.held);
    return this.dropped(offered.evicted);
  }

  private taken(count: number): string {
    const values: string[] = [];
    for (let i = 0; i < count; i++) values.push(this.queue.take()?.value ?? '-');
    return values.join(' ');
  }

  private dropped(dropped: readonly Dropped<string>[]): readonly string[] {
    return dropped.map(({ held, status, reason }) => `${held.value}: ${status} ${reason}`);
  }
}

test('hold queue scenario', () => {
  const scenario = new Scenario();
  checkScenario('hold_queue.txt', (command, ...words) => scenario.run(command, words));
});

const ask = (value: number, key: string, other: Partial<{ priority: number; tokens: number; bytes: number }> = {}) => ({
  value,
  key,
  priority: 0,
  tokens: 1,
  bytes: 1,
  ...other,
});

describe('hold queue', () => {
  test('bounds hold, nothing is lost or given twice, keys and bands keep their order', () => {
    const command = fc.record({
      kind: fc.constantFrom('offer', 'offer', 'offer', 'take', 'cancel', 'expire', 'shed'),
      key: fc.constantFrom('a', 'b', '__proto__'),
      priority: fc.integer({ min: -2, max: 2 }),
      tokens: fc.integer({ min: 0, max: 9 }),
      bytes: fc.integer({ min: 0, max: 9 }),
      nth: fc.nat(),
    });
    fc.assert(
      fc.property(fc.array(command, { maxLength: 120 }), (commands) => {
        const limits = { maxRequests: 8, maxBytes: 30, ttlMs: 20, coldTtlMs: 50 };
        const queue = new HoldQueue<number>(limits);
        let inside: { readonly held: Held<number>; readonly bytes: number }[] = [];
        const leave = (gone: readonly Held<number>[]) => {
          for (const held of gone) {
            expect(inside.some((entry) => entry.held === held)).toBe(true);
            inside = inside.filter((entry) => entry.held !== held);
            expect(queue.cancel(held)).toBe(false);
          }
        };
        for (const [now, { kind, nth, ...asked }] of commands.entries()) {
          const pool: Pool = {
            endpointsSince: now % 40 < 20 ? now - (now % 40) : null,
            saturated: nth % 2 === 0,
            holds: true,
          };
          if (kind === 'offer') {
            const offered = queue.offer({ ...asked, value: now }, pool, now);
            if (offered.kind === 'held') {
              inside.push({ held: offered.held, bytes: asked.bytes });
              for (const { held } of offered.evicted) expect(held.priority).toBeLessThan(asked.priority);
              leave(offered.evicted.map(({ held }) => held));
            } else {
              const refusedForPriority = asked.priority < 0 && pool.saturated && pool.endpointsSince !== null;
              const above = inside.filter(({ held }) => held.priority >= asked.priority);
              const bytes = above.reduce((sum, entry) => sum + entry.bytes, 0);
              expect(refusedForPriority || above.length >= 8 || bytes + asked.bytes > 30).toBe(true);
            }
          } else if (kind === 'take') {
            const held = queue.take();
            expect(held === null).toBe(inside.length === 0);
            if (held === null) continue;
            const others = inside.map((entry) => entry.held);
            expect(held.priority).toBe(Math.max(...others.map(({ priority }) => priority)));
            const mine = others.filter(({ key, priority }) => key === held.key && priority === held.priority);
            expect(mine[0]).toBe(held);
            leave([held]);
          } else if (kind === 'cancel') {
            const entry = inside[nth % Math.max(1, inside.length)];
            if (entry === undefined) continue;
            expect(queue.cancel(entry.held)).toBe(true);
            leave([entry.held]);
          } else if (kind === 'expire') {
            const due = queue.nextExpiryAt(pool);
            const dropped = queue.expire(pool, now);
            expect(dropped.length > 0).toBe(due !== null && due <= now);
            for (const { status } of dropped) expect(status).toBe(pool.endpointsSince === null ? 503 : 429);
            leave(dropped.map(({ held }) => held));
            for (const { held } of inside) expect(now - held.heldAt).toBeLessThan(70);
          } else {
            const dropped = queue.shed(pool);
            leave(dropped.map(({ held }) => held));
            if (pool.saturated && pool.endpointsSince !== null) {
              for (const { held } of inside) expect(held.priority).toBeGreaterThanOrEqual(0);
            } else expect(dropped).toEqual([]);
          }
          expect(queue.size).toBe(inside.length);
          expect(queue.size).toBeLessThanOrEqual(8);
          expect(queue.bytes).toBe(inside.reduce((sum, entry) => sum + entry.bytes, 0));
          expect(queue.bytes).toBeLessThanOrEqual(30);
        }
      }),
      { seed: 17, numRuns: 300 },
    );
  });

  test('keys that always wait get the same number of tokens, within the largest request', () => {
    const rng = new Rng(4);
    const queue = new HoldQueue<number>(LIMITS);
    const sizes = new Map([
      ['short', 10],
      ['mixed', 500],
      ['long', 4000],
    ]);
    const served = new Map<string, number>();
    const tokens: number[] = [];
    const add = (key: string) => {
      const size = rng.int(1, sizes.get(key) as number);
      queue.offer(ask(tokens.push(size) - 1, key, { tokens: size }), READY, 0);
    };
    for (const key of sizes.keys()) for (let i = 0; i < 3; i++) add(key);
    for (let i = 0; i < 20_000; i++) {
      const held = queue.take() as Held<number>;
      served.set(held.key, (served.get(held.key) ?? 0) + (tokens[held.value] as number));
      add(held.key);
      if (served.size < 3) continue;
      expect(Math.max(...served.values()) - Math.min(...served.values())).toBeLessThanOrEqual(2 * 4000);
    }
  });

  test('a key that asks one long request after another has no more than its share', () => {
    const queue = new HoldQueue<number>(LIMITS);
    for (let i = 0; i < 2000; i++) queue.offer(ask(10, 'small', { tokens: 10 }), READY, 0);
    const served = { small: 0, large: 0 };
    for (let i = 0; i < 1000; i++) {
      if (i === 0) queue.offer(ask(1000, 'large', { tokens: 1000 }), READY, 0);
      const held = queue.take() as Held<number>;
      served[held.key as keyof typeof served] += held.value;
      if (held.key === 'large') queue.offer(ask(1000, 'large', { tokens: 1000 }), READY, 0);
    }
    expect(served.large).toBeGreaterThan(0);
    expect(Math.abs(served.small - served.large)).toBeLessThanOrEqual(1000);
  });

  test('holds a hundred thousand of a hundred thousand keys and bands', () => {
    const queue = new HoldQueue<number>(LIMITS);
    const rng = new Rng(8);
    const helds: Held<number>[] = [];
    for (let i = 0; i < 100_000; i++) {
      const offered = queue.offer(
        ask(i, `key${i}`, { priority: rng.int(0, 1000), tokens: rng.int(1, 9999) }),
        READY,
        i,
      );
      if (offered.kind === 'held') helds.push(offered.held);
    }
    let cancelled = 0;
    for (let i = 0; i < 100_000; i += 2) cancelled += Number(queue.cancel(helds[i] as Held<number>));
    expect(cancelled).toBe(50_000);
    const priorities: number[] = [];
    for (let held = queue.take(); held !== null; held = queue.take()) priorities.push(held.priority);
    expect(priorities.length).toBe(50_000);
    expect(priorities).toEqual([...priorities].sort((a, b) => b - a));
    expect([queue.size, queue.bytes]).toEqual([0, 0]);
  });
});
