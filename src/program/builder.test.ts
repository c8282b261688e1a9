import { expect, test } from 'vitest';
import { createProgramBuilder } from './builder.ts';
import { dumpProgram } from './dump.ts';
import { planMemory } from './memory_plan.ts';

const KV = { layers: 1, kvHeads: 1, headDim: 4 };

function mlp() {
  const b = createProgramBuilder();
  const table = b.weight({ name: 'embed', role: 'embedding', shape: [10, 4] });
  const x = b.embedding({ weight: table, name: 'x' });
  const normed = b.rmsNorm({
    x,
    weight: b.weight({ name: 'norm', role: 'vector', shape: [4] }),
    eps: 1e-6,
    name: 'normed',
  });
  const up = b.linear({ x: normed, weight: b.weight({ name: 'up', role: 'linear', shape: [8, 4] }), name: 'u' });
  const gate = b.linear({ x: normed, weight: b.weight({ name: 'gate', role: 'linear', shape: [8, 4] }), name: 'g' });
  const act = b.siluMul({ gate, up, name: 'act' });
  const down = b.linear({ x: act, weight: b.weight({ name: 'down', role: 'linear', shape: [4, 8] }), name: 'd' });
  const y = b.gatherRows({ x: b.add({ a: x, b: down, name: 'sum' }), name: 'last' });
  const logits = b.linear({ x: y, weight: b.weight({ name: 'head', role: 'linear', shape: [10, 4] }), name: 'logits' });
  return b.finish(logits, KV);
}

test('records calls in order and dumps them as text', () => {
  expect(dumpProgram(mlp())).toBe(
    [
      'x [T, 4] = embedding(tokenIds, embed)',
      'normed [T, 4] = rms_norm(x, norm) {eps=0.000001}',
      'u [T, 8] = linear(normed, up, -)',
      'g [T, 8] = linear(normed, gate, -)',
      'act [T, 8] = silu_mul(g, u)',
      'd [T, 4] = linear(act, down, -)',
      'sum [T, 4] = add(x, d)',
      'last [R, 4] = gather_rows(sum, logitRows)',
      'logits [R, 10] = linear(last, head, -)',
    ].join('\n'),
  );
});

test('a shape that does not fit names op, operand and both sizes', () => {
  const b = createProgramBuilder();
  const x = b.embedding({ weight: b.weight({ name: 'embed', role: 'embedding', shape: [10, 4] }) });
  const weight = b.weight({ name: 'w', role: 'linear', shape: [8, 5] });
  expect(() => b.linear({ x, weight })).toThrow('dimension K of weight (w) is 5, but 4 elsewhere');
  expect(() => b.linear({ x: weight, weight })).toThrow('x must be a temporary, w is a weight');
  const norm = b.weight({ name: 'n', role: 'vector', shape: [3] });
  expect(() => b.rmsNorm({ x, weight: norm, eps: 1e-6 })).toThrow('K must be a multiple of D');
  expect(() => b.rmsNorm({ x, weight: norm, eps: Number.NaN })).toThrow('attribute eps must be a finite number');
  expect(() => b.weight({ name: 'w', role: 'linear', shape: [1, 1] })).toThrow('two values are named w');
});

test('values that live at the same time never share memory; in-place ops reuse their input', () => {
  const program = mlp();
  const { offsets, bytes } = planMemory(program, { T: 100, S: 4, R: 3 });
  const at = (name: string): number => offsets[program.values.find((value) => value.name === name)!.id]!;
  expect(at('act')).toBe(at('g'));
  expect(at('sum')).toBe(at('x'));
  expect(at('embed')).toBe(-1);
  const sizes = new Map(
    program.values.map((value) => [value.id, (value.shape[0] === 'T' ? 100 : 3) * (value.shape[1] as number) * 4]),
  );
  // x outlives everything up to `sum`, so nothing computed in between may touch it.
  for (const name of ['normed', 'u', 'g', 'd']) {
    const id = program.values.find((value) => value.name === name)!.id;
    const apart = at(name) >= at('x') + 1600 || at(name) + sizes.get(id)! <= at('x');
    expect(apart, name).toBe(true);
  }
  for (const offset of offsets) expect(offset < 0 || offset % 64 === 0).toBe(true);
  expect(bytes).toBeLessThan(2 * 3200 + 2 * 1600 + 64);
});
