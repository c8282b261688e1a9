/** Two backends run one step op by op; the first op whose output differs is named. */
import type { LoadedModel } from '../backends/backend.ts';
import type { StepInputs } from '../ops/define_op.ts';
import type { Program } from '../program/program.ts';

export interface FirstDifference {
  /** Index into the program's calls. */
  readonly call: number;
  readonly op: string;
  /** Name of the output value, e.g. `model.layers.0.self_attn.q_proj`. */
  readonly value: string;
  /** Normalised mean square error of the op's output. */
  readonly nmse: number;
  readonly bound: number;
}

/** `bound`: largest normalised mean square error that still counts as equal. Null when no op exceeds it. */
export function firstDifference(
  program: Program,
  reference: LoadedModel,
  model: LoadedModel,
  step: StepInputs,
  bound: number,
): FirstDifference | null {
  const expected: Float32Array[][] = [];
  reference.trace(step, (_call, outputs) => {
    expected.push(outputs.map((output) => output.slice()));
  });
  let found: FirstDifference | null = null;
  model.trace(step, (call, outputs) => {
    for (const [i, output] of outputs.entries()) {
      const nmse = normalisedError(expected[call]?.[i] ?? new Float32Array(), output);
      if (found !== null || nmse <= bound) continue;
      const { op, outputs: ids } = program.calls[call] ?? { op: '?', outputs: [] };
      found = { call, op, value: program.values[ids[i] ?? -1]?.name ?? '?', nmse, bound };
    }
  });
  return found;
}

/** sum((a - e)^2) / sum(e^2); NaN when anything is. */
export function normalisedError(expected: Float32Array, actual: Float32Array): number {
  let [error, power] = [0, 0];
  for (let i = 0; i < expected.length; i++) {
    error += ((actual[i] ?? Number.NaN) - (expected[i] as number)) ** 2;
    power += (expected[i] as number) ** 2;
  }
  return error === 0 ? 0 : error / power;
}
