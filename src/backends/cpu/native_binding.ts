/**
 * Finds and loads the native addon. Order: the path in TOKENMILL_NATIVE, a local build, the platform package. A binary that
 * was not built here is first tried in a child process, so that one made for another machine cannot take this one down.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { AssertionError } from '../../base/assert.ts';
import { ERRORS, type ErrorCode, TokenmillError } from '../../base/errors.ts';
import type { KvDType } from '../../base/kv_dtypes.ts';
import { packageRoot } from '../../base/package_root.ts';
import type { QuantizedType } from '../../base/quantization.ts';
import type { ThreadPlace, WeightDType } from '../backend.ts';

export interface NativeTensor {
  readonly name: string;
  readonly path: string;
  readonly offset: number;
  readonly byteLength: number;
  readonly dtype: WeightDType;
  readonly rows: number;
}

export interface NativeTeam {
  readonly threads: number;
  /** Of each thread; empty = where the system likes. */
  readonly places: readonly ThreadPlace[];
  /** The calling thread may be bound too. */
  readonly ownsThread: boolean;
}

export interface NativeModelConfig extends NativeTeam {
  readonly isa: string;
  /** Five numbers a value, see native_program.ts. */
  readonly values: Float64Array;
  readonly calls: Float64Array;
  readonly logits: number;
  readonly vocab: number;
  readonly arenaBytes: number;
  readonly kv: {
    readonly layers: number;
    readonly kvHeads: number;
    readonly headDim: number;
    readonly dtype: KvDType;
    readonly blockSize: number;
    readonly numBlocks: number;
  };
  readonly limits: { readonly tokens: number; readonly sequences: number; readonly logitRows: number };
}

/** A step as `bindStep` takes it: T, S, R, maxBlocksPerSeq, then the arrays of StepInputs in this order. */
export type NativeStep = [
  tokens: number,
  sequences: number,
  logitRows: number,
  maxBlocksPerSeq: number,
  tokenIds: Int32Array,
  positions: Int32Array,
  slotMapping: Int32Array,
  queryStarts: Int32Array,
  seqLens: Int32Array,
  blockTables: Int32Array,
  logitRowIds: Int32Array,
];

export type NativeWeightType = WeightDType | QuantizedType;

export interface NativeModel {
  loadLinear(value: number, tensors: readonly NativeTensor[], width: number, type: NativeWeightType): void;
  loadDense(value: number, tensors: readonly NativeTensor[], width: number): void;
  /** `checked`: the elements are known to be finite. */
  loadMapped(value: number, tensor: NativeTensor, width: number, checked: boolean): void;
  /** A linear weight that `savePacked` wrote at `offset`. */
  mapPacked(value: number, path: string, offset: number, rows: number, width: number, type: NativeWeightType): void;
  /**
   * Begins to write packed linears to `temporary`, which becomes `path` once it is whole. Fails at once when the disk has no
   * room for `bytes`; a file that is not whole when the model closes is given up.
   */
  savePacked(
    temporary: string,
    path: string,
    header: Uint8Array,
    values: Float64Array,
    offsets: Float64Array,
    bytes: number,
  ): void;
  packedState(): 'none' | 'writing' | 'done' | 'failed';
  /** A table of zeros. */
  reserveTable(value: number, rows: number, width: number): void;
  /** Rows of it from `begin`. */
  writeTable(value: number, begin: number, data: Float32Array): void;
  setLinear(value: number, data: Float32Array, rows: number, width: number, type: NativeWeightType): void;
  setDense(value: number, data: Float32Array, rows: number, width: number): void;
  finishLoading(): void;
  /** What every run from now on reads: these very arrays. */
  bindStep(...step: NativeStep): void;
  /** What runs that draw read and write from now on: rows, five numbers each, ids; see RowDraws of backend.ts. */
  bindDraws(rows: Int32Array, numbers: Float64Array, tokenIds: Int32Array): void;
  /** The bound step, then tokens from the first `draws` of the bound rows. */
  run(draws: number): void;
  /** Calls [begin, end) of the program on the bound step. */
  runCalls(begin: number, end: number): void;
  /** From now on each run writes when its calls ended: [calls + 1], ms since it began. */
  profile(marks: Float64Array): void;
  logits(): ArrayBuffer;
  readValue(value: number, rows: number, out: Float32Array): void;
  writeValue(value: number, rows: number, data: Float32Array): void;
  readKv(layer: number, keys: Float32Array, values: Float32Array): void;
  writeKv(layer: number, keys: Float32Array, values: Float32Array): void;
  memory(): { weightBytes: number; kvBytes: number; scratchBytes: number };
  logSumExp(row: number): number;
  argmax(row: number): number;
  topK(row: number, k: number, ids: Int32Array, logits: Float32Array): number;
  rank(row: number, id: number): number;
  sample(row: number, temperature: number, topK: number, topP: number, minP: number, u: number): number;
  process(row: number, temperature: number, topK: number, topP: number, minP: number): void;
  close(): void;
}

export interface NativeCpu {
  readonly name: string;
  /** Instruction sets that the kernels know and this processor has. */
  readonly features: readonly string[];
  /** 0 = unknown. */
  readonly l1dBytes: number;
  readonly l2Bytes: number;
  readonly l3Bytes: number;
}

