/** What holds whatever happens: random services, templates, faults, commands and machines, in virtual time. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { TokenmillError } from '../../base/errors.ts';
import { applyCommand } from '../rollout/commands.ts';
import { bounds } from '../rollout/strategy.ts';
import type { ServiceSpec } from '../spec/fleet_spec.ts';
import type { ServiceCommand, ServiceDecision, ServiceState } from './fleet_state.ts';
import { type Behaviour, FakeWorld, HEALTHY, makeSpec, makeTemplate } from './testdata/fake_world.ts';

/** One thing that happens, and how many seconds follow. */
type Event = { readonly wait: number } & (
  | { readonly kind: 'template'; readonly model: string }
  | { readonly kind: 'scale'; readonly scale: number }
  | { readonly kind: 'command'; readonly command: ServiceCommand }
  | { readonly kind: 'unready'; readonly count: number }
  | { readonly kind: 'percent'; readonly percent: number | null }
  | { readonly kind: 'canary'; readonly model: string | null }
);

interface Case {
  readonly spec: ServiceSpec;
  readonly behaviours: Readonly<Record<string, Behaviour>>;
  readonly scale: number;
  readonly machineGib: number | null;
  readonly events: readonly Event[];
}

const MODELS = ['v1', 'v2', 'v3', 'v4'];

const limitArb = fc.oneof(
  fc.integer({ min: 0, max: 4 }),
  fc.integer({ min: 0, max: 100 }).map((percent) => ({ percent })),
);

const rolloutArb = (strategies: ServiceSpec['rollout']['strategy'][]) =>
  fc.record({
    strategy: fc.constantFrom(...strategies),
    maxSurge: limitArb,
    maxUnavailable: limitArb,
    steps: fc
      .array(fc.record({ percent: fc.integer({ min: 1, max: 99 }), pauseMs: fc.integer({ min: 0, max: 15_000 }) }), {
        maxLength: 3,
      })
      .map((steps) => [...steps, { percent: 100, pauseMs: 0 }]),
    analysis: fc.constant(null),
    progressDeadlineMs: fc.constantFrom(40_000, 600_000),
    revisionHistoryLimit: fc.integer({ min: 0, max: 3 }),
  });

const behaviourArb = fc.record({
  startMs: fc.constantFrom(2000, 7000, 10_000, 1e9),
  wakeMs: fc.constant(2000),
  drainMs: fc.constantFrom(0, 3000, 20_000),
  crashMs: fc.constantFrom(null, null, null, 2000),
  errors: fc.constant(0),
});

const commandArb: fc.Arbitrary<ServiceCommand> = fc.oneof(
  fc.constant({ kind: 'undo', to: null } as const),
  fc.constant({ kind: 'promote' } as const),
  fc.constant({ kind: 'pause' } as const),
  fc.constant({ kind: 'resume' } as const),
);

const waitArb = fc.integer({ min: 0, max: 40 });
const templateArb = fc.record({
  kind: fc.constant('template' as const),
  model: fc.constantFrom(...MODELS),
  wait: waitArb,
});
const commandEventArb = fc.record({ kind: fc.constant('command' as const), command: commandArb, wait: waitArb });
const scaleArb = fc.record({
  kind: fc.constant('scale' as const),
  scale: fc.integer({ min: 0, max: 8 }),
  wait: waitArb,
});
const unreadyArb = fc.record({
  kind: fc.constant('unready' as const),
  count: fc.integer({ min: 1, max: 3 }),
  wait: waitArb,
});
const percentArb = fc.record({
  kind: fc.constant('percent' as const),
  percent: fc.option(fc.integer({ min: 1, max: 100 })),
  wait: waitArb,
});
const canaryArb = fc.record({
  kind: fc.constant('canary' as const),
  model: fc.option(fc.constantFrom(...MODELS)),
  wait: waitArb,
});

function caseArb(
  events: fc.Arbitrary<Event>,
  strategies: ServiceSpec['rollout']['strategy'][],
  withMachine: boolean,
): fc.Arbitrary<Case> {
  return fc.record({
    spec: rolloutArb(strategies).chain((rollout) =>
      fc.integer({ min: 0, max: 2 }).map((standby) => {
        const { scaling } = makeSpec();
        return makeSpec({ rollout, scaling: { ...scaling, standby: withMachine ? standby : 0 } });
      }),
    ),
    // The first template is sound: something has to be stable.
    behaviours: fc.record({ v2: behaviourArb, v3: behaviourArb, v4: behaviourArb }),
    scale: fc.integer({ min: 1, max: 8 }),
    machineGib: withMachine ? fc.option(fc.integer({ min: 4, max: 40 })) : fc.constant(null),
    events: fc.array(events, { maxLength: 6 }),
  });
}

