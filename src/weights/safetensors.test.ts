import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { TokenmillError } from '../base/errors.ts';
import { Rng } from '../base/rng.ts';
import { readTensor } from './read_tensor.ts';
import { readCheckpoint, readSafetensors } from './safetensors.ts';
import { writeSafetensors } from './write_safetensors.ts';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'tokenmill-safetensors-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

const f32 = (name: string, values: readonly number[], shape = [values.length]) => ({
  name,
  dtype: 'F32' as const,
  shape,
  pieces: () => [new Uint8Array(Float32Array.from(values).buffer)],
});

/** A file from a header as text and a number of data bytes. */
function write(header: string, dataBytes: number, headerLength = Buffer.byteLength(header)): string {
  const path = join(folder, 'case.safetensors');
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(headerLength));
  writeFileSync(path, Buffer.concat([length, Buffer.from(header), Buffer.alloc(dataBytes)]));
  return path;
}

const entry = (dtype: unknown, shape: unknown, offsets: unknown) => ({ dtype, shape, data_offsets: offsets });

test('what was written is read back, from any offset', () => {
  const path = join(folder, 'a.safetensors');
  writeSafetensors(path, [f32('x', [1, 2, 3, 4, 5, 6], [2, 3]), f32('scalar', [7], []), f32('empty', [], [0, 4])]);
  const tensors = readSafetensors(path);
  expect([...tensors.keys()]).toEqual(['x', 'scalar', 'empty']);
  expect(tensors.get('x')?.shape).toEqual([2, 3]);
  expect([...readTensor(tensors.get('x')!)]).toEqual([1, 2, 3, 4, 5, 6]);
  expect([...readTensor(tensors.get('scalar')!)]).toEqual([7]);
  expect(tensors.get('x')!.offset % 64).toBe(0);
});

describe('a file that lies is refused with the reason', () => {
  const two = (a: unknown, b: unknown) => JSON.stringify({ a, b });
  const good = entry('F32', [2], [0, 8]);
  const cases: [string, string, number, string][] = [
    [
      'a shape that needs more bytes',
      JSON.stringify({ a: entry('F32', [3], [0, 8]) }),
      8,
      'shape [3] of F32, 12 bytes, but 8',
    ],
    ['a product that overflows', JSON.stringify({ a: entry('F32', [2 ** 40, 2 ** 40], [0, 8]) }), 8, 'but 8 bytes'],
    ['offsets beyond the file', JSON.stringify({ a: entry('F32', [4], [0, 16]) }), 8, 'truncated or its header lies'],
    ['offsets that go backwards', JSON.stringify({ a: entry('F32', [2], [8, 0]) }), 8, 'claims bytes 8 to 0'],
    ['a negative offset', JSON.stringify({ a: entry('F32', [2], [-8, 0]) }), 8, 'not two offsets'],
    ['a fractional size', JSON.stringify({ a: entry('F32', [1.5], [0, 6]) }), 8, 'not a short list of sizes'],
    ['a negative size', JSON.stringify({ a: entry('F32', [-2], [0, 8]) }), 8, 'not a short list of sizes'],
    [
      'a size beyond exact integers',
      JSON.stringify({ a: entry('F32', [2 ** 60], [0, 8]) }),
      8,
      'not a short list of sizes',
    ],
    [
      'a rank of a hundred',
      JSON.stringify({ a: entry('F32', Array(100).fill(1), [0, 4]) }),
      4,
      'not a short list of sizes',
    ],
    ['an unknown type', JSON.stringify({ a: entry('Q7', [2], [0, 8]) }), 8, 'has dtype "Q7"; known: F64'],
    ['a type from the prototype', JSON.stringify({ a: entry('toString', [2], [0, 8]) }), 8, 'has dtype "toString"'],
    ['an entry that is no object', JSON.stringify({ a: 3 }), 0, 'not described by an object'],
    ['overlapping tensors', two(good, entry('F32', [2], [4, 12])), 12, 'tensor "b" overlaps the one before it'],
    ['one tensor twice in place', two(good, good), 8, 'tensor "b" overlaps'],
    ['a hole', two(good, entry('F32', [1], [12, 16])), 16, 'leaves 4 bytes before it unused'],
    ['bytes behind the last', JSON.stringify({ a: good }), 9, '1 bytes behind the last tensor'],
    ['one name twice', `{"a":${JSON.stringify(good)},"a":${JSON.stringify(good)}}`, 8, 'names something twice'],
    [
      'one name twice, escaped',
      `{"a":${JSON.stringify(good)},"\\u0061":${JSON.stringify(good)}}`,
      8,
      'names something twice',
    ],
    ['no JSON', '{"a":', 0, 'its header is not JSON'],
    ['a list', '[]', 0, 'not a JSON object'],
  ];
  test.each(cases)('%s', (_name, header, dataBytes, message) => {
    const path = write(header, dataBytes);
    expect(() => readSafetensors(path)).toThrow(message);
  });

  test('a header length that is too large', () => {
    expect(() => readSafetensors(write('{}', 0, 2 ** 40))).toThrow('claims a header of 1099511627776 bytes; at most');
    expect(() => readSafetensors(write('{}', 0, 99))).toThrow('claims a header of 99 bytes but is 10 bytes long');
  });

  test('invalid UTF-8, an empty file, no file', () => {
    const path = write('{"aa":1}', 0);
    const bytes = readFileSync(path);
    bytes[11] = 0xff;
    writeFileSync(path, bytes);
    expect(() => readSafetensors(path)).toThrow('its header is not JSON');
    writeFileSync(path, '');
    expect(() => readSafetensors(path)).toThrow('too short for a header');
    expect(() => readSafetensors(join(folder, 'none'))).toThrow('does not exist');
    expect(() => readSafetensors(folder)).toThrow('is not a file');
  });

  test('nesting deeper than any stack', () => {
    const depth = 2_000_000;
    const nested = '['.repeat(depth) + ']'.repeat(depth);
    expect([...readSafetensors(write(`{"__metadata__":${nested}}`, 0)).keys()]).toEqual([]);
    expect(() => readSafetensors(write(`{"a":{"dtype":${nested}}}`, 0))).toThrow('has dtype a list of 1');
  });

  test('a colon inside a name is not a key', () => {
    const path = write(JSON.stringify({ 'a:"b\\': entry('F32', [2], [0, 8]) }), 8);
    expect([...readSafetensors(path).keys()]).toEqual(['a:"b\\']);
  });
});

