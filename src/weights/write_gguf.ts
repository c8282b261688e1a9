/**
 * GGUF version 3, the format of llama.cpp: little-endian header of typed key-value pairs and tensor descriptions, then the
 * tensors' bytes, each on a multiple of 32. Written tensor by tensor.
 */
import { closeSync, openSync } from 'node:fs';
import { elementsOf, writeAll } from './write_safetensors.ts';

export type GgufValue =
  | { readonly type: 'u32' | 'f32'; readonly value: number }
  | { readonly type: 'bool'; readonly value: boolean }
  | { readonly type: 'string'; readonly value: string }
  | { readonly type: 'strings'; readonly value: readonly string[] }
  | { readonly type: 'i32s'; readonly value: readonly number[] };

export type GgufType = 'F32' | 'F16' | 'BF16' | 'Q8_0' | 'Q4_0';

export interface GgufTensor {
  readonly name: string;
  readonly type: GgufType;
  /** Row-major as everywhere here; the file lists dimensions fastest first. */
  readonly shape: readonly number[];
  /** The elements' bytes in pieces, in order; called once. */
  readonly pieces: () => Iterable<Uint8Array>;
}

/** `bytes` of `block` elements. */
const TENSOR_TYPES = {
  F32: { id: 0, block: 1, bytes: 4 },
  F16: { id: 1, block: 1, bytes: 2 },
  BF16: { id: 30, block: 1, bytes: 2 },
  Q8_0: { id: 8, block: 32, bytes: 34 },
  Q4_0: { id: 2, block: 32, bytes: 18 },
} as const;
const VALUE_TYPES = { u32: 4, i32: 5, f32: 6, bool: 7, string: 8, array: 9 } as const;
const ALIGNMENT = 32;

export function writeGguf(
  path: string,
  metadata: ReadonlyMap<string, GgufValue>,
  tensors: readonly GgufTensor[],
): void {
  const header = new ByteWriter();
  header.raw(Buffer.from('GGUF'));
  header.u32(3);
  header.u64(tensors.length);
  header.u64(metadata.size);
  for (const [key, value] of metadata) {
    header.string(key);
    writeValue(header, value);
  }
  let offset = 0;
  for (const { name, type, shape } of tensors) {
    header.string(name);
    header.u32(shape.length);
    for (const size of shape.toReversed()) header.u64(size);
    header.u32(TENSOR_TYPES[type].id);
    header.u64(offset);
    offset += padded(tensorBytes(type, shape));
  }
  const file = openSync(path, 'w');
  try {
    const start = header.finish();
    writeAll(file, start);
    writeAll(file, new Uint8Array(padded(start.length) - start.length));
    for (const { type, shape, pieces } of tensors) {
      for (const piece of pieces()) writeAll(file, piece);
      const bytes = tensorBytes(type, shape);
      writeAll(file, new Uint8Array(padded(bytes) - bytes));
    }
  } finally {
    closeSync(file);
  }
}

function tensorBytes(type: GgufType, shape: readonly number[]): number {
  const { block, bytes } = TENSOR_TYPES[type];
  return (elementsOf(shape) / block) * bytes;
}

function padded(bytes: number): number {
  return Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;
}

function writeValue(out: ByteWriter, { type, value }: GgufValue): void {
  switch (type) {
    case 'strings':
      out.u32(VALUE_TYPES.array);
      out.u32(VALUE_TYPES.string);
      out.u64(value.length);
      for (const item of value) out.string(item);
      return;
    case 'i32s':
      out.u32(VALUE_TYPES.array);
      out.u32(VALUE_TYPES.i32);
      out.u64(value.length);
      out.raw(Buffer.from(Int32Array.from(value).buffer));
      return;
    case 'string':
      out.u32(VALUE_TYPES.string);
      out.string(value);
      return;
    case 'bool':
      out.u32(VALUE_TYPES.bool);
      out.raw(Buffer.of(value ? 1 : 0));
      return;
    case 'u32':
      out.u32(VALUE_TYPES.u32);
      out.u32(value);
      return;
    case 'f32':
      out.u32(VALUE_TYPES.f32);
      out.raw(Buffer.from(Float32Array.of(value).buffer));
  }
}

/** A growing little-endian buffer. */
class ByteWriter {
  private buffer = Buffer.alloc(1 << 16);
  private length = 0;

  raw(bytes: Uint8Array): void {
    this.reserve(bytes.length);
    this.buffer.set(bytes, this.length);
    this.length += bytes.length;
  }

  u32(value: number): void {
    this.reserve(4);
    this.length = this.buffer.writeUInt32LE(value, this.length);
  }

  u64(value: number): void {
    this.reserve(8);
    this.length = this.buffer.writeBigUInt64LE(BigInt(value), this.length);
  }

  string(text: string): void {
    const bytes = Buffer.from(text);
    this.u64(bytes.length);
    this.raw(bytes);
  }

  finish(): Uint8Array {
    return this.buffer.subarray(0, this.length);
  }

  private reserve(bytes: number): void {
    if (this.length + bytes <= this.buffer.length) return;
    const grown = Buffer.alloc(Math.max(this.buffer.length * 2, this.length + bytes));
    grown.set(this.finish());
    this.buffer = grown;
  }
}
