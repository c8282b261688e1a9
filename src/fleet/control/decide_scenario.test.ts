/**
 * Whole rollouts as files a person can read. Lines without indent are input, those below, indented, are what happened and are
 * compared. REWRITE=1 writes them anew; review the diff.
 *
 *   service strategy=canary surge=1 steps=20:30,50:30,100:0    fields of the service, rollout and scaling
 *   template v2 memory=4 minReady=5                            the stable template; memory in GiB
 *   canary blue v2 percent=20 | canary blue none               an entry of `canaries`
 *   behaviour v2 start=20 crash=3 errors=0.5                   of all processes with this template, s
 *   machine memory=16 cpu=8000 | requests 10                   GiB and millicores; a tick
 *   command undo | promote | pause | resume | scale 3          of a person
 *   unready 1                                                  replicas that fail their readiness for 15 s
 *   run 60 scale=3                                             seconds, a tick each
 *   conditions | registers                                     as they stand
 *
 * `12 = 00001 2/3 100% | 00002 0/1 0%` is time, revision, ready and live replicas (`z` asleep, `d` draining), and its share.
 */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { applyCommand } from '../rollout/commands.ts';
import type { AnalysisSpec, ServiceSpec } from '../spec/fleet_spec.ts';
import type { ServiceCommand, ServiceDecision, ServiceState } from './fleet_state.ts';
import { FakeWorld, HEALTHY, makeSpec, makeTemplate } from './testdata/fake_world.ts';

const FOLDER = new URL('./testdata/', import.meta.url);

type Options = Readonly<Record<string, string>>;

const share = (text: string) => (text.endsWith('%') ? { percent: Number(text.slice(0, -1)) } : Number(text));

class Scenario {
  private world = new FakeWorld();
  private spec = makeSpec();
  private scale = 1;
  private last: ServiceDecision | null = null;
  private shown = '';

  run(line: string): string[] {
    const [command = '', ...words] = line.split(/\s+/);
    const options = Object.fromEntries(
      words.filter((w) => w.includes('=')).map((w) => w.split(/=(.*)/s) as [string, string]),
    );
    const [first = '', second = ''] = words.filter((w) => !w.includes('='));
    if (command === 'new') {
      this.world = new FakeWorld();
      this.spec = makeSpec();
      this.shown = '';
    } else if (command === 'service') this.configure(options);
    else if (command === 'template') this.spec = { ...this.spec, template: this.template(first, options) };
    else if (command === 'canary') this.canary(first, second, options);
    else if (command === 'behaviour') this.behave(first, options);
    else if (command === 'machine')
      this.world.machine = {
        memoryBytes: Number(options['memory'] ?? Infinity) * 2 ** 30,
        cpuMilli: Number(options['cpu'] ?? Infinity),
      };
    else if (command === 'requests') this.world.requestsPerTick = Number(first);
    else if (command === 'unready') this.world.setUnready(Number(first));
    else if (command === 'command') return this.command(first, second);
    else if (command === 'run') return this.tick(Number(first), options);
    else if (command === 'conditions') return this.conditions();
    else if (command === 'registers') return this.registers();
    else throw new Error(`unknown command: ${line}`);
    return [];
  }

  private configure(o: Options): void {
    const { scaling, rollout } = this.spec;
    const known = new Set([
      'min',
      'standby',
      'strategy',
      'surge',
      'unavailable',
      'deadline',
      'history',
      'steps',
      'analysis',
      'max',
      'stopped',
      'percent',
    ]);
    for (const key of Object.keys(o)) if (!known.has(key)) throw new Error(`unknown field ${key}`);
    const number = (key: string, fallback: number) => (o[key] === undefined ? fallback : Number(o[key]));
    const steps = o['steps']
      ?.split(',')
      .map((s) => ({ percent: Number(s.split(':')[0]), pauseMs: Number(s.split(':')[1]) * 1000 }));
    this.spec = {
      ...this.spec,
      stopped: o['stopped'] === undefined ? this.spec.stopped : o['stopped'] === 'true',
      canaryTrafficPercent:
        o['percent'] === undefined
          ? this.spec.canaryTrafficPercent
          : o['percent'] === 'none'
            ? null
            : Number(o['percent']),
      scaling: {
        ...scaling,
        minReplicas: number('min', scaling.minReplicas),
        standby: number('standby', scaling.standby),
      },
      rollout: {
        ...rollout,
        strategy: (o['strategy'] as ServiceSpec['rollout']['strategy'] | undefined) ?? rollout.strategy,
        maxSurge: o['surge'] === undefined ? rollout.maxSurge : share(o['surge']),
        maxUnavailable: o['unavailable'] === undefined ? rollout.maxUnavailable : share(o['unavailable']),
        progressDeadlineMs: number('deadline', rollout.progressDeadlineMs / 1000) * 1000,
        revisionHistoryLimit: number('history', rollout.revisionHistoryLimit),
        steps: steps ?? rollout.steps,
        analysis: this.analysis(o),
      },
    };
  }

