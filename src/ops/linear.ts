import { defineOp } from './define_op.ts';
import {
  floatInput,
  floatOutput,
  linearInput,
  linearWeight,
  optionalInput,
  optionalWeight,
  size,
  value,
} from './operands.ts';

export const linear = defineOp({
  name: 'linear',
  doc: 'y = x weight^T + bias. Each output element sums over K in one order, whatever the number of rows.',
  inputs: { x: value('T', 'K'), weight: linearWeight('N', 'K'), bias: optionalWeight('N') },
  outputs: { y: value('T', 'N') },
  attrs: {},
  reference(call) {
    linearInput(call, 1).multiply(floatInput(call, 0), optionalInput(call, 2), floatOutput(call, 0));
  },
  cost: (s) => {
    const [t, k, n] = [size(s, 'T'), size(s, 'K'), size(s, 'N')];
    return { bytes: n * k * (s['weightBytes'] ?? 4) + 4 * t * (k + n), flops: 2 * t * k * n };
  },
  cases: [
    { T: 1, K: 64, N: 64, bias: 0 },
    { T: 1, K: 97, N: 131, bias: 1 },
    { T: 2, K: 1, N: 3, bias: 1 },
    { T: 3, K: 256, N: 17, bias: 0 },
    { T: 7, K: 129, N: 47, bias: 1 },
    { T: 16, K: 64, N: 96, bias: 0 },
    { T: 33, K: 80, N: 66, bias: 1 },
    { T: 65, K: 515, N: 33, bias: 0 },
    // More rows than pass one slice of weights, and more k than a slice has.
    { T: 103, K: 1090, N: 50, bias: 1 },
  ],
  // bfloat16: the bf16 dot product instructions also round the activations to bf16, 2^-9 relative per factor.
  tolerance: {
    float32: 1e-12,
    bfloat16: 1e-5,
    float16: 1e-12,
    int8: 1e-12,
    int4_g32: 1e-12,
    int4_g64: 1e-12,
    int4_g128: 1e-12,
  },
});
