import { defineOp } from './define_op.ts';
import { attr, floatInput, intInput, kvOf, rowsAndWidth, size, stepInput, value } from './operands.ts';

export const kv_write = defineOp({
  name: 'kv_write',
  doc: "Stores each token's key and value in its slot of the layer's KV cache, rounded to the cache's type.",
  inputs: { k: value('T', 'KV'), v: value('T', 'KV'), slotMapping: stepInput('T') },
  outputs: {},
  attrs: { layer: { type: 'int', doc: 'KV layer.' } },
  usesKv: true,
  reference(call) {
    const kv = kvOf(call);
    const slots = intInput(call, 2);
    const [rows, width] = rowsAndWidth(call, 0);
    const layer = attr(call, 'layer');
    for (const [input, cache] of [kv.keys[layer], kv.values[layer]].entries()) {
      const source = floatInput(call, input);
      for (let t = 0; t < rows; t++) {
        cache?.set(kv.round(source.slice(t * width, (t + 1) * width)), (slots[t] as number) * width);
      }
    }
  },
  cost: (s) => ({ bytes: 2 * size(s, 'T') * size(s, 'KV') * (4 + (s['kvBytes'] ?? 4)), flops: 0 }),
  cases: [
    { T: 1, S: 1, KV: 64, kvHeads: 1, headDim: 64, blockSize: 16, context: 1, layer: 0 },
    { T: 37, S: 3, KV: 90, kvHeads: 5, headDim: 18, blockSize: 16, context: 45, layer: 0 },
    { T: 19, S: 4, KV: 48, kvHeads: 3, headDim: 16, blockSize: 8, context: 21, layer: 0 },
    { T: 5, S: 1, KV: 34, kvHeads: 2, headDim: 17, blockSize: 1, context: 9, layer: 0 },
    { T: 40, S: 2, KV: 160, kvHeads: 2, headDim: 80, blockSize: 32, context: 35, layer: 0 },
  ],
  // Keyed by KV dtype; the reference rounds alike.
  tolerance: { float32: 0, bfloat16: 0, fp8_e4m3: 0, fp8_e5m2: 0, int8_per_token_head: 0 },
});
