import { defineOp } from './define_op.ts';
import { linear } from './linear.ts';
import { linearWeight, optionalWeight, size, value } from './operands.ts';
import { silu_mul } from './silu_mul.ts';

export const linear_silu_mul = defineOp({
  name: 'linear_silu_mul',
  doc: 'up = x upWeight^T, y = silu(x gateWeight^T) * up: both halves of a gated MLP and its activation, columns together on one thread. The same bits as the three ops.',
  inputs: {
    x: value('T', 'K'),
    gateWeight: linearWeight('I', 'K'),
    upWeight: linearWeight('I', 'K'),
    gateBias: optionalWeight('I'),
    upBias: optionalWeight('I'),
  },
  outputs: { y: value('T', 'I'), up: value('T', 'I') },
  attrs: {},
  reference(call) {
    const [x = null, gateWeight = null, upWeight = null, gateBias = null, upBias = null] = call.inputs;
    const [y, up] = call.outputs as [Float32Array, Float32Array];
    linear.reference({ ...call, inputs: [x, gateWeight, gateBias], outputs: [y] });
    linear.reference({ ...call, inputs: [x, upWeight, upBias], outputs: [up] });
    silu_mul.reference({ ...call, inputs: [y, up], outputs: [y] });
  },
  cost: (s) => {
    const [t, k, i] = [size(s, 'T'), size(s, 'K'), size(s, 'I')];
    return { bytes: 2 * i * k * (s['weightBytes'] ?? 4) + 4 * t * (k + 2 * i), flops: 4 * t * k * i + 5 * t * i };
  },
  cases: [
    { T: 1, K: 64, I: 96, gateBias: 0, upBias: 0 },
    { T: 1, K: 97, I: 131, gateBias: 1, upBias: 1 },
    { T: 7, K: 129, I: 47, gateBias: 1, upBias: 0 },
    { T: 33, K: 80, I: 130, gateBias: 0, upBias: 0 },
    { T: 103, K: 1090, I: 18, gateBias: 0, upBias: 1 },
  ],
  // Both factors carry the rounding that linear's bound is for, and the activation steepens one of them.
  tolerance: { ...linear.tolerance, bfloat16: 2.5 * linear.tolerance.bfloat16 },
});