test('mutated files either read, inside their bounds, or fail with a coded error', () => {
  const path = join(folder, 'fuzz.safetensors');
  const header = JSON.stringify({
    a: entry('F32', [2, 3], [0, 24]),
    bb: entry('BF16', [5], [24, 34]),
    c: entry('U8', [], [34, 35]),
  });
  const original = readFileSync(write(header, 35));
  const interesting = [...Buffer.from('0129-[]{},:"\\eE. F')];
  for (let seed = 0; seed < 1500; seed++) {
    const rng = new Rng(seed);
    let bytes = Buffer.from(original);
    for (let edits = rng.int(1, 4); edits > 0; edits--) {
      bytes[rng.int(0, bytes.length - 1)] = rng.next() < 0.7 ? rng.pick(interesting) : rng.int(0, 255);
    }
    if (rng.next() < 0.2) bytes = bytes.subarray(0, rng.int(0, bytes.length));
    writeFileSync(path, bytes);
    try {
      for (const tensor of readSafetensors(path).values()) {
        expect(tensor.offset + tensor.byteLength, `seed ${seed}`).toBeLessThanOrEqual(bytes.length);
        expect(tensor.offset, `seed ${seed}`).toBeGreaterThanOrEqual(10);
      }
    } catch (error) {
      expect(error, `seed ${seed}`).toBeInstanceOf(TokenmillError);
    }
  }
});

describe('a folder', () => {
  const index = (map: unknown) =>
    writeFileSync(
      join(folder, 'sharded', 'model.safetensors.index.json'),
      JSON.stringify({ metadata: {}, weight_map: map }),
    );
  const [first, second] = ['model-00001-of-00002.safetensors', 'model-00002-of-00002.safetensors'];

  beforeAll(async () => {
    const { mkdirSync } = await import('node:fs');
    for (const name of ['sharded', 'pickled', 'empty']) mkdirSync(join(folder, name));
    writeSafetensors(join(folder, 'sharded', first), [f32('x', [1, 2])]);
    writeFileSync(join(folder, 'pickled', 'pytorch_model.bin'), '');
  });

  test('of shards: each tensor from its file', () => {
    writeSafetensors(join(folder, 'sharded', second), [f32('y', [3])]);
    index({ x: first, y: second });
    const tensors = readCheckpoint(join(folder, 'sharded'));
    expect([...readTensor(tensors.get('y')!)]).toEqual([3]);
    index({ x: first, y: first });
    expect(() => readCheckpoint(join(folder, 'sharded'))).toThrow(`places "y" in ${first}, which does not hold it`);
  });

  test('with a missing shard names it', () => {
    index({ x: first, z: 'model-00003-of-00003.safetensors' });
    expect(() => readCheckpoint(join(folder, 'sharded'))).toThrow('Shard model-00003-of-00003.safetensors');
  });

  test.each(['../secret.safetensors', '/etc/x.safetensors', 'a\\b.safetensors', 'model.bin', '', 7])(
    'whose index names %j is refused',
    (name) => {
      index({ x: name });
      expect(() => readCheckpoint(join(folder, 'sharded'))).toThrow('is not a plain file name');
    },
  );

  test('without weights, or with pickled ones only', () => {
    expect(() => readCheckpoint(join(folder, 'empty'))).toThrow('neither model.safetensors nor an index');
    expect(() => readCheckpoint(join(folder, 'pickled'))).toThrow('runs code from the file. Convert it');
  });
});