interface Seen {
  readonly decision: ServiceDecision;
  readonly world: FakeWorld;
  readonly spec: ServiceSpec;
  readonly scale: number;
  readonly tick: number;
}

const template = (model: string) => makeTemplate(model, { memoryBytes: 4 * 2 ** 30 });

/** Runs the case; `check` sees each decision after it was carried out. Returns what it takes to go on. */
function play(run: Case, check: (seen: Seen) => void) {
  const world = new FakeWorld();
  for (const [model, behaviour] of Object.entries(run.behaviours)) world.behaviours.set(model, behaviour);
  if (run.machineGib !== null) world.machine = { memoryBytes: run.machineGib * 2 ** 30, cpuMilli: Infinity };
  let spec: ServiceSpec = { ...run.spec, template: template('v1') };
  let [scale, ticks] = [run.scale, 0];
  const advance = (count: number) => {
    for (let i = 0; i < count; i++) check({ decision: world.tick(spec, scale), world, spec, scale, tick: ticks++ });
  };
  advance(15);
  for (const event of run.events) {
    if (event.kind === 'template') spec = { ...spec, template: template(event.model) };
    else if (event.kind === 'scale') scale = event.scale;
    else if (event.kind === 'unready') world.setUnready(event.count);
    else if (event.kind === 'percent') spec = { ...spec, canaryTrafficPercent: event.percent };
    else if (event.kind === 'canary') {
      const canary = { name: 'blue', template: template(event.model ?? ''), percent: 30, minReplicas: null };
      spec = { ...spec, canaries: event.model === null ? [] : [canary] };
    } else world.state = command(spec, world, event.command);
    advance(event.wait);
  }
  return { world, advance, spec: () => spec };
}

/** Applied twice, which must be as once. */
function command(spec: ServiceSpec, world: FakeWorld, asked: ServiceCommand): ServiceState {
  const before = world.state as ServiceState;
  try {
    const once = applyCommand(spec, before, asked, world.now);
    const twice = applyCommand(spec, once.state, asked, world.now + 1000);
    expect(twice).toEqual({ state: once.state, events: [] });
    return once.state;
  } catch (error) {
    if (!(error instanceof TokenmillError)) throw error;
    return before;
  }
}

const live = (world: FakeWorld) => world.replicas.filter(({ phase }) => phase !== 'draining' && phase !== 'asleep');

function checkTotal({ world, spec, scale, decision }: Seen): void {
  const { surge } = bounds(spec.rollout, scale);
  expect(live(world).length).toBeLessThanOrEqual(scale + surge);
  expect(decision.state.replicasWanted).toBe(scale);
}

function checkShares({ decision: { route } }: Seen): void {
  const sum = route.revisions.reduce((total, { percent }) => total + percent, 0);
  expect(sum).toBe(100);
  const isReady = (r: (typeof route.revisions)[number]) => r.endpoints.some(({ state }) => state === 'ready');
  if (!route.revisions.some(isReady)) return;
  for (const revision of route.revisions) {
    expect(Number.isInteger(revision.percent)).toBe(true);
    if (revision.percent > 0)
      expect(isReady(revision), `${revision.id} gets ${revision.percent}% and has no ready endpoint`).toBe(true);
  }
}

const settings = (numRuns: number, seed: number) => ({ numRuns, seed, endOnFailure: false });

