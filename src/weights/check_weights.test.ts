import { expect, test } from 'vitest';
import type { TensorSource } from '../backends/backend.ts';
import { createProgramBuilder } from '../program/builder.ts';
import { checkWeights, noteUnread } from './check_weights.ts';

function program() {
  const b = createProgramBuilder();
  const x = b.embedding({ weight: b.weight({ name: 'model.embed_tokens.weight', role: 'embedding', shape: [10, 4] }) });
  const qkv = b.weight({ name: 'qkv', role: 'linear', shape: [8, 4], tensors: ['q.weight', 'k.weight'] });
  b.linear({ x, weight: qkv });
  const rows = b.gatherRows({ x });
  const logits = b.linear({ x: rows, weight: b.weight({ name: 'lm_head.weight', role: 'linear', shape: [10, 4] }) });
  return b.finish(logits, { layers: 1, kvHeads: 1, headDim: 4 });
}

function tensors(changes: Record<string, Partial<TensorSource> | null> = {}): Map<string, TensorSource> {
  const shapes = {
    'model.embed_tokens.weight': [10, 4],
    'q.weight': [6, 4],
    'k.weight': [2, 4],
    'lm_head.weight': [10, 4],
  };
  const map = new Map<string, TensorSource>();
  for (const [name, shape] of Object.entries(shapes)) {
    const change = changes[name];
    if (change !== null) map.set(name, { name, dtype: 'BF16', shape, path: '', offset: 0, byteLength: 0, ...change });
  }
  return map;
}

test('a checkpoint that fits passes', () => {
  expect(() => checkWeights(program(), tensors())).not.toThrow();
});

test('what does not fit is named, with what was expected and found', () => {
  const error = (changes: Parameters<typeof tensors>[0]) => {
    try {
      checkWeights(program(), tensors(changes));
    } catch (thrown) {
      return (thrown as Error).message;
    }
    return 'no error';
  };
  expect(error({ 'lm_head.weight': null })).toMatch(/lm_head.weight \[10,4\] is missing.*"tie_word_embeddings": true/);
  expect(error({ 'q.weight': null })).toMatch(/q.weight .* is missing .*nearest name is k.weight/);
  expect(error({ 'q.weight': { shape: [5, 4] } })).toBe(
    'Tensors q.weight, k.weight have 7 rows together; qkv needs 8.',
  );
  expect(error({ 'k.weight': { shape: [2, 5] } })).toContain('k.weight has shape [2,5]; config.json asks for [8,4]');
  expect(error({ 'k.weight': { shape: [8] } })).toContain('k.weight has shape [8]');
  expect(error({ 'model.embed_tokens.weight': { shape: [12, 4] } })).toContain(
    "vocab_size is 10, the checkpoint's vocabulary 12",
  );
  expect(error({ 'q.weight': { dtype: 'F8_E4M3' } })).toBe(
    'Tensor q.weight is stored as F8_E4M3. Weights must be F32, F16, BF16.',
  );
});

test('tensors that nothing reads are named, and scales of FP8 keys and values with what is used instead', () => {
  const held = tensors();
  const add = (name: string) => held.set(name, { name, dtype: 'F32', shape: [], path: '', offset: 0, byteLength: 4 });
  expect(noteUnread(program(), held, 'fp8_e4m3')).toBeNull();
  add('model.layers.0.self_attn.rotary_emb.inv_freq');
  expect(noteUnread(program(), held, 'fp8_e4m3')).toBeNull();
  for (const layer of [0, 1])
    for (const part of ['k', 'v']) add(`layers.${layer}.self_attn.${part}_proj.${part}_scale`);
  const names =
    'layers.0.self_attn.k_proj.k_scale, layers.0.self_attn.v_proj.v_scale, layers.1.self_attn.k_proj.k_scale';
  const all = `Nothing reads ${names} and 1 more of the checkpoint.`;
  expect(noteUnread(program(), held, 'bfloat16')).toBe(all);
  expect(noteUnread(program(), held, 'fp8_e4m3')).toBe(
    `${all} The fp8_e4m3 KV cache has scale 1, not the checkpoint's (${names} and 1 more).`,
  );
});
