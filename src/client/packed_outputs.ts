/**
 * A step's outputs on their way from the engine's thread. Copying an object to another thread costs a look-up of every name
 * in it, on both sides; most outputs are one token in the middle of an answer and go as a row of numbers instead.
 */
import type { PrefixCacheReset, RequestOutput, StepOutputs } from '../engine/types.ts';

export interface PackedOutputs {
  /** Of the plain outputs. */
  readonly ids: readonly string[];
  /** {@link NUMBERS} for each of them. */
  readonly numbers: Float64Array;
  /** All others, and after how many of the plain ones each comes. */
  readonly others: readonly RequestOutput[];
  readonly othersAfter: readonly number[];
  readonly prefixCacheResets: readonly PrefixCacheReset[];
  readonly stats: StepOutputs['stats'];
}

/** Token id, cached tokens, then the four of RequestTiming. */
const NUMBERS = 6;

/** One token and nothing else that is new. */
function isPlain(output: RequestOutput): boolean {
  const { newTokenIds, logprobs, promptLogprobs, finishReason, error } = output;
  return (
    newTokenIds.length === 1 && logprobs === null && promptLogprobs === null && finishReason === null && error === null
  );
}

export function packOutputs({ outputs, prefixCacheResets, stats }: StepOutputs): PackedOutputs {
  const ids: string[] = [];
  const others: RequestOutput[] = [];
  const othersAfter: number[] = [];
  const numbers = new Float64Array(outputs.length * NUMBERS);
  for (const output of outputs) {
    if (!isPlain(output)) {
      others.push(output);
      othersAfter.push(ids.length);
      continue;
    }
    const { scheduledMs, firstTokenMs, lastTokenMs, preemptions } = output.timing;
    const at = ids.length * NUMBERS;
    numbers[at] = output.newTokenIds[0] as number;
    numbers[at + 1] = output.cachedTokens;
    numbers[at + 2] = scheduledMs;
    numbers[at + 3] = firstTokenMs;
    numbers[at + 4] = lastTokenMs;
    numbers[at + 5] = preemptions;
    ids.push(output.id);
  }
  return { ids, numbers, others, othersAfter, prefixCacheResets, stats };
}

export function unpackOutputs(packed: PackedOutputs): StepOutputs {
  const { ids, others, othersAfter, prefixCacheResets, stats } = packed;
  const outputs: RequestOutput[] = [];
  let next = 0;
  for (let i = 0; i <= ids.length; i++) {
    while (next < others.length && othersAfter[next] === i) outputs.push(others[next++] as RequestOutput);
    if (i < ids.length) outputs.push(plainOutput(packed, i));
  }
  return { outputs, prefixCacheResets, stats };
}

function plainOutput({ ids, numbers }: PackedOutputs, i: number): RequestOutput {
  const at = (field: number) => numbers[i * NUMBERS + field] as number;
  return {
    id: ids[i] as string,
    newTokenIds: [at(0)],
    logprobs: null,
    promptLogprobs: null,
    finishReason: null,
    stopTokenId: null,
    cachedTokens: at(1),
    error: null,
    timing: { scheduledMs: at(2), firstTokenMs: at(3), lastTokenMs: at(4), preemptions: at(5) },
  };
}
