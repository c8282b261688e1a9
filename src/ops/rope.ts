import { defineOp } from './define_op.ts';
import { attr, floatInput, floatOutput, intInput, rowsAndWidth, size, stepInput, value, weight } from './operands.ts';

export const rope = defineOp({
  name: 'rope',
  doc: 'Rotates the first rotaryDim elements of each head by the angles of its position (Su et al., 2021). Row p of the table is cos[rotaryDim/2] then sin[rotaryDim/2], any attention scaling folded in.',
  inputs: { x: value('T', 'K'), positions: stepInput('T'), table: weight('P', 'rotaryDim') },
  outputs: { y: value('T', 'K') },
  attrs: {
    headDim: { type: 'int', doc: 'Elements of one head.' },
    rotaryDim: { type: 'int', doc: 'How many of them are rotated; even.' },
    interleaved: { type: 'int', doc: '0: element i pairs with i + rotaryDim/2 (NeoX); 1: 2i with 2i + 1 (GPT-J).' },
  },
  inplace: true,
  check: (s) => {
    if (size(s, 'K') % size(s, 'headDim') !== 0) return 'K must be a multiple of headDim';
    if (size(s, 'rotaryDim') % 2 !== 0) return 'rotaryDim must be even';
    return size(s, 'rotaryDim') > size(s, 'headDim') ? 'rotaryDim must not exceed headDim' : null;
  },
  reference(call) {
    const x = floatInput(call, 0);
    const positions = intInput(call, 1);
    const table = floatInput(call, 2);
    const y = floatOutput(call, 0);
    const [rows, width] = rowsAndWidth(call, 0);
    const [headDim, rotaryDim] = [attr(call, 'headDim'), attr(call, 'rotaryDim')];
    const half = rotaryDim / 2;
    const interleaved = attr(call, 'interleaved') !== 0;
    if (y !== x) y.set(x);
    for (let t = 0; t < rows; t++) {
      const angles = (positions[t] as number) * rotaryDim;
      for (let head = t * width; head < (t + 1) * width; head += headDim) {
        for (let i = 0; i < half; i++) {
          const first = interleaved ? head + 2 * i : head + i;
          const second = interleaved ? first + 1 : first + half;
          const [a, b] = [x[first] as number, x[second] as number];
          const [cos, sin] = [table[angles + i] as number, table[angles + half + i] as number];
          y[first] = a * cos - b * sin;
          y[second] = b * cos + a * sin;
        }
      }
    }
  },
  cost: (s) => ({ bytes: 8 * size(s, 'T') * size(s, 'K'), flops: 3 * size(s, 'T') * size(s, 'K') }),
  cases: [
    { T: 1, K: 64, P: 9, headDim: 64, rotaryDim: 64, interleaved: 0 },
    { T: 7, K: 144, P: 31, headDim: 48, rotaryDim: 48, interleaved: 0 },
    { T: 5, K: 96, P: 31, headDim: 32, rotaryDim: 12, interleaved: 0 },
    { T: 5, K: 84, P: 31, headDim: 28, rotaryDim: 14, interleaved: 1 },
  ],
  tolerance: { float32: 1e-12 },
});
