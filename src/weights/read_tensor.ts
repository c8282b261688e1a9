import type { TensorSource } from '../backends/backend.ts';
import { readRange } from '../base/files.ts';
import { decodeElements } from '../quant/dtypes.ts';

/** The tensor's elements as fp32, row-major. */
export function readTensor({ path, offset, byteLength, dtype }: TensorSource): Float32Array {
  return decodeElements(dtype, readRange(path, offset, byteLength));
}
