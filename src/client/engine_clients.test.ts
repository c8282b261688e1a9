import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { AssertionError } from '../base/assert.ts';
import type { TokenmillError } from '../base/errors.ts';
import { FLAGS } from '../config/flags.ts';
import { parseOptions } from '../config/options.ts';
import { type EngineRequest, type EngineSampling, GREEDY_SAMPLING, type RequestOutput } from '../engine/types.ts';
import type { EngineClient } from './engine_client.ts';
import { wireEngine } from './engine_thread.ts';
import { Heartbeat } from './heartbeat.ts';
import { InProcessClient } from './in_process_client.ts';
import { ThreadClient } from './thread_client.ts';

const MODEL = fileURLToPath(new URL('../../models/tokenmill-tiny', import.meta.url));
const OPTIONS = {
  model: MODEL,
  backend: 'reference',
  maxModelLen: 256,
  maxNumSeqs: 4,
  maxNumBatchedTokens: 64,
} as const;
const LOAD = { config: parseOptions(OPTIONS, FLAGS, {}), modelPath: MODEL };

const GREEDY: EngineSampling = { ...GREEDY_SAMPLING, maxTokens: 4 };

function request(id: string, sampling: Partial<EngineSampling> = {}): EngineRequest {
  return {
    id,
    promptTokenIds: Int32Array.of(1, 320, 201),
    sampling: { ...GREEDY, ...sampling },
    priority: 0,
    cacheSalt: null,
    arrivalMs: 0,
    skipPrefixCache: false,
  };
}

/** Adds one request; resolves with its outputs once it has finished. */
function run(
  client: EngineClient,
  one: EngineRequest,
  onOutput: (output: RequestOutput) => void = () => {},
): Promise<RequestOutput[]> {
  return new Promise((resolve) => {
    const outputs: RequestOutput[] = [];
    client.add([one], (output) => {
      outputs.push(output);
      onOutput(output);
      if (output.finishReason !== null) resolve(outputs);
    });
  });
}

const tokens = (outputs: readonly RequestOutput[]): number[] => outputs.flatMap((output) => output.newTokenIds);

const starts: Readonly<Record<string, () => Promise<EngineClient>>> = {
  'in-process': async () => {
    const engine = await wireEngine(LOAD);
    return new InProcessClient(engine.core, { stuckLimitS: 60, onClose: () => engine.close() });
  },
  // The thread runs the built files: `npm test` has brought them up to date.
  thread: () => ThreadClient.start({ load: LOAD }),
};

describe.each(Object.keys(starts))('%s client', (name) => {
  let client: EngineClient;
  beforeEach(async () => {
    client = await starts[name]!();
  });
  afterEach(() => client.close());

  test('outputs, statistics and cache resets come back', async () => {
    let steps = 0;
    const off = client.onStats(() => steps++);
    const [a, b] = await Promise.all([run(client, request('a')), run(client, request('b'))]);
    expect(tokens(a!)).toHaveLength(4);
    expect(tokens(a!)).toEqual(tokens(b!));
    expect(a!.at(-1)!.finishReason).toBe('length');
    expect(steps).toBeGreaterThanOrEqual(4);
    off();
    expect(await client.resetPrefixCache()).toBe(true);
    expect(client.health()).toMatchObject({ healthy: true, reason: null });
    expect(client.health().lastStepMs).toBeGreaterThan(0);
  });

  test('an abort ends one request and leaves the other', async () => {
    const long = run(client, request('long', { maxTokens: 200 }), (output) => {
      if (output.finishReason === null) client.abort(['long', 'unknown']);
    });
    const other = run(client, request('other'));
    expect((await long).at(-1)!.finishReason).toBe('abort');
    expect(tokens(await other)).toHaveLength(4);
    // Nothing is held any more.
    expect(await client.resetPrefixCache()).toBe(true);
  });

  test('an id in flight is refused at once', async () => {
    const first = run(client, request('same'));
    expect(() => client.add([request('same')], () => {})).toThrow(/in flight/);
    expect(tokens(await first)).toHaveLength(4);
  });

  test('close aborts what runs; nothing can be added after it', async () => {
    const running = run(client, request('r', { maxTokens: 200 }));
    await client.close();
    expect((await running).at(-1)!.finishReason).toBe('abort');
    expect(() => client.add([request('late')], () => {})).toThrow(/closed/);
    expect(client.health().healthy).toBe(false);
  });
});