describe('decideService', () => {
  test('total never above desired + maxSurge', () => {
    const events = fc.oneof(templateArb, commandEventArb, scaleArb, unreadyArb);
    fc.assert(
      fc.property(caseArb(events, ['rolling', 'canary', 'recreate'], true), (run) => {
        play(run, checkTotal);
      }),
      settings(150, 11),
    );
  });

  test('available never below desired - maxUnavailable while the old ones are healthy', () => {
    const events = fc.oneof(templateArb, commandEventArb);
    fc.assert(
      fc.property(caseArb(events, ['rolling', 'canary', 'blueGreen'], false), (run) => {
        play(run, ({ world, spec, scale, tick }) => {
          if (tick < 10) return;
          const available = live(world).filter(({ phase }) => phase === 'ready').length;
          expect(available).toBeGreaterThanOrEqual(scale - bounds(spec.rollout, scale).unavailable);
        });
      }),
      settings(150, 12),
    );
  });

  test('shares add up to 100 and lead to revisions that are ready', () => {
    const events = fc.oneof(templateArb, commandEventArb, scaleArb, unreadyArb, percentArb, canaryArb);
    fc.assert(
      fc.property(caseArb(events, ['rolling', 'canary', 'blueGreen', 'recreate'], true), (run) => {
        play(run, checkShares);
      }),
      settings(150, 13),
    );
  });

  test('with constant input the actions end', () => {
    const events = fc.oneof(templateArb, commandEventArb, scaleArb, unreadyArb, percentArb, canaryArb);
    fc.assert(
      fc.property(caseArb(events, ['rolling', 'canary', 'blueGreen', 'recreate'], true), (run) => {
        const late: string[] = [];
        let settledAt = Infinity;
        const { advance, world } = play(run, ({ decision, tick }) => {
          const { actions, events } = decision;
          if (tick >= settledAt)
            late.push(...actions.map((a) => `${tick} ${a.kind}`), ...events.map((e) => `${tick} ${e.type}`));
        });
        settledAt = world.now / 1000 + 900;
        advance(1000);
        expect(late).toEqual([]);
      }),
      settings(40, 14),
    );
  }, 60_000);

  test('a sound revision is rolled out, however little room there is', () => {
    const soundArb = behaviourArb.map((behaviour) => ({
      ...behaviour,
      crashMs: null,
      startMs: Math.min(behaviour.startMs, 10_000),
    }));
    const events = fc.oneof(templateArb, scaleArb, unreadyArb);
    const cases = fc.record({
      run: caseArb(events, ['rolling', 'canary', 'blueGreen', 'recreate'], true),
      behaviours: fc.record({ v2: soundArb, v3: soundArb, v4: soundArb }),
    });
    fc.assert(
      fc.property(cases, ({ run, behaviours }) => {
        const last: Event = { kind: 'scale', scale: run.scale, wait: 0 };
        const { world, advance } = play({ ...run, behaviours, events: [...run.events, last] }, () => {});
        advance(1200);
        const { registers, rollout } = world.state as ServiceState;
        expect([registers.latestRolledOut, rollout.target]).toEqual([registers.latestCreated, registers.latestCreated]);
        expect(rollout.phase).toBe('idle');
        expect(live(world).every(({ revision }) => revision === registers.latestCreated)).toBe(true);
        const room = run.machineGib === null ? Infinity : Math.floor(run.machineGib / 4);
        expect(live(world).length).toBe(Math.min(run.scale, room));
      }),
      settings(30, 16),
    );
  }, 60_000);

  test('a rollback ends with the stable revision at 100%', () => {
    const faultArb = fc.constantFrom<Behaviour>(
      { ...HEALTHY, errors: 1 },
      { ...HEALTHY, errors: 0.3 },
      { ...HEALTHY, crashMs: 1000 },
      { ...HEALTHY, startMs: 1e9 },
    );
    const cases = fc.record({
      run: caseArb(
        scaleArb.filter(({ scale }) => scale > 0),
        ['rolling', 'canary'],
        true,
      ),
      fault: faultArb,
      // Room for the most replicas that are wanted, and for one more.
      machineGib: fc.constantFrom(null, 36),
      percent: fc.option(fc.integer({ min: 5, max: 50 })),
    });
    fc.assert(
      fc.property(cases, ({ run, fault, percent, machineGib }) => {
        const analysis = {
          errorRateMargin: 0.01,
          ttftRatio: null,
          tpotRatio: null,
          alpha: 0.05,
          maxRequests: 1e6,
          promote: true,
          rollback: true,
        };
        const rollout = { ...run.spec.rollout, analysis, progressDeadlineMs: 60_000, strategy: 'canary' as const };
        const spec = {
          ...run.spec,
          rollout: {
            ...rollout,
            steps: [
              { percent: 30, pauseMs: 1e9 },
              { percent: 100, pauseMs: 0 },
            ],
          },
          canaryTrafficPercent: percent,
        };
        const bad: Event = { kind: 'template', model: 'v2', wait: 0 };
        const types = new Set<string>();
        let last: ServiceDecision | null = null;
        const { world, advance } = play(
          { ...run, machineGib, spec, behaviours: { v2: fault }, events: [bad, ...run.events] },
          (seen) => {
            seen.world.requestsPerTick = 20;
            last = seen.decision;
            for (const { type } of seen.decision.events) types.add(type);
          },
        );
        advance(600);
        const { state, route } = last as unknown as ServiceDecision;
        // One replica, no room for a second: its place is taken at once, and nothing is left to compare with.
        if (types.has('Promoting')) return;
        expect(state.rollout).toMatchObject({ phase: 'idle', target: 'llama-00001' });
        expect(state.registers.latestRolledOut).toBe('llama-00001');
        expect(route.revisions.map(({ id, percent }) => [id, percent])).toEqual([['llama-00001', 100]]);
        expect(types.has('RolledBack')).toBe(true);
        expect(world.replicas.every(({ revision }) => revision === 'llama-00001')).toBe(true);
      }),
      settings(30, 15),
    );
  }, 60_000);
});
