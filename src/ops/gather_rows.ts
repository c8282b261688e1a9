import { defineOp } from './define_op.ts';
import { floatInput, floatOutput, intInput, rowsAndWidth, size, stepInput, value } from './operands.ts';

export const gather_rows = defineOp({
  name: 'gather_rows',
  doc: 'The rows whose logits are wanted; everything after it works on R rows instead of T.',
  inputs: { x: value('T', 'D'), logitRows: stepInput('R') },
  outputs: { y: value('R', 'D') },
  attrs: {},
  reference(call) {
    const x = floatInput(call, 0);
    const rows = intInput(call, 1);
    const y = floatOutput(call, 0);
    const [, width] = rowsAndWidth(call, 0);
    for (let r = 0; r < rows.length; r++) {
      const row = (rows[r] as number) * width;
      y.set(x.subarray(row, row + width), r * width);
    }
  },
  cost: (s) => ({ bytes: 8 * size(s, 'R') * size(s, 'D'), flops: 0 }),
  cases: [
    { T: 1, R: 1, D: 64 },
    { T: 9, R: 4, D: 97 },
  ],
  tolerance: { float32: 0 },
});
