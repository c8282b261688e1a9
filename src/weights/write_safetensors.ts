/** Writes a safetensors file tensor by tensor, so that a checkpoint larger than memory never exists in it. */
import { closeSync, openSync, writeSync } from 'node:fs';

export interface TensorToWrite {
  readonly name: string;
  readonly dtype: 'F32' | 'F16' | 'BF16';
  readonly shape: readonly number[];
  /** The elements' bytes in pieces, in order; called once. */
  readonly pieces: () => Iterable<Uint8Array>;
}

const BYTES = { F32: 4, F16: 2, BF16: 2 } as const;

export function elementsOf(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}

export function writeSafetensors(path: string, tensors: readonly TensorToWrite[]): void {
  const header: Record<string, unknown> = { __metadata__: { format: 'pt' } };
  let offset = 0;
  for (const { name, dtype, shape } of tensors) {
    const end = offset + elementsOf(shape) * BYTES[dtype];
    header[name] = { dtype, shape, data_offsets: [offset, end] };
    offset = end;
  }
  let text = JSON.stringify(header);
  // Data starts on a multiple of 64 bytes, so that mapped tensors are aligned.
  text += ' '.repeat((64 - ((8 + Buffer.byteLength(text)) % 64)) % 64);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(Buffer.byteLength(text)));
  const file = openSync(path, 'w');
  try {
    writeAll(file, length);
    writeAll(file, Buffer.from(text));
    for (const tensor of tensors) for (const piece of tensor.pieces()) writeAll(file, piece);
  } finally {
    closeSync(file);
  }
}

/** writeSync may take fewer bytes than it is given. */
export function writeAll(file: number, bytes: Uint8Array): void {
  for (let done = 0; done < bytes.length; ) done += writeSync(file, bytes, done, bytes.length - done);
}
