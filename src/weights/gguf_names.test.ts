import { expect, test } from 'vitest';
import { Rng } from '../base/rng.ts';
import { rope } from '../ops/rope.ts';
import { ggufName, interleaveHeads } from './gguf_names.ts';

test('tensor names', () => {
  expect(ggufName('model.layers.12.self_attn.q_proj.bias')).toBe('blk.12.attn_q.bias');
  expect(ggufName('lm_head.weight')).toBe('output.weight');
  expect(() => ggufName('model.layers.0.mlp.experts.0.w1.weight')).toThrow('no counterpart');
});

test('rotating neighbours after interleaving is rotating halves before it', () => {
  const rng = new Rng(1);
  const [heads, headDim] = [3, 8];
  const x = Float32Array.from({ length: heads * headDim }, () => rng.normal());
  const table = Float32Array.from({ length: headDim }, () => rng.normal());
  const rotate = (input: Float32Array, interleaved: number) => {
    const y = new Float32Array(input.length);
    rope.reference({
      inputs: [input, Int32Array.of(0), table],
      inputShapes: [[1, input.length], [1], [1, headDim]],
      outputs: [y],
      outputShapes: [[1, input.length]],
      attrs: { headDim, rotaryDim: headDim, interleaved },
      sizes: { T: 1, S: 1, R: 1 },
      kv: null,
    });
    return y;
  };
  const interleave = (data: Float32Array) =>
    new Float32Array(interleaveHeads(new Uint8Array(data.buffer), heads, 4).buffer);
  expect(rotate(interleave(x), 1)).toEqual(interleave(rotate(x, 0)));
});
