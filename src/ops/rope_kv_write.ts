import { defineOp, type ReferenceCall } from './define_op.ts';
import { kv_write } from './kv_write.ts';
import { attr, floatInput, optionalWeight, rowsAndWidth, size, stepInput, value, weight } from './operands.ts';
import { rms_norm } from './rms_norm.ts';
import { rope } from './rope.ts';

export const rope_kv_write = defineOp({
  name: 'rope_kv_write',
  doc: 'Takes rows of queries, keys and values side by side: normalises each head of queries and keys where weights are given (Qwen3), rotates both, stores keys and values in the cache and hands out the queries. The same bits as rms_norm, rope and kv_write.',
  inputs: {
    qkv: value('T', 'H'),
    positions: stepInput('T'),
    table: weight('P', 'rotaryDim'),
    slotMapping: stepInput('T'),
    qNorm: optionalWeight('headDim'),
    kNorm: optionalWeight('headDim'),
  },
  outputs: { q: value('T', 'queries') },
  attrs: {
    queries: { type: 'int', doc: 'Width of the queries; keys and values share the rest in halves.' },
    headDim: rope.attrs.headDim,
    rotaryDim: rope.attrs.rotaryDim,
    interleaved: rope.attrs.interleaved,
    eps: { type: 'float', doc: 'Of the norms; 0 without.' },
    layer: kv_write.attrs.layer,
  },
  usesKv: true,
  check: (s) => {
    const [headDim, queries, keys] = [size(s, 'headDim'), size(s, 'queries'), (size(s, 'H') - size(s, 'queries')) / 2];
    if (queries % headDim !== 0 || keys <= 0 || keys % headDim !== 0)
      return 'queries, keys and values must be whole heads';
    return rope.check({ ...s, K: queries });
  },
  reference(call) {
    const [, positions = null, table = null, slots = null, qNorm = null, kNorm = null] = call.inputs;
    const queries = attr(call, 'queries');
    const [rows, width] = rowsAndWidth(call, 0);
    const keys = (width - queries) / 2;
    const part = (from: number, to: number) => columns(floatInput(call, 0), width, from, to);
    const rotated = (x: Float32Array, norm: typeof qNorm, y: Float32Array) => {
      if (norm !== null) rms_norm.reference({ ...call, inputs: [x, norm], outputs: [x] });
      rope.reference(matrixCall(call, [x, positions, table], [rows, x.length / rows], [y]));
    };
    rotated(part(0, queries), qNorm, call.outputs[0] as Float32Array);
    const k = part(queries, queries + keys);
    rotated(k, kNorm, k);
    kv_write.reference(matrixCall(call, [k, part(queries + keys, width), slots], [rows, keys], []));
  },
  cost: (s) => {
    const [t, h, keys] = [size(s, 'T'), size(s, 'H'), size(s, 'H') - size(s, 'queries')];
    return { bytes: t * (4 * h + 4 * size(s, 'queries') + (s['kvBytes'] ?? 4) * keys), flops: 3 * t * (h - keys / 2) };
  },
  cases: [
    {
      T: 1,
      S: 1,
      H: 192,
      queries: 64,
      kvHeads: 1,
      headDim: 64,
      rotaryDim: 64,
      interleaved: 0,
      eps: 0,
      P: 9,
      blockSize: 16,
      context: 1,
      layer: 0,
    },
    {
      T: 37,
      S: 3,
      H: 288,
      queries: 96,
      kvHeads: 4,
      headDim: 24,
      rotaryDim: 12,
      interleaved: 0,
      eps: 0,
      P: 47,
      blockSize: 16,
      context: 45,
      layer: 0,
    },
    {
      T: 19,
      S: 4,
      H: 160,
      queries: 128,
      kvHeads: 1,
      headDim: 16,
      rotaryDim: 16,
      interleaved: 1,
      eps: 1e-5,
      qNorm: 1,
      kNorm: 1,
      P: 23,
      blockSize: 8,
      context: 21,
      layer: 0,
    },
    {
      T: 5,
      S: 1,
      H: 90,
      queries: 54,
      kvHeads: 1,
      headDim: 18,
      rotaryDim: 18,
      interleaved: 0,
      eps: 1e-6,
      qNorm: 1,
      P: 9,
      blockSize: 1,
      context: 9,
      layer: 0,
    },
  ],
  // Keyed by KV dtype. A rotated key that is off by a unit in the last place may round to the other neighbour.
  tolerance: { float32: 1e-12, bfloat16: 1e-6, fp8_e4m3: 1e-5, fp8_e5m2: 1e-5, int8_per_token_head: 1e-5 },
});

/** Columns [from, to) of a matrix, copied. */
function columns(matrix: Float32Array, width: number, from: number, to: number): Float32Array {
  const rows = matrix.length / width;
  const part = new Float32Array(rows * (to - from));
  for (let t = 0; t < rows; t++) part.set(matrix.subarray(t * width + from, t * width + to), t * (to - from));
  return part;
}

function matrixCall(
  call: ReferenceCall,
  inputs: ReferenceCall['inputs'],
  shape: readonly number[],
  outputs: ReferenceCall['outputs'],
): ReferenceCall {
  return { ...call, inputs, inputShapes: [shape], outputs };
}
