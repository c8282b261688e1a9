/**
 * Headers of safetensors files. The bytes of tensors stay on disk; every size, offset and name is checked here, because the
 * files are hostile input: nothing behind this reader checks again.
 * Format: 8 bytes little-endian header length, a JSON header, then the tensors' bytes without holes.
 */
import { existsSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { CheckpointDType, TensorSource } from '../backends/backend.ts';
import { TokenmillError } from '../base/errors.ts';
import { fileSize, readRange } from '../base/files.ts';
import { show } from '../base/show.ts';
import { ELEMENT_BYTES } from '../quant/dtypes.ts';

/** The limit of the format's own implementation, bytes. */
const MAX_HEADER_BYTES = 100_000_000;
const MAX_RANK = 16;

export type Tensors = ReadonlyMap<string, TensorSource>;

/**
 * All tensors of a model folder: `model.safetensors.index.json` with its shards, or `model.safetensors`. Throws
 * `model_files_missing` or `model_files_invalid`.
 */
export function readCheckpoint(folder: string): Tensors {
  const index = join(folder, 'model.safetensors.index.json');
  if (existsSync(index)) return readSharded(folder, index);
  const single = join(folder, 'model.safetensors');
  if (existsSync(single)) return readSafetensors(single);
  throw missingWeights(folder);
}

/** The header of one file. */
export function readSafetensors(path: string): Tensors {
  const size = statSync(path, { throwIfNoEntry: false })?.isFile() ? fileSize(path) : -1;
  if (size < 0) throw new TokenmillError('model_files_missing', `${path} does not exist or is not a file.`);
  const fail = (why: string) => invalid(path, why);
  if (size < 8) throw fail(`it is ${size} bytes, too short for a header`);
  const declared = new DataView(readRange(path, 0, 8).buffer).getBigUint64(0, true);
  if (declared > MAX_HEADER_BYTES)
    throw fail(`it claims a header of ${declared} bytes; at most ${MAX_HEADER_BYTES} are read`);
  const headerBytes = Number(declared);
  if (8 + headerBytes > size) throw fail(`it claims a header of ${headerBytes} bytes but is ${size} bytes long`);
  const header = parseHeader(readRange(path, 8, headerBytes), fail);
  const dataStart = 8 + headerBytes;
  const tensors = new Map<string, TensorSource>();
  for (const [name, entry] of Object.entries(header)) {
    if (name === '__metadata__') continue;
    tensors.set(name, readEntry(name, entry, { path, dataStart, dataBytes: size - dataStart }));
  }
  checkContiguous(tensors, dataStart, size, fail);
  return tensors;
}

function parseHeader(bytes: Uint8Array, fail: (why: string) => TokenmillError): Record<string, unknown> {
  let header: unknown;
  try {
    header = JSON.parse(new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes));
  } catch (cause) {
    throw fail(`its header is not JSON (${(cause as Error).message})`);
  }
  if (!isObject(header)) throw fail('its header is not a JSON object');
  if (countKeys(header) !== countColons(bytes)) throw fail('its header names something twice');
  return header;
}

interface FileLayout {
  readonly path: string;
  readonly dataStart: number;
  readonly dataBytes: number;
}

function readEntry(name: string, entry: unknown, { path, dataStart, dataBytes }: FileLayout): TensorSource {
  const fail = (why: string) => invalid(path, `tensor ${show(name)} ${why}`);
  if (!isObject(entry)) throw fail('is not described by an object');
  const { dtype, shape, data_offsets: offsets } = entry;
  if (typeof dtype !== 'string' || !Object.hasOwn(ELEMENT_BYTES, dtype)) {
    throw fail(`has dtype ${show(dtype)}; known: ${Object.keys(ELEMENT_BYTES).join(', ')}`);
  }
  if (!isSizeList(shape) || shape.length > MAX_RANK) throw fail('has a shape that is not a short list of sizes');
  if (!isSizeList(offsets) || offsets.length !== 2) throw fail('has data_offsets that are not two offsets');
  const [begin, end] = offsets as [number, number];
  if (begin > end || end > dataBytes) {
    throw fail(`claims bytes ${begin} to ${end} of ${dataBytes}; the file is truncated or its header lies`);
  }
  let expected = ELEMENT_BYTES[dtype] as number;
  for (const size of shape) expected *= size;
  if (expected !== end - begin)
    throw fail(`has shape [${shape}] of ${dtype}, ${expected} bytes, but ${end - begin} bytes`);
  return { name, dtype: dtype as CheckpointDType, shape, path, offset: dataStart + begin, byteLength: end - begin };
}

