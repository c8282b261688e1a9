/**
 * Quantised linears multiply in a rotated basis: x and the rows of a weight are padded with zeros to blocks of 64, and each
 * block is multiplied by the Hadamard matrix of that size. Their product stays what it was, but a large element is spread over
 * its block, so that it no longer makes the rounding of its neighbours coarse.
 */

const BLOCK = 64;

/** Elements of a rotated row. */
export function rotatedWidth(width: number): number {
  return Math.ceil(width / BLOCK) * BLOCK;
}

/** Rotates each row of a [rows, width] matrix. */
export function rotateRows(matrix: Float32Array, width: number): Float32Array {
  return rotateScaled(matrix, width, 1);
}

/** As rotateRows, divided by the block's size: the product of both is that of the rows as they were. */
export function rotateWeights(matrix: Float32Array, width: number): Float32Array {
  return rotateScaled(matrix, width, 1 / BLOCK);
}

function rotateScaled(matrix: Float32Array, width: number, scale: number): Float32Array {
  const [rows, padded] = [matrix.length / width, rotatedWidth(width)];
  const rotated = new Float32Array(rows * padded);
  for (let row = 0; row < rows; row++) {
    for (let i = 0; i < width; i++) rotated[row * padded + i] = (matrix[row * width + i] as number) * scale;
  }
  // Sums and differences of elements 1, 2, 4, ... 32 apart; the native code adds in the same order.
  for (let half = 1; half < BLOCK; half *= 2) {
    for (let from = 0; from < rotated.length; from += 2 * half) {
      for (let i = from; i < from + half; i++) {
        const [a, b] = [rotated[i] as number, rotated[i + half] as number];
        rotated[i] = a + b;
        rotated[i + half] = a - b;
      }
    }
  }
  return rotated;
}
