import { add } from './add.ts';
import { defineOp } from './define_op.ts';
import { size, value, weight } from './operands.ts';
import { rms_norm } from './rms_norm.ts';

export const add_rms_norm = defineOp({
  name: 'add_rms_norm',
  doc: 'sum = a + b, y = rms_norm(sum): the residual connection and the norm after it, each row in one go. The same bits as the two ops.',
  inputs: { a: value('T', 'D'), b: value('T', 'D'), weight: weight('D') },
  outputs: { sum: value('T', 'D'), y: value('T', 'D') },
  attrs: { eps: { type: 'float', doc: 'Added to the mean square.' } },
  inplace: true,
  reference(call) {
    const [a = null, b = null, scale = null] = call.inputs;
    const [sum, y] = call.outputs as [Float32Array, Float32Array];
    add.reference({ ...call, inputs: [a, b], outputs: [sum] });
    rms_norm.reference({ ...call, inputs: [sum, scale], outputs: [y] });
  },
  cost: (s) => ({ bytes: 16 * size(s, 'T') * size(s, 'D'), flops: 5 * size(s, 'T') * size(s, 'D') }),
  cases: [
    { T: 1, D: 64, eps: 1e-6 },
    { T: 7, D: 97, eps: 1e-5 },
    { T: 33, D: 80, eps: 1e-6 },
  ],
  tolerance: { float32: 1e-12 },
});
