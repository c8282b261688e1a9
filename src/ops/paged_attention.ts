import type { ReferenceCall } from './define_op.ts';
import { defineOp } from './define_op.ts';
import { attr, floatInput, floatOutput, kvOf, optionalInput, optionalWeight, size, value } from './operands.ts';

export const paged_attention = defineOp({
  name: 'paged_attention',
  doc: 'softmax(scale q k^T) v over the KV cache through block tables; causal by absolute position; one op for prefill, chunk and decode. Key j is visible to query i iff j <= i and (window = 0 or i - j < window). slopes: each score gets slope (j - i) after the soft cap (ALiBi, Press et al., 2022). sinks: a logit per head that takes part in the softmax and has no value (Xiao et al., 2024).',
  inputs: { q: value('T', 'Q'), sinks: optionalWeight('heads'), slopes: optionalWeight('heads') },
  outputs: { y: value('T', 'Q') },
  attrs: {
    layer: { type: 'int', doc: 'KV layer.' },
    heads: { type: 'int', doc: 'Query heads; a multiple of kvHeads (grouped-query attention).' },
    kvHeads: { type: 'int', doc: 'Key and value heads.' },
    headDim: { type: 'int', doc: 'Elements of one head.' },
    scale: { type: 'float', doc: 'Factor on q k^T.' },
    window: { type: 'int', doc: 'Keys a query sees, itself included; 0 = all.' },
    softcap: { type: 'float', doc: 's = softcap tanh(s / softcap) before the softmax; 0 = off.' },
  },
  usesKv: true,
  check: (s) => {
    if (size(s, 'heads') % size(s, 'kvHeads') !== 0) return 'heads must be a multiple of kvHeads';
    return size(s, 'Q') === size(s, 'heads') * size(s, 'headDim') ? null : 'Q must be heads * headDim';
  },
  reference(call) {
    const { queryStarts, positions, sizes } = kvOf(call).step;
    for (let s = 0; s < sizes.S; s++) {
      for (let t = queryStarts[s] as number; t < (queryStarts[s + 1] as number); t++) {
        for (let head = 0; head < attr(call, 'heads'); head++) attend(call, s, t, positions[t] as number, head);
      }
    }
  },
  cost: (s) => {
    const keys = size(s, 'T') * size(s, 'context') * size(s, 'headDim');
    return {
      bytes: 2 * size(s, 'S') * size(s, 'context') * size(s, 'kvHeads') * size(s, 'headDim') * (s['kvBytes'] ?? 4),
      flops: 4 * keys * size(s, 'heads'),
    };
  },
  cases: [
    { ...shape(1, 1, 64), T: 1, S: 1, context: 1, window: 0, softcap: 0 },
    { ...shape(4, 2, 32), T: 1, S: 1, context: 77, window: 0, softcap: 0 },
    { ...shape(3, 3, 24), T: 13, S: 1, context: 13, window: 0, softcap: 0 },
    { ...shape(6, 2, 40), T: 9, S: 1, context: 50, window: 0, softcap: 0 },
    { ...shape(8, 1, 16), T: 41, S: 5, context: 70, window: 0, softcap: 0 },
    { ...shape(4, 4, 20), T: 23, S: 3, context: 90, window: 17, softcap: 0 },
    { ...shape(4, 2, 128), T: 6, S: 2, context: 200, window: 1, softcap: 0 },
    { ...shape(6, 3, 64), T: 19, S: 2, context: 300, window: 33, softcap: 5 },
    { ...shape(2, 1, 80), T: 5, S: 5, context: 150, window: 0, softcap: 2.5, blockSize: 8 },
    { ...shape(4, 2, 48), T: 33, S: 4, context: 64, window: 0, softcap: 0, blockSize: 32 },
    { ...shape(8, 1, 96), T: 7, S: 2, context: 620, window: 0, softcap: 0 },
    { ...shape(4, 1, 64), T: 3, S: 1, context: 1100, window: 600, softcap: 0, blockSize: 8 },
    { ...shape(6, 2, 64), T: 11, S: 3, context: 90, window: 0, softcap: 0, slopes: 1 },
    { ...shape(4, 2, 33), T: 21, S: 2, context: 530, window: 40, softcap: 6, sinks: 1, slopes: 1 },
    { ...shape(8, 1, 128), T: 9, S: 2, context: 40, window: 0, softcap: 0, sinks: 1 },
  ],
  // Keyed by KV dtype; keys and values are rounded alike on both sides. AMX also rounds queries and weights to bf16, as for linears.
  tolerance: { float32: 1e-11, bfloat16: 1e-5, fp8_e4m3: 1e-11, fp8_e5m2: 1e-11, int8_per_token_head: 1e-11 },
});

function shape(heads: number, kvHeads: number, headDim: number) {
  const scale = 1 / Math.sqrt(headDim);
  return { heads, kvHeads, headDim, Q: heads * headDim, KV: kvHeads * headDim, scale, layer: 0, blockSize: 16 };
}

/** One query head of token `t` at absolute position `position` of sequence `s`. */
function attend(call: ReferenceCall, s: number, t: number, position: number, head: number): void {
  const kv = kvOf(call);
  const { blockTables, maxBlocksPerSeq } = kv.step;
  const [layer, window, cap] = [attr(call, 'layer'), attr(call, 'window'), attr(call, 'softcap')];
  const [heads, kvHeads, dim] = [attr(call, 'heads'), attr(call, 'kvHeads'), attr(call, 'headDim')];
  const [keys, values] = [kv.keys[layer] as Float32Array, kv.values[layer] as Float32Array];
  const q = floatInput(call, 0);
  const y = floatOutput(call, 0);
  const row = (t * heads + head) * dim;
  const kvHead = Math.floor(head / (heads / kvHeads));
  const first = window > 0 ? Math.max(0, position - window + 1) : 0;
  const rowOf = (j: number): number => {
    const block = blockTables[s * maxBlocksPerSeq + Math.floor(j / kv.blockSize)] as number;
    return ((block * kv.blockSize + (j % kv.blockSize)) * kvHeads + kvHead) * dim;
  };
  const sink = optionalInput(call, 1)?.[head] ?? Number.NEGATIVE_INFINITY;
  const slope = optionalInput(call, 2)?.[head] ?? 0;
  const scores = new Float64Array(position - first + 1);
  let max = sink;
  for (let j = first; j <= position; j++) {
    const key = rowOf(j);
    let dot = 0;
    for (let d = 0; d < dim; d++) dot += (q[row + d] as number) * (keys[key + d] as number);
    dot *= attr(call, 'scale');
    if (cap > 0) dot = cap * Math.tanh(dot / cap);
    dot += slope * (j - position);
    scores[j - first] = dot;
    max = Math.max(max, dot);
  }
  const sums = new Float64Array(dim);
  let total = Math.exp(sink - max);
  for (let j = first; j <= position; j++) {
    const weight = Math.exp((scores[j - first] as number) - max);
    const from = rowOf(j);
    total += weight;
    for (let d = 0; d < dim; d++) sums[d] = (sums[d] as number) + weight * (values[from + d] as number);
  }
  for (let d = 0; d < dim; d++) y[row + d] = (sums[d] as number) / total;
}
