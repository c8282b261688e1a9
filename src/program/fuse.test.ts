import { describe, expect, test } from 'vitest';
import { createProgramBuilder, type ProgramBuilder } from './builder.ts';
import { dumpProgram } from './dump.ts';
import { fuseProgram } from './fuse.ts';
import { planMemory } from './memory_plan.ts';
import type { Program, ValueId } from './program.ts';

const [HIDDEN, QUERIES, KEYS, HEAD] = [8, 8, 4, 4];

interface Options {
  /** Which of q, k, v have a bias. */
  readonly biases?: readonly boolean[];
  readonly headNorms?: boolean;
  /** Another reader of a value that fusing would take away. */
  readonly spy?: 'gate' | 'k' | 'q_rope';
}

function project(b: ProgramBuilder, x: ValueId, name: string, outputs: number, inputs: number, bias = false): ValueId {
  const weight = b.weight({ name: `${name}.weight`, role: 'linear', shape: [outputs, inputs] });
  return b.linear({
    x,
    weight,
    name,
    ...(bias ? { bias: b.weight({ name: `${name}.bias`, role: 'vector', shape: [outputs] }) } : {}),
  });
}

/** One layer of a decoder, in the order in which families record it. */
function layer({ biases = [false, false, false], headNorms = false, spy }: Options = {}): Program {
  const b = createProgramBuilder();
  const vector = (name: string, size: number) => b.weight({ name, role: 'vector', shape: [size] });
  const x = b.embedding({ weight: b.weight({ name: 'embed', role: 'embedding', shape: [10, HIDDEN] }), name: 'x' });
  const table = b.table('angles', [16, HEAD], () => new Float32Array());
  const normed = b.rmsNorm({ x, weight: vector('norm', HIDDEN), eps: 1e-6, name: 'normed' });
  const [q, k, v] = (['q', 'k', 'v'] as const).map((name, i) =>
    project(b, normed, `${name}_proj`, name === 'q' ? QUERIES : KEYS, HIDDEN, biases[i]),
  ) as [ValueId, ValueId, ValueId];
  const head = (heads: ValueId, name: string) =>
    headNorms
      ? b.rmsNorm({ x: heads, weight: vector(`${name}_norm`, HEAD), eps: 1e-5, name: `${name}_normed` })
      : heads;
  const turn = { table, headDim: HEAD, rotaryDim: HEAD, interleaved: 0 };
  const turned = b.rope({ x: head(q, 'q'), ...turn, name: 'q_rope' });
  b.kvWrite({ k: b.rope({ x: head(k, 'k'), ...turn, name: 'k_rope' }), v, layer: 0 });
  const shape = { layer: 0, heads: 2, kvHeads: 1, headDim: HEAD, scale: 0.5, window: 0, softcap: 0 };
  const mixed = project(b, b.pagedAttention({ q: turned, ...shape, name: 'mixed' }), 'o_proj', HIDDEN, QUERIES);
  const residual = b.add({ a: x, b: mixed, name: 'residual' });
  const second = b.rmsNorm({ x: residual, weight: vector('norm2', HIDDEN), eps: 1e-6, name: 'second' });
  const gate = project(b, second, 'gate', 12, HIDDEN, biases[0]);
  const up = project(b, second, 'up', 12, HIDDEN);
  const act = b.siluMul({ gate, up, name: 'act' });
  let out = b.add({ a: residual, b: project(b, act, 'down', HIDDEN, 12), name: 'out' });
  if (spy === 'gate') out = b.add({ a: out, b: project(b, gate, 'spy', HIDDEN, 12), name: 'spied' });
  if (spy === 'k') out = b.add({ a: out, b: project(b, k, 'spy', HIDDEN, KEYS), name: 'spied' });
  if (spy === 'q_rope') out = b.add({ a: out, b: project(b, turned, 'spy', HIDDEN, QUERIES), name: 'spied' });
  const last = b.gatherRows({ x: out, name: 'last' });
  return b.finish(project(b, last, 'logits', 10, HIDDEN), { layers: 1, kvHeads: 1, headDim: HEAD });
}

const opsOf = (program: Program) => program.calls.map(({ op }) => op);

test('a layer becomes nine calls', () => {
  expect(dumpProgram(fuseProgram(layer()))).toBe(
    [
      'x [T, 8] = embedding(tokenIds, embed)',
      'normed [T, 8] = rms_norm(x, norm) {eps=0.000001}',
      '{q,k,v}_proj [T, 16] = linear(normed, {q,k,v}_proj.weight, -)',
      'q_rope [T, 8] = rope_kv_write({q,k,v}_proj, positions, angles, slotMapping, -, -) {queries=8, headDim=4, rotaryDim=4, interleaved=0, eps=0, layer=0}',
      'mixed [T, 8] = paged_attention(q_rope, -, -) {layer=0, heads=2, kvHeads=1, headDim=4, scale=0.5, window=0, softcap=0}',
      'o_proj [T, 8] = linear(mixed, o_proj.weight, -)',
      'residual [T, 8], second [T, 8] = add_rms_norm(x, o_proj, norm2) {eps=0.000001}',
      'act [T, 12], up [T, 12] = linear_silu_mul(second, gate.weight, up.weight, -, -)',
      'down [T, 8] = linear(act, down.weight, -)',
      'out [T, 8] = add(residual, down)',
      'last [R, 8] = gather_rows(out, logitRows)',
      'logits [R, 10] = linear(last, logits.weight, -)',
    ].join('\n'),
  );
});

test('weights are joined in their order, with their tensors and biases', () => {
  const { weights, values } = fuseProgram(layer({ biases: [true, true, true] }));
  const joined = weights.filter(({ tensors }) => tensors.length > 1);
  expect(joined.map(({ name, shape, tensors, role }) => ({ name, shape, tensors, role }))).toEqual([
    {
      name: '{q,k,v}_proj.weight',
      shape: [16, 8],
      tensors: ['q_proj.weight', 'k_proj.weight', 'v_proj.weight'],
      role: 'linear',
    },
    { name: '{q,k,v}_proj.bias', shape: [16], tensors: ['q_proj.bias', 'k_proj.bias', 'v_proj.bias'], role: 'vector' },
  ]);
  for (const { value, name } of weights) expect(values[value]?.name).toBe(name);
});

test('per-head norms go with the rotation', () => {
  const call = fuseProgram(layer({ headNorms: true })).calls.find(({ op }) => op === 'rope_kv_write');
  expect(call?.attrs['eps']).toBe(1e-5);
  expect(call?.inputs.slice(-2).every((id) => id >= 0)).toBe(true);
});

describe('what is read elsewhere too, or does not match, stays', () => {
  test.each([
    [{ spy: 'gate' }, 'silu_mul'],
    [{ spy: 'k' }, 'kv_write'],
    [{ spy: 'q_rope' }, 'kv_write'],
    [{ biases: [true, false, true] }, 'kv_write'],
  ] as const)('%o', (options, stays) => {
    const fused = fuseProgram(layer(options));
    expect(opsOf(fused)).toContain(stays);
    expect(opsOf(fused)).toContain('add_rms_norm');
  });
});

test('fusing again changes nothing, and the plan has a place for every temporary', () => {
  const fused = fuseProgram(layer({ headNorms: true }));
  expect(fuseProgram(fused)).toEqual(fused);
  const { offsets } = planMemory(fused, { T: 5, S: 1, R: 1 });
  for (const { id, kind } of fused.values) if (kind === 'temporary') expect(offsets[id]).toBeGreaterThanOrEqual(0);
});
