import { expect, test } from 'vitest';
import { Rng } from '../base/rng.ts';
import { opByName } from '../ops/index.ts';
import { createProgramBuilder } from './builder.ts';
import { elementCount, planMemory } from './memory_plan.ts';
import type { Program, ValueId } from './program.ts';

const SIZES = { T: 5, S: 1, R: 2 };

/** A random net over values of several widths; every value may be read again much later, or never. */
function randomProgram(rng: Rng): Program {
  const b = createProgramBuilder();
  const widths = [16, 32, 48];
  const values: { id: ValueId; width: number }[] = [];
  let weights = 0;
  const weight = (shape: number[], role: 'linear' | 'vector' | 'embedding') =>
    b.weight({ name: `w${weights++}`, role, shape });
  values.push({ id: b.embedding({ weight: weight([9, 16], 'embedding') }), width: 16 });
  for (let i = 0; i < 30; i++) {
    const x = rng.pick(values);
    const same = rng.pick(values.filter(({ width }) => width === x.width));
    const outputs = rng.pick(widths);
    const id = [
      () => b.add({ a: x.id, b: same.id }),
      () => b.siluMul({ gate: x.id, up: same.id }),
      () => b.rmsNorm({ x: x.id, weight: weight([x.width], 'vector'), eps: 1e-6 }),
    ];
    if (rng.next() < 0.4)
      values.push({ id: b.linear({ x: x.id, weight: weight([outputs, x.width], 'linear') }), width: outputs });
    else values.push({ id: rng.pick(id)(), width: x.width });
  }
  const last = values[values.length - 1] as { id: ValueId; width: number };
  const logits = b.linear({ x: b.gatherRows({ x: last.id }), weight: weight([9, last.width], 'linear') });
  return b.finish(logits, { layers: 1, kvHeads: 1, headDim: 2 });
}

test('whatever the program, a value is whole whenever it is read', () => {
  for (let seed = 0; seed < 300; seed++) {
    const program = randomProgram(new Rng(seed));
    const { offsets, bytes } = planMemory(program, SIZES);
    const owner = new Int32Array(bytes / 4).fill(-1);
    const region = (id: ValueId) => {
      const start = (offsets[id] as number) / 4;
      return owner.subarray(start, start + elementCount(program.values[id]?.shape ?? [], SIZES));
    };
    const temporary = (id: ValueId) => program.values[id]?.kind === 'temporary';
    for (const call of program.calls) {
      for (const id of call.inputs.filter(temporary)) {
        expect(
          region(id).every((by) => by === id),
          `seed ${seed}: ${call.op} reads ${id}`,
        ).toBe(true);
      }
      for (const id of call.outputs) region(id).fill(id);
      // An op may write over its first input at most, and only when its row says so.
      const kept = call.inputs.filter((id) => temporary(id) && !(opByName(call.op).inplace && id === call.inputs[0]));
      for (const id of kept)
        expect(
          region(id).every((by) => by === id),
          `seed ${seed}: ${call.op} spoils ${id}`,
        ).toBe(true);
    }
    expect(region(program.logits).every((by) => by === program.logits)).toBe(true);
  }
});
