import { defineOp } from './define_op.ts';
import { floatInput, floatOutput, size, value } from './operands.ts';

export const add = defineOp({
  name: 'add',
  doc: 'y = a + b: the residual connection.',
  inputs: { a: value('T', 'D'), b: value('T', 'D') },
  outputs: { y: value('T', 'D') },
  attrs: {},
  inplace: true,
  reference(call) {
    const [a, b] = [floatInput(call, 0), floatInput(call, 1)];
    const y = floatOutput(call, 0);
    for (let i = 0; i < y.length; i++) y[i] = (a[i] as number) + (b[i] as number);
  },
  cost: (s) => ({ bytes: 12 * size(s, 'T') * size(s, 'D'), flops: size(s, 'T') * size(s, 'D') }),
  cases: [
    { T: 1, D: 64 },
    { T: 7, D: 97 },
  ],
  tolerance: { float32: 0 },
});