export interface NativeModelClass {
  new (config: NativeModelConfig): NativeModel;
  /** Bytes of a packed linear weight. */
  packedBytes(rows: number, width: number, type: NativeWeightType): number;
  /** Differs between layouts. */
  readonly packVersion: number;
}

export interface NativeBinding {
  readonly Model: NativeModelClass;
  /** Best first; `emulated`: also those that only tests use. */
  isaLevels(emulated: boolean): string[];
  cpu(): NativeCpu;
  /** GB/s of reading `bytes` of memory. */
  measureBandwidth(team: NativeTeam, bytes: number): number;
  /** 10^9 operations per second; kind 0 = fp32 multiply-add, 1 = bf16 dot product, 2 = int8 dot product. */
  measurePeak(team: NativeTeam, isa: string, kind: number): number;
  /** Microseconds until all threads have met at a barrier, and of a run without work after `idleUs` without one. */
  measureTeam(team: NativeTeam, idleUs: number): { barrierUs: number; runUs: number };
}

const require = createRequire(import.meta.url);

/** Literal names, so that bundlers see them. */
const PLATFORM_PACKAGES: Readonly<Record<string, () => string>> = {
  'linux-x64-gnu': () => require.resolve('@tokenmill/cpu-linux-x64-gnu'),
  'linux-arm64-gnu': () => require.resolve('@tokenmill/cpu-linux-arm64-gnu'),
};

let loaded: NativeBinding | null = null;

/** The addon. Throws TokenmillError `native_missing` with the exact cure. */
export function loadNative(): NativeBinding {
  loaded ??= open(process.env['TOKENMILL_NATIVE']);
  return loaded;
}

function open(explicit: string | undefined): NativeBinding {
  if (explicit !== undefined && explicit !== '') {
    if (!existsSync(explicit)) throw missing(`TOKENMILL_NATIVE names ${explicit}, which does not exist.`);
    return requireTried(explicit);
  }
  const localBuild = join(packageRoot(), 'build', 'Release', 'tokenmill.node');
  if (existsSync(localBuild)) return requireBinary(localBuild);
  const packaged = findPackage();
  if (packaged !== null) return requireTried(packaged);
  throw missing(`There is no native binary for ${platformName()}.`);
}

function platformName(): string {
  if (process.platform !== 'linux') return `${process.platform}-${process.arch}`;
  const report = process.report?.getReport() as { header?: { glibcVersionRuntime?: string } } | undefined;
  return `linux-${process.arch}-${report?.header?.glibcVersionRuntime === undefined ? 'musl' : 'gnu'}`;
}

function findPackage(): string | null {
  try {
    return PLATFORM_PACKAGES[platformName()]?.() ?? null;
  } catch {
    return null;
  }
}

function missing(cause: string): TokenmillError {
  const name = platformName();
  const known = name in PLATFORM_PACKAGES;
  const remedy = existsSync(join(packageRoot(), 'native', 'build.mjs'))
    ? 'Build it with `node native/build.mjs` (needs cmake and a C++ compiler), or use --backend reference.'
    : known
      ? `Install it with \`npm install @tokenmill/cpu-${name}\` (npm leaves it out under --omit=optional), or use --backend reference.`
      : `Prebuilt ones exist for ${Object.keys(PLATFORM_PACKAGES).join(', ')}; elsewhere build from a clone with \`node native/build.mjs\`, or use --backend reference.`;
  return new TokenmillError('native_missing', cause, { remedy });
}

function requireBinary(path: string): NativeBinding {
  try {
    return require(path) as NativeBinding;
  } catch (cause) {
    throw missing(`The native binary ${path} cannot be loaded: ${(cause as Error).message}.`);
  }
}

function requireTried(path: string): NativeBinding {
  const { mtimeMs, size } = statSync(path);
  const key = `${path} ${mtimeMs} ${size} ${process.version}`;
  const record = join(process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'tokenmill', 'native-tried');
  let tried = false;
  try {
    tried = readFileSync(record, 'utf8') === key;
  } catch {
    // Never tried before.
  }
  if (!tried) {
    tryInChild(path);
    try {
      mkdirSync(dirname(record), { recursive: true });
      writeFileSync(record, key);
    } catch {
      // A read-only home only means that it is tried again next time.
    }
  }
  return requireBinary(path);
}

function tryInChild(path: string): void {
  try {
    const script = 'require(process.argv[1]).isaLevels(false)';
    execFileSync(process.execPath, ['-e', script, path], { stdio: 'pipe', timeout: 30_000 });
  } catch (cause) {
    const { signal, stderr } = cause as { signal?: string; stderr?: Buffer };
    const why = signal
      ? `it ends with ${signal}`
      : (stderr?.toString().match(/^\w*Error: .*$/m)?.[0] ?? 'it does not load');
    throw missing(`The native binary ${path} does not work on this machine: ${why}.`);
  }
}

/** Runs native code; its errors become TokenmillError, or AssertionError where our own code broke a rule. */
export function native<T>(work: () => T): T {
  try {
    return work();
  } catch (error) {
    const code = (error as { code?: unknown }).code;
    const message = (error as Error).message;
    if (code === 'assertion') throw new AssertionError(`native: ${message}`);
    if (typeof code === 'string' && code in ERRORS)
      throw new TokenmillError(code as ErrorCode, message, { cause: error });
    throw error;
  }
}