describe('a broken engine', () => {
  /** A request that breaks an assumption of the engine, as a bug of ours would. */
  const poison = { ...request('poison'), promptTokenIds: undefined as unknown as Int32Array };

  test('on its thread: requests get engine_dead, health says why, nothing is accepted', async () => {
    const client = await starts['thread']!();
    const victim = run(client, request('victim', { maxTokens: 200 }));
    client.add([poison], () => {});
    const last = (await victim).at(-1)!;
    expect(last).toMatchObject({ finishReason: 'error', error: { code: 'engine_dead' } });
    const error: TokenmillError = await client.died;
    expect([error.code, error.exitCode]).toEqual(['engine_dead', 70]);
    expect(client.health()).toMatchObject({ healthy: false, reason: error.message });
    expect(() => client.add([request('late')], () => {})).toThrow(error);
    await client.close();
  });

  test('in-process: the same', async () => {
    const core = {
      apply: () => true,
      hasWork: () => true,
      step: () => {
        throw new AssertionError('two owners of block 7');
      },
    };
    const client = new InProcessClient(core, { stuckLimitS: 60 });
    const last = (await run(client, request('victim'))).at(-1)!;
    expect(last).toMatchObject({
      finishReason: 'error',
      error: { code: 'engine_dead', message: 'The engine ended: two owners of block 7.' },
    });
    expect(client.health().healthy).toBe(false);
    expect((await client.died).code).toBe('engine_dead');
  });

  test('a model that cannot be loaded is the error of loading, not of the thread', async () => {
    const config = parseOptions({ ...OPTIONS, maxModelLen: 100000 }, FLAGS, {});
    await expect(ThreadClient.start({ load: { config, modelPath: MODEL } })).rejects.toMatchObject({
      code: 'flag_invalid',
    });
    const nowhere = { config: LOAD.config, modelPath: `${MODEL}-nowhere` };
    await expect(ThreadClient.start({ load: nowhere })).rejects.toMatchObject({ code: 'model_files_missing' });
  });
});

describe('heartbeat', () => {
  test('idle is healthy however long; working and silent is stuck after the limit', () => {
    const heartbeat = new Heartbeat();
    heartbeat.stepStarts(1000);
    heartbeat.stepEnds(1250);
    expect(heartbeat.health(900_000, null, null, 60)).toEqual({
      healthy: true,
      reason: null,
      heartbeatMs: 1250,
      lastStepMs: 250,
    });
    // Work came at 899 s to an engine that had been idle since 1 s: not stuck yet.
    expect(heartbeat.health(900_000, null, 899_000, 60).healthy).toBe(true);
    expect(heartbeat.health(960_000, null, 899_000, 60)).toMatchObject({
      healthy: false,
      reason: expect.stringMatching(/61\.0 s \(--stuck-limit 60\)/),
    });
    expect(heartbeat.health(2000, 'dead', null, 60)).toMatchObject({ healthy: false, reason: 'dead' });
  });

  test('is read through shared memory', () => {
    const writer = new Heartbeat();
    const reader = new Heartbeat(writer.memory);
    writer.stepStarts(10);
    writer.stepEnds(15);
    expect([reader.steps, reader.health(20, null, null, 1).lastStepMs]).toEqual([1, 5]);
  });

  test('a step that never returns turns health red while it runs', async () => {
    vi.useFakeTimers({ toFake: ['setImmediate'] });
    let now = 0;
    const client = new InProcessClient(
      {
        apply: () => true,
        hasWork: () => true,
        step: () => ({ outputs: [], prefixCacheResets: [], stats: {} as never }),
      },
      { stuckLimitS: 5, clock: { now: () => now } },
    );
    client.add([request('r')], () => {});
    expect(client.health().healthy).toBe(true);
    now = 6000;
    expect(client.health()).toMatchObject({ healthy: false, reason: expect.stringContaining('no sign of life') });
    vi.useRealTimers();
    await client.close();
  });
});