  /** `analysis=rollback,promote max=200` */
  private analysis(o: Options): AnalysisSpec | null {
    if (o['analysis'] === undefined) return this.spec.rollout.analysis;
    const does = o['analysis'].split(',');
    const rest = { errorRateMargin: 0.01, ttftRatio: null, tpotRatio: null, alpha: 0.05 };
    return {
      ...rest,
      maxRequests: Number(o['max'] ?? 200),
      promote: does.includes('promote'),
      rollback: does.includes('rollback'),
    };
  }

  private template(model: string, o: Options) {
    return makeTemplate(model, {
      memoryBytes: o['memory'] === undefined ? null : Number(o['memory']) * 2 ** 30,
      cpuMilli: o['cpu'] === undefined ? null : Number(o['cpu']),
      minReadyMs: Number(o['minReady'] ?? 0) * 1000,
    });
  }

  private canary(name: string, model: string, o: Options): void {
    const others = this.spec.canaries.filter((c) => c.name !== name);
    const minReplicas = o['min'] === undefined ? null : Number(o['min']);
    const entry = { name, template: this.template(model, o), percent: Number(o['percent'] ?? 0), minReplicas };
    this.spec = { ...this.spec, canaries: model === 'none' ? others : [...others, entry] };
  }

  private behave(model: string, o: Options): void {
    const seconds = (key: string, fallback: number) => (o[key] === undefined ? fallback : Number(o[key]) * 1000);
    this.world.behaviours.set(model, {
      startMs: seconds('start', HEALTHY.startMs),
      wakeMs: seconds('wake', HEALTHY.wakeMs),
      drainMs: seconds('drain', HEALTHY.drainMs),
      crashMs: o['crash'] === undefined ? null : Number(o['crash']) * 1000,
      errors: Number(o['errors'] ?? 0),
    });
  }

  private command(kind: string, value: string): string[] {
    const command = (
      kind === 'undo'
        ? { kind, to: value || null }
        : kind === 'scale'
          ? { kind, replicas: value === 'none' ? null : Number(value) }
          : { kind }
    ) as ServiceCommand;
    try {
      const { state, events } = applyCommand(this.spec, this.world.state as ServiceState, command, this.world.now);
      this.world.state = state;
      return events.map(({ type, text }) => `${type}: ${text}`);
    } catch (error) {
      return [(error as Error).message];
    }
  }

  private tick(count: number, o: Options): string[] {
    if (o['scale'] !== undefined) this.scale = Number(o['scale']);
    const lines: string[] = [];
    for (let i = 0; i < count; i++) {
      const time = this.world.now / 1000;
      this.last = this.world.tick(this.spec, this.scale);
      for (const { type, text } of this.last.events) lines.push(`${time} ${type}: ${text}`);
      const summary = this.summary(this.last);
      if (summary !== this.shown) lines.push(`${time} = ${summary}`);
      this.shown = summary;
    }
    return lines;
  }

  private summary({ route }: ServiceDecision): string {
    const { replicas } = this.world;
    const ids = new Set([
      ...(this.world.state?.revisions ?? []).map(({ id }) => id),
      ...replicas.map((r) => r.revision),
    ]);
    const parts: string[] = [];
    for (const id of ids) {
      const own = replicas.filter((r) => r.revision === id);
      const routed = route.revisions.find((r) => r.id === id);
      const live = own.filter(({ phase }) => phase !== 'asleep' && phase !== 'draining');
      const count = (phase: string) => own.filter((r) => r.phase === phase).length;
      if (own.length === 0 && (routed?.percent ?? 0) === 0) continue;
      const asleep = count('asleep') > 0 ? ` ${count('asleep')}z` : '';
      const draining = count('draining') > 0 ? ` ${count('draining')}d` : '';
      parts.push(
        `${id.replace('llama-', '')} ${count('ready')}/${live.length}${asleep}${draining} ${routed?.percent ?? 0}%`,
      );
    }
    return parts.join(' | ') || 'nothing';
  }

  private conditions(): string[] {
    const shown = this.last?.conditions.map(
      ({ type, status, reason, message }) => `${type} ${status} ${reason}${message === '' ? '' : `: ${message}`}`,
    );
    return shown ?? [];
  }

  private registers(): string[] {
    const { registers, rollout } = this.world.state as ServiceState;
    const ids = Object.entries(registers).map(([name, id]) => `${name} ${id ?? '-'}`);
    const tags = this.last?.route.revisions.flatMap(({ id, tags }) => tags.map((tag) => `${tag}=${id}`)) ?? [];
    return [`${ids.join(', ')}, phase ${rollout.phase}${tags.length > 0 ? `, tags ${tags.join(' ')}` : ''}`];
  }
}

describe('decision scenarios', () => {
  const files = readdirSync(FOLDER).filter((name) => name.endsWith('.txt'));
  test.each(files)('%s', (name) => {
    const url = new URL(name, FOLDER);
    const before = readFileSync(url, 'utf8');
    const scenario = new Scenario();
    const after: string[] = [];
    for (const line of before.split('\n')) {
      if (line.startsWith('  ')) continue;
      after.push(line);
      if (line !== '' && !line.startsWith('#')) after.push(...scenario.run(line).map((text) => `  ${text}`));
    }
    if (process.env['REWRITE'] === '1') writeFileSync(url, after.join('\n'));
    else expect(after.join('\n')).toBe(before);
  });
});
