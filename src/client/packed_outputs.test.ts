import { expect, test } from 'vitest';
import { Rng } from '../base/rng.ts';
import type { RequestOutput, StepOutputs } from '../engine/types.ts';
import { packOutputs, unpackOutputs } from './packed_outputs.ts';

function randomOutput(rng: Rng, i: number): RequestOutput {
  const rare = <T>(value: T): T | null => (rng.next() < 0.1 ? value : null);
  const list = { tokenIds: [1, 2], logprobs: [-0.5, Number.NEGATIVE_INFINITY], ranks: [1, 2] };
  const finishReason = rare(rng.pick(['stop', 'length', 'abort', 'error'] as const));
  return {
    id: `request-${i}#é`,
    newTokenIds: rng.next() < 0.1 ? [] : [rng.int(0, 2 ** 31 - 1)],
    logprobs: rare([list]),
    promptLogprobs: rare([null, list]),
    finishReason,
    stopTokenId: finishReason === 'stop' ? rare(7) : null,
    cachedTokens: rng.int(0, 100),
    error: rare({ code: 'internal' as const, message: 'm', param: null }),
    timing: { scheduledMs: rng.next() * 1e12, firstTokenMs: 0.1 + rng.next(), lastTokenMs: rng.next(), preemptions: i },
  };
}

test('whatever a step puts out arrives in its order and to the bit', () => {
  const rng = new Rng(2);
  for (let round = 0; round < 200; round++) {
    const step: StepOutputs = {
      outputs: Array.from({ length: rng.int(0, 12) }, (_, i) => randomOutput(rng, i)),
      prefixCacheResets: rng.next() < 0.5 ? [] : [{ token: 3, ok: true }],
      stats: {
        numRunning: 1,
        numWaiting: 2,
        kvUsage: 0.3,
        prefixQueries: 4,
        prefixHits: 5,
        preemptions: 6,
        promptTokens: 7,
        generatedTokens: 8,
        tokenBudget: 9,
        stepMs: 10.5,
      },
    };
    expect(unpackOutputs(structuredClone(packOutputs(step)))).toEqual(step);
  }
});

test('a step of plain outputs crosses without objects of its own', () => {
  const rng = new Rng(3);
  const plain = { logprobs: null, promptLogprobs: null, finishReason: null, stopTokenId: null, error: null };
  const outputs = [0, 1, 2].map((i) => ({ ...randomOutput(rng, i), newTokenIds: [i], ...plain }));
  const packed = packOutputs({ outputs, prefixCacheResets: [], stats: {} as StepOutputs['stats'] });
  expect(packed.ids).toHaveLength(3);
  expect(packed.others).toHaveLength(0);
});
