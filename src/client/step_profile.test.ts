import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, test } from 'vitest';
import { z } from 'zod';
import { FLAGS } from '../config/flags.ts';
import { parseOptions } from '../config/options.ts';
import { loadEngine } from './load_engine.ts';
import { checkProfilePath, chromeTrace, type Notice, StepProfile } from './step_profile.ts';

const MODEL = fileURLToPath(new URL('../../models/tokenmill-tiny', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'tokenmill-profile-'));
afterAll(() => rmSync(folder, { recursive: true }));

const Complete = z.strictObject({
  ph: z.literal('X'),
  pid: z.number().int(),
  tid: z.number().int(),
  name: z.string().min(1),
  ts: z.number().nonnegative(),
  dur: z.number().nonnegative(),
  args: z.record(z.string(), z.number()).optional(),
});
const Metadata = z.strictObject({
  ph: z.literal('M'),
  pid: z.number().int(),
  tid: z.number().int(),
  name: z.enum(['process_name', 'thread_name']),
  args: z.strictObject({ name: z.string() }),
});
const Trace = z.strictObject({
  displayTimeUnit: z.literal('ms'),
  traceEvents: z.array(z.discriminatedUnion('ph', [Complete, Metadata])),
});
type CompleteEvent = z.infer<typeof Complete>;

function readTrace(text: string): CompleteEvent[] {
  const { traceEvents } = Trace.parse(JSON.parse(text));
  return traceEvents.filter((event): event is CompleteEvent => event.ph === 'X');
}

/** The events as a tree of names, by containment; throws when two overlap without one holding the other. */
function nest(events: readonly CompleteEvent[]): { name: string; inside: string[] }[] {
  const tree: { name: string; inside: string[] }[] = [];
  const open: CompleteEvent[] = [];
  const end = (event: CompleteEvent) => Math.round((event.ts + event.dur) * 1000);
  for (const event of events) {
    while (open.length > 0 && end(open.at(-1) as CompleteEvent) <= Math.round(event.ts * 1000)) open.pop();
    const parent = open.at(-1);
    if (parent !== undefined && end(event) > end(parent)) throw new Error(`${event.name} outlasts ${parent.name}`);
    if (parent === undefined) tree.push({ name: event.name, inside: [] });
    else tree.at(-1)?.inside.push(event.name);
    open.push(event);
  }
  return tree;
}

async function profileRun(options: Record<string, unknown>, maxTokens: number): Promise<Notice[]> {
  const config = parseOptions({ model: MODEL, backend: 'reference', maxModelLen: 128, ...options }, FLAGS, {});
  const notices: Notice[] = [];
  const llm = await loadEngine(config, { onNotice: (notice) => notices.push(notice) });
  const params = { temperature: 0, maxTokens, ignoreEos: true };
  for await (const _ of llm.generate({ id: 'a', prompt: Int32Array.of(1, 2, 3), params }));
  await llm.close();
  return notices;
}

describe('--profile', () => {
  test('is written at shutdown: steps with all their parts, ops in the run', async () => {
    const path = join(folder, 'short.json');
    const notices = await profileRun({ profile: path }, 3);
    expect(notices).toEqual([{ level: 'info', text: expect.stringContaining(path) }]);
    const tree = nest(readTrace(readFileSync(path, 'utf8')));
    expect(tree.map(({ name }) => name)).toEqual(['step', 'publish', 'step', 'publish', 'step', 'publish']);
    const ops = ['embedding', 'rms_norm', 'rope_kv_write', 'paged_attention', 'add_rms_norm'];
    expect(tree[0]?.inside).toEqual(expect.arrayContaining(['schedule', 'inputs', 'run', ...ops, 'sample', 'update']));
    expect(tree[0]?.inside).toContainEqual(expect.stringMatching(/^linear_silu_mul \d+x\d+$/));
    expect(tree[0]?.inside).toEqual(tree[1 + 1]?.inside);
  });

  test('is written once, when the steps asked for are complete', async () => {
    const path = join(folder, 'full.json');
    expect(await profileRun({ profile: path, profileSteps: 2 }, 6)).toHaveLength(1);
    const steps = readTrace(readFileSync(path, 'utf8')).filter(({ name }) => name === 'step');
    expect(steps.map(({ args }) => args)).toEqual([
      { sequences: 1, promptTokens: 3, generatedTokens: 1 },
      { sequences: 1, promptTokens: 0, generatedTokens: 1 },
    ]);
  });

  test.runIf(process.platform === 'linux')('a full disk costs the file and is said; the answers come', async () => {
    expect(await profileRun({ profile: '/dev/full', profileSteps: 2 }, 6)).toEqual([
      { level: 'error', text: expect.stringMatching(/\/dev\/full could not be written: ENOSPC/) },
    ]);
  });

  test('a folder that is not there, or a folder for a file, is refused before anything is loaded', async () => {
    const nowhere = join(folder, 'nowhere', 'x.json');
    expect(() => checkProfilePath(nowhere)).toThrow(/--profile .* cannot be written: ENOENT/);
    expect(() => checkProfilePath(folder)).toThrow(/it is a folder/);
    await expect(profileRun({ profile: nowhere }, 1)).rejects.toThrow(/--profile/);
  });
});

test('children stay within their span although the clocks differ', () => {
  let ms = 1000;
  const profile = new StepProfile('unused', 1, 'm', { now: () => ms++ }, () => {});
  profile.spans.begin('step');
  profile.spans.children(['a', 'b'], Float64Array.of(0, 0.9999999, 1.5));
  profile.spans.end();
  const events = readTrace([...chromeTrace(profile.spans.spans, 'm')].join(''));
  expect(events.map(({ name, ts, dur }) => [name, ts, dur])).toEqual([
    ['step', 0, 1000],
    ['a', 0, 1000],
    ['b', 1000, 0],
  ]);
});
