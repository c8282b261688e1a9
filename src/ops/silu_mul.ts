import { defineOp } from './define_op.ts';
import { floatInput, floatOutput, size, value } from './operands.ts';

export const silu_mul = defineOp({
  name: 'silu_mul',
  doc: 'y = gate * sigmoid(gate) * up: the gated MLP (Shazeer, 2020).',
  inputs: { gate: value('T', 'I'), up: value('T', 'I') },
  outputs: { y: value('T', 'I') },
  attrs: {},
  inplace: true,
  reference(call) {
    const [gate, up] = [floatInput(call, 0), floatInput(call, 1)];
    const y = floatOutput(call, 0);
    for (let i = 0; i < y.length; i++) {
      const g = gate[i] as number;
      y[i] = (g / (1 + Math.exp(-g))) * (up[i] as number);
    }
  },
  cost: (s) => ({ bytes: 12 * size(s, 'T') * size(s, 'I'), flops: 5 * size(s, 'T') * size(s, 'I') }),
  cases: [
    { T: 1, I: 64 },
    { T: 7, I: 97 },
  ],
  // The kernels' exp is a polynomial in fp32, good to about 2 units in the last place.
  tolerance: { float32: 1e-12 },
});