/** Tensors must fill the file exactly: no overlap, no hole, nothing behind the last. */
function checkContiguous(tensors: Tensors, start: number, end: number, fail: (why: string) => TokenmillError): void {
  let at = start;
  for (const tensor of [...tensors.values()].sort((a, b) => a.offset - b.offset || a.byteLength - b.byteLength)) {
    if (tensor.offset !== at) {
      const what =
        tensor.offset < at ? 'overlaps the one before it' : `leaves ${tensor.offset - at} bytes before it unused`;
      throw fail(`tensor ${show(tensor.name)} ${what}`);
    }
    at += tensor.byteLength;
  }
  if (at !== end) throw fail(`${end - at} bytes behind the last tensor belong to none`);
}

function readSharded(folder: string, indexPath: string): Tensors {
  const size = fileSize(indexPath);
  if (size > MAX_HEADER_BYTES) throw invalid(indexPath, `it is ${size} bytes; at most ${MAX_HEADER_BYTES} are read`);
  const index = parseHeader(readRange(indexPath, 0, size), (why) => invalid(indexPath, why));
  const map = index['weight_map'];
  if (!isObject(map)) throw invalid(indexPath, 'it has no weight_map');
  const shards = new Map<string, Tensors>();
  const tensors = new Map<string, TensorSource>();
  for (const [name, file] of Object.entries(map)) {
    let shard = typeof file === 'string' ? shards.get(file) : undefined;
    if (shard === undefined) {
      shard = readShard(folder, indexPath, file);
      shards.set(file as string, shard);
    }
    const tensor = shard.get(name);
    if (tensor === undefined) throw invalid(indexPath, `it places ${show(name)} in ${file}, which does not hold it`);
    tensors.set(name, tensor);
  }
  return tensors;
}

function readShard(folder: string, indexPath: string, file: unknown): Tensors {
  if (typeof file !== 'string' || !/^[\w.-]{1,200}\.safetensors$/.test(file)) {
    throw invalid(indexPath, `shard name ${show(file)} is not a plain file name ending in .safetensors`);
  }
  const path = join(folder, file);
  if (!existsSync(path)) {
    throw new TokenmillError('model_files_missing', `Shard ${file}, named by ${indexPath}, does not exist.`, {
      remedy: 'The download is incomplete; run `tokenmill pull` again.',
    });
  }
  return readSafetensors(path);
}

function missingWeights(folder: string): TokenmillError {
  const files = existsSync(folder) ? readdirSync(folder) : [];
  const pickled = files.find((file) => /\.(bin|pt|pth|ckpt)$/.test(file));
  if (pickled === undefined) {
    return new TokenmillError('model_files_missing', `${folder} has neither model.safetensors nor an index of shards.`);
  }
  return new TokenmillError(
    'model_files_invalid',
    `${folder} has its weights only as ${pickled}, a Python pickle: reading one runs code from the file.`,
    {
      remedy:
        'Convert it where you trust it: python -c "from transformers import AutoModelForCausalLM as M; ' +
        `M.from_pretrained('${folder}').save_pretrained('converted', safe_serialization=True)".`,
    },
  );
}

/** Keys of all objects inside `value`. With a list instead of recursion: nesting is as deep as the file wants. */
function countKeys(value: unknown): number {
  const pending: unknown[] = [value];
  let keys = 0;
  while (pending.length > 0) {
    const next = pending.pop();
    if (typeof next !== 'object' || next === null) continue;
    const items = Object.values(next);
    if (!Array.isArray(next)) keys += items.length;
    for (const item of items) if (typeof item === 'object') pending.push(item);
  }
  return keys;
}

const [QUOTE, BACKSLASH, COLON] = [0x22, 0x5c, 0x3a];

/** Colons outside strings: one for each key of valid JSON. JSON.parse keeps the last of two equal keys without a word. */
function countColons(json: Uint8Array): number {
  let inString = false;
  let colons = 0;
  for (let i = 0; i < json.length; i++) {
    const byte = json[i];
    if (byte === QUOTE) inString = !inString;
    else if (inString && byte === BACKSLASH) i++;
    else if (byte === COLON && !inString) colons++;
  }
  return colons;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isSizeList(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((item) => Number.isSafeInteger(item) && item >= 0);
}

function invalid(path: string, why: string): TokenmillError {
  return new TokenmillError('model_files_invalid', `${path} is not a valid safetensors file: ${why}.`, {
    remedy: 'Download it again.',
  });
}
