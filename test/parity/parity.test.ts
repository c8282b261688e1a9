/** Every op of the table, on every backend and ISA level, for every case and storage type, against its reference. */
import { describe, expect, test } from 'vitest';
import type { OpRun } from '../../src/backends/backend.ts';
import { normalisedError } from '../../src/cli/verify_trace.ts';
import { OP_NAMES, opByName } from '../../src/ops/index.ts';
import { cpuTargets, reference } from './backends.ts';
import { makeRun, storageOf } from './op_inputs.ts';

const SEEDS = [1, 2];

/** As `normalisedError`, over what is not NaN in both: untouched cache slots hold NaN on purpose. */
function cacheError(expected: Float32Array, actual: Float32Array): number {
  const known = expected.map((value, i) => (Number.isNaN(value) && Number.isNaN(actual[i]) ? 0 : value));
  return normalisedError(
    known,
    actual.map((value, i) => (Number.isNaN(value) && Number.isNaN(expected[i]) ? 0 : value)),
  );
}

function check(run: OpRun, bound: number, isa: string, backend: (typeof cpuTargets)[number]['backend']): void {
  const expected = reference.runOp(run);
  const actual = backend.runOp({ ...run, isa });
  for (const [i, output] of expected.outputs.entries()) {
    expect(normalisedError(output, actual.outputs[i] as Float32Array)).toBeLessThanOrEqual(bound);
  }
  if (expected.kv === null) return;
  expect(actual.kv).not.toBeNull();
  for (const name of ['keys', 'values'] as const) {
    expect(cacheError(expected.kv[name], (actual.kv as NonNullable<typeof actual.kv>)[name])).toBeLessThanOrEqual(
      bound,
    );
  }
}

test('there is a machine to test', () => {
  expect(cpuTargets.length).toBeGreaterThan(0);
});

describe.each(cpuTargets)('$name', ({ backend, isa }) => {
  describe.each(OP_NAMES)('%s', (name) => {
    const op = opByName(name);
    for (const [key, bound] of Object.entries(op.tolerance)) {
      test.each(op.cases.map((sizes) => [JSON.stringify(sizes), sizes] as const))(`${key} %s`, (_label, sizes) => {
        for (const seed of SEEDS) check(makeRun(op, sizes, storageOf(op, key), seed), bound, isa, backend);
      });
    }
  });
});
