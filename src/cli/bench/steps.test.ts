import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { systemClock } from '../../base/clock.ts';
import { type Span, SpanRecorder } from '../../base/spans.ts';
import { type WiredEngine, wireEngine } from '../../client/engine_thread.ts';
import { parseEngineBench } from './engine_run.ts';
import { benchMakeModel } from './make_model.ts';
import { breakDown, recordSteps, type StepCase } from './steps.ts';

let folder: string;
let engine: WiredEngine;
const spans = new SpanRecorder(systemClock, 'step', Number.POSITIVE_INFINITY);

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tokenmill-steps-'));
  const modelPath = join(folder, 'model');
  expect(await benchMakeModel(['tiny-llama', '--out', modelPath])).toBe(0);
  const parsed = await parseEngineBench('steps', '', {}, [modelPath, '--backend', 'reference', '--target-itl-ms', '0']);
  if (parsed === null) throw new Error('no help was asked for');
  engine = await wireEngine({ config: parsed.config, modelPath }, { spans });
});

afterAll(async () => {
  engine?.close();
  await rm(folder, { recursive: true, force: true });
});

const LAYERS = 2;
const CASES: readonly [StepCase, args: Span['args']][] = [
  [
    { kind: 'decode', size: 3, context: 5, repeat: 4, temperature: 0 },
    { sequences: 3, promptTokens: 0, generatedTokens: 3 },
  ],
  [
    { kind: 'decode', size: 2, context: 5, repeat: 2, temperature: 1 },
    { sequences: 2, promptTokens: 0, generatedTokens: 2 },
  ],
  [
    { kind: 'prefill', size: 40, context: 5, repeat: 3, temperature: 0 },
    { sequences: 1, promptTokens: 40, generatedTokens: 1 },
  ],
];

test.each(CASES)('every step that counts is the one asked for: %j', (work, args) => {
  const recorded = recordSteps(engine, spans, work);
  expect(recorded.filter(({ depth }) => depth === 0).map((span) => span.args)).toEqual(
    Array.from({ length: work.repeat }, () => args),
  );
  const { steps, ops, outside, stepMs, outsideMs } = breakDown(recorded);
  expect(steps).toBe(work.repeat);
  expect(ops.find(({ name }) => name === 'paged_attention')?.count).toBe(LAYERS);
  expect(outside.map(({ name }) => name)).toEqual(['schedule', 'inputs', 'run, but for its ops', 'sample', 'update']);
  expect(outsideMs).toBeLessThan(stepMs);
  expect(engine.core.hasWork()).toBe(false);
});

test('medians of the sums a step; what the ops took is not outside', () => {
  const step = (runMs: number): Span[] => [
    { name: 'step', startMs: 0, endMs: runMs + 2, depth: 0, args: null, children: null },
    { name: 'inputs', startMs: 0, endMs: 0.5, depth: 1, args: null, children: null },
    {
      name: 'run',
      startMs: 0.5,
      endMs: 0.5 + runMs,
      depth: 1,
      args: null,
      children: { names: ['add', 'rope', 'add'], marksMs: Float64Array.of(0, 1, 1.5, 3) },
    },
  ];
  expect(breakDown([...step(4), ...step(5), ...step(9)])).toEqual({
    steps: 3,
    stepMs: 7,
    ops: [
      { name: 'add', count: 2, ms: 2.5 },
      { name: 'rope', count: 1, ms: 0.5 },
    ],
    outside: [
      { name: 'inputs', count: 1, ms: 0.5 },
      { name: 'run, but for its ops', count: 1, ms: 2 },
    ],
    outsideMs: 4,
  });
});
