/**
 * The file that keeps a model's packed linear weights: a header, then each weight as the kernels read it. The header says what
 * was packed from which bytes, in which layout and where it lies; it follows from program and checkpoint alone. So it is
 * never believed but compared, byte for byte, with the one that this start expects: a file of other weights, of another
 * layout or size, or damaged there, is not used.
 */
import { createHash } from 'node:crypto';
import { type Stats, statSync } from 'node:fs';
import { TokenmillError } from '../../base/errors.ts';
import { readRange } from '../../base/files.ts';
import { storedAs } from '../../base/quantization.ts';
import { makesLogits, type WeightDecl } from '../../program/program.ts';
import type { LoadOptions, PackedFile, PackedUse, PackOptions } from '../backend.ts';
import { loadNative, type NativeModel, type NativeWeightType, native } from './native_binding.ts';

const MAGIC = 'TMPACKED';
/** Weights begin at pages. */
const ALIGN = 4096;

export interface PackedPlan extends PackedFile {
  readonly key: string;
  /** The file's first bytes, up to the first weight. */
  readonly header: Uint8Array;
  readonly places: readonly { readonly decl: WeightDecl; readonly offset: number }[];
}

/** Type that a linear weight is packed as. */
export function linearType({ program, quantization, weightDType }: PackOptions, decl: WeightDecl): NativeWeightType {
  return storedAs(quantization, makesLogits(program, decl.value)) ?? weightDType;
}

/** What the packed file of these weights would be, and whether the store has it. */
export function planPacked(options: PackOptions): PackedPlan | null {
  const { packedStore: store, program } = options;
  if (store === undefined) return null;
  const { Model } = loadNative();
  const files = new Map<string, string>();
  const source = (name: string) => {
    const tensor = options.tensors.get(name);
    if (tensor === undefined) throw new TokenmillError('weights_invalid', `Tensor ${name} is missing.`);
    if (!files.has(tensor.path)) files.set(tensor.path, store.identify(tensor.path));
    return [files.get(tensor.path), tensor.offset, tensor.dtype, tensor.shape];
  };
  let at = 0;
  const linears = program.weights.filter(isPacked);
  const weights = linears.map((decl) => {
    const [rows, width] = decl.shape as readonly [number, number];
    const type = linearType(options, decl);
    const weight = { name: decl.name, type, at, bytes: native(() => Model.packedBytes(rows, width, type)) };
    at = align(at + weight.bytes);
    return { ...weight, shape: decl.shape, sources: decl.tensors.map(source) };
  });
  const text = JSON.stringify({ version: Model.packVersion, weights });
  const header = new Uint8Array(align(MAGIC.length + Buffer.byteLength(text)));
  Buffer.from(header.buffer).write(MAGIC + text, 'utf8');
  const last = weights.at(-1);
  const bytes = header.length + (last === undefined ? 0 : last.at + last.bytes);
  const key = createHash('sha256').update(text).digest('hex');
  const path = store.pathOf(key);
  const places = linears.map((decl, i) => ({ decl, offset: header.length + (weights[i]?.at ?? 0) }));
  return { key, path, bytes, header, places, state: stateOf(path, header, bytes) };
}

export function isPacked({ role, computeRows }: WeightDecl): boolean {
  return role === 'linear' && computeRows === undefined;
}

function align(bytes: number): number {
  return Math.ceil(bytes / ALIGN) * ALIGN;
}

function stateOf(path: string, header: Uint8Array, bytes: number): PackedFile['state'] {
  let found: Stats;
  try {
    found = statSync(path);
  } catch {
    return 'missing';
  }
  try {
    const whole =
      found.isFile() && found.size === bytes && Buffer.compare(readRange(path, 0, header.length), header) === 0;
    return whole ? 'present' : 'damaged';
  } catch {
    return 'damaged';
  }
}

/** Maps every packed weight of the program; false when the file is not there to be mapped. */
export function mapPacked(model: NativeModel, plan: PackedPlan, options: LoadOptions): boolean {
  if (plan.state !== 'present') return false;
  try {
    for (const { decl, offset } of plan.places) {
      const [rows, width] = decl.shape as readonly [number, number];
      native(() => model.mapPacked(decl.value, plan.path, offset, rows, width, linearType(options, decl)));
    }
  } catch (error) {
    // Deleted, or cut short, since it was looked at: what was mapped so far is packed again.
    if (error instanceof TokenmillError && error.code.startsWith('model_files_')) return false;
    throw error;
  }
  options.packedStore?.touch(plan.key);
  return true;
}

/** Begins to write what was packed. A reason not to is a note, never an error: the model serves without. */
export function savePacked(model: NativeModel, plan: PackedPlan, options: LoadOptions): PackedUse {
  const { key, path, header, places, bytes } = plan;
  try {
    const temporary = options.packedStore?.reserve(key, bytes) ?? null;
    if (temporary === null) return { state: 'unused', note: null };
    const values = Float64Array.from(places, ({ decl }) => decl.value);
    const offsets = Float64Array.from(places, ({ offset }) => offset);
    native(() => model.savePacked(temporary, path, header, values, offsets, bytes));
  } catch (error) {
    if (!(error instanceof Error) || error.name === 'AssertionError') throw error;
    return { state: 'unused', note: `Packed weights are not kept for the next start: ${error.message}` };
  }
  const note = plan.state === 'damaged' ? `${path} was damaged and is written again.` : null;
  return { state: 'writing', note };
}
