import { defineOp } from './define_op.ts';
import { attr, floatInput, floatOutput, size, value, weight } from './operands.ts';

export const rms_norm = defineOp({
  name: 'rms_norm',
  doc: 'y = x / sqrt(mean(x^2) + eps) * weight over each group of D consecutive elements; D = K is the usual norm, D = head size the per-head one (Zhang and Sennrich, 2019).',
  inputs: { x: value('T', 'K'), weight: weight('D') },
  outputs: { y: value('T', 'K') },
  attrs: { eps: { type: 'float', doc: 'Added to the mean square.' } },
  inplace: true,
  check: (s) => (size(s, 'K') % size(s, 'D') === 0 ? null : 'K must be a multiple of D'),
  reference(call) {
    const x = floatInput(call, 0);
    const scale = floatInput(call, 1);
    const y = floatOutput(call, 0);
    const eps = attr(call, 'eps');
    const group = scale.length;
    for (let start = 0; start < x.length; start += group) {
      let sum = 0;
      for (let i = 0; i < group; i++) sum += (x[start + i] as number) ** 2;
      const inverse = 1 / Math.sqrt(sum / group + eps);
      for (let i = 0; i < group; i++) y[start + i] = (x[start + i] as number) * inverse * (scale[i] as number);
    }
  },
  cost: (s) => ({ bytes: 8 * size(s, 'T') * size(s, 'K'), flops: 4 * size(s, 'T') * size(s, 'K') }),
  cases: [
    { T: 1, K: 64, D: 64, eps: 1e-6 },
    { T: 7, K: 97, D: 97, eps: 1e-5 },
    { T: 5, K: 96, D: 32, eps: 1e-6 },
    { T: 3, K: 65, D: 13, eps: 1e-6 },
  ],
  tolerance: { float32: 1e-12 },
});
