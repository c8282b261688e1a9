import type { LinearOperand } from './define_op.ts';

/** A linear weight that is not quantised: `matrix` [outputs, width], products summed in fp64 over ascending k. */
export function denseWeight(matrix: Float32Array, width: number): LinearOperand {
  return {
    multiply(x, bias, y) {
      const rows = x.length / width;
      const outputs = matrix.length / width;
      for (let n = 0; n < outputs; n++) {
        const wRow = n * width;
        const offset = bias ? (bias[n] as number) : 0;
        for (let t = 0; t < rows; t++) {
          const xRow = t * width;
          let sum = 0;
          for (let k = 0; k < width; k++) sum += (x[xRow + k] as number) * (matrix[wRow + k] as number);
          y[t * outputs + n] = sum + offset;
        }
      }
    },
  };
}
