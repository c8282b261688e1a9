import { afterEach, beforeEach, expect, it } from 'vitest';
import type { GraphSpec, GraphStep } from '../spec/fleet_spec.ts';
import type { Gateway } from './gateway.ts';
import {
  answer,
  ask,
  chat,
  echo,
  eventsOf,
  type Replica,
  serviceOf,
  startGateway,
  startReplica,
  stream,
  tableOf,
  until,
} from './testdata/harness.ts';

let replicas: Replica[] = [];
let gateway: Gateway;
let port: number;

beforeEach(async () => {
  replicas = await Promise.all(['a', 'b', 'c'].map((name) => startReplica(echo(name))));
});

afterEach(async () => {
  await gateway.close();
  await Promise.all(replicas.map((replica) => replica.close()));
});

const replica = (i: number): Replica => replicas[i] as Replica;

function step(target: GraphStep['target'], more: Partial<GraphStep> = {}): GraphStep {
  return { name: '', target, data: '$request', weight: null, condition: null, dependency: 'Soft', ...more };
}

const to = (name: string): GraphStep['target'] => ({ service: `default/${name}` });

async function serve(nodes: GraphSpec['nodes']): Promise<void> {
  const services = ['one', 'two', 'three'].map((name, i) => serviceOf(name, [replica(i).url]));
  const graphs = [{ id: 'default/g', at: { file: 'f', line: 1, column: 1 }, nodes }];
  ({ gateway, port } = await startGateway(tableOf({ services, graphs })));
}

const run = (body: object) => ask(port, '/graphs/default/g', { body });
const parse = (text: string): Record<string, unknown> => JSON.parse(text) as Record<string, unknown>;

it('Sequence: the answer of a step is the request of the next, and the last one streams', async () => {
  replica(0).behave = answer(200, { drafted: true, messages: ['from one'] });
  replica(1).behave = stream(5, 20);
  await serve({ root: { router: 'Sequence', steps: [step(to('one')), step(to('two'), { data: '$response' })] } });
  const pieces: string[] = [];
  const { body } = await ask(port, '/v1/chat/completions', {
    body: chat('g', { stream: true }),
    onData: (text) => pieces.push(text),
  });
  expect(eventsOf(body)).toHaveLength(6);
  expect(pieces.length).toBeGreaterThan(2);
  expect(parse(replica(0).seen[0]?.body ?? '')).toMatchObject({ model: 'one', stream: false });
  expect(parse(replica(1).seen[0]?.body ?? '')).toEqual({
    model: 'two',
    stream: true,
    drafted: true,
    messages: ['from one'],
  });
  expect(replica(1).seen[0]?.url).toBe('/v1/chat/completions');
});

it('Sequence: a hard step that fails ends it, a soft one does not, a condition stops it', async () => {
  replica(0).behave = answer(418, { no: 1 });
  const last = step(to('two'));
  await serve({ root: { router: 'Sequence', steps: [step(to('one'), { dependency: 'Hard' }), last] } });
  expect(await run({})).toMatchObject({ status: 418, body: '{"no":1}' });
  expect(replica(1).seen).toHaveLength(0);
  gateway.applyTable(tableFor({ root: { router: 'Sequence', steps: [step(to('one')), last] } }));
  expect(parse((await run({})).body)).toMatchObject({ replica: 'b' });
  replica(0).behave = answer(200, { enough: true });
  const more = step(to('two'), { condition: 'next.#(kind=="more")' });
  gateway.applyTable(tableFor({ root: { router: 'Sequence', steps: [step(to('one')), more] } }));
  expect((await run({})).body).toBe('{"enough":true}');
});

function tableFor(nodes: GraphSpec['nodes']): ReturnType<typeof tableOf> {
  const services = ['one', 'two', 'three'].map((name, i) => serviceOf(name, [replica(i).url]));
  return tableOf({ services, graphs: [{ id: 'default/g', at: { file: 'f', line: 1, column: 1 }, nodes }] });
}

it('Switch: the first step whose condition is met, else 404; nodes may be steps', async () => {
  const inner = { router: 'Switch' as const, steps: [step(to('three'), { condition: 'deep' })] };
  const steps = [
    step(to('one'), { condition: '[@this].#(source=="client")' }),
    step({ node: 'inner' }, { condition: 'inner' }),
  ];
  await serve({ root: { router: 'Switch', steps }, inner });
  expect(parse((await run({ source: 'client' })).body)).toMatchObject({ replica: 'a' });
  expect(parse((await run({ inner: 1, deep: null })).body)).toMatchObject({ replica: 'c' });
  expect((await run({ inner: 1 })).status).toBe(404);
  expect((await run({ source: 'server' })).status).toBe(404);
});

it('Splitter: by weight, in the proportion of the weights', async () => {
  const steps = [step(to('one'), { weight: 25 }), step(to('two'), { weight: 75 })];
  await serve({ root: { router: 'Splitter', steps } });
  for (let i = 0; i < 200; i++) await run({});
  expect(replica(0).seen.length).toBeGreaterThan(25);
  expect(replica(0).seen.length).toBeLessThan(75);
  expect(replica(0).seen.length + replica(1).seen.length).toBe(200);
});

it('Ensemble: answers under the names of their steps', async () => {
  replica(1).behave = (_seen, res) => res.writeHead(200).end('no json');
  replica(2).behave = answer(400, { bad: true });
  const steps = [
    step(to('one'), { name: 'first' }),
    step(to('two')),
    step({ url: `${replica(2).url}/x?y=1` }, { name: 'third' }),
  ];
  await serve({ root: { router: 'Ensemble', steps } });
  expect(parse((await run({})).body)).toMatchObject({ first: { replica: 'a' }, 1: 'no json', third: { bad: true } });
  expect(replica(2).seen[0]).toMatchObject({ url: '/x?y=1', method: 'POST' });
  gateway.applyTable(
    tableFor({
      root: { router: 'Ensemble', steps: [...steps.slice(0, 2), step(to('three'), { dependency: 'Hard' })] },
    }),
  );
  expect((await run({})).status).toBe(400);
});

it('a circle of nodes ends, and what leads nowhere is told', async () => {
  await serve({ root: { router: 'Sequence', steps: [step({ node: 'root' })] } });
  expect(await run({})).toMatchObject({ status: 500, body: expect.stringContaining('more than 256 steps') });
  expect((await ask(port, '/graphs/default/none', { body: {} })).status).toBe(404);
  expect((await ask(port, '/graphs/default/g')).status).toBe(400);
  gateway.applyTable(tableFor({ root: { router: 'Sequence', steps: [step({ node: 'gone' })] } }));
  expect((await run({})).body).toContain('has no node gone');
  expect(gateway.bodies.bytes).toBe(0);
});

it('a client that leaves ends the step under way', async () => {
  let gone = 0;
  replica(0).behave = (_seen, res) => void res.on('close', () => gone++);
  await serve({ root: { router: 'Sequence', steps: [step(to('one')), step(to('two'))] } });
  const leaving = new AbortController();
  const left = ask(port, '/graphs/default/g', { body: {}, signal: leaving.signal }).catch(() => null);
  await until(() => replica(0).seen.length === 1, 'the first step runs');
  leaving.abort();
  await left;
  await until(() => gone === 1, 'the step is ended');
  expect(replica(1).seen).toHaveLength(0);
  expect(gateway.bodies.bytes).toBe(0);
});
