import { defineOp } from './define_op.ts';
import { floatInput, floatOutput, intInput, size, stepInput, value, weight } from './operands.ts';

export const embedding = defineOp({
  name: 'embedding',
  doc: 'Row `tokenIds[t]` of the table. Token ids are checked against V before a step reaches a backend.',
  inputs: { tokenIds: stepInput('T'), weight: weight('V', 'D') },
  outputs: { y: value('T', 'D') },
  attrs: {},
  reference(call) {
    const ids = intInput(call, 0);
    const table = floatInput(call, 1);
    const y = floatOutput(call, 0);
    const width = y.length / ids.length;
    for (let t = 0; t < ids.length; t++) {
      const row = (ids[t] as number) * width;
      y.set(table.subarray(row, row + width), t * width);
    }
  },
  cost: (s) => ({ bytes: 8 * size(s, 'T') * size(s, 'D'), flops: 0 }),
  cases: [
    { T: 1, V: 5, D: 64 },
    { T: 7, V: 131, D: 97 },
  ],
  tolerance: { float32: 0 },
});
