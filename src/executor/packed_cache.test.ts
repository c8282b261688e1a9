/** Weights packed, kept, mapped: the same bits, whatever lies in the folder. */
import { execFileSync } from 'node:child_process';
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { LoadedModel, PackedFile, PackedStore, PackOptions } from '../backends/backend.ts';
import { createCpuBackend } from '../backends/cpu/cpu_backend.ts';
import { loadModelConfig, recordProgram } from '../models/index.ts';
import { PackedCache } from '../weights/packed_cache.ts';
import { readCheckpoint } from '../weights/safetensors.ts';

const QWEN3 = new URL('../../test/golden/models/qwen3', import.meta.url).pathname;
const MAX_LENGTH = 64;
const TOKENS = [5, 17, 300, 4, 99, 250, 1];

const backend = createCpuBackend();
let scratch: string;
let folders = 0;

beforeAll(() => {
  scratch = mkdtempSync(join(tmpdir(), 'tokenmill-packed-'));
});
afterAll(() => rmSync(scratch, { recursive: true }));

const freshFolder = () => join(scratch, `${folders++}`);

function packOptions(packedStore: PackedStore | null, options: Partial<PackOptions> = {}, model = QWEN3): PackOptions {
  const program = recordProgram(loadModelConfig(model), { maxModelLen: MAX_LENGTH });
  const store = packedStore === null ? {} : { packedStore };
  return {
    program,
    tensors: readCheckpoint(model),
    weightDType: 'bfloat16',
    quantization: 'none',
    ...store,
    ...options,
  };
}

function load(options: PackOptions): LoadedModel {
  const limits = { blockSize: 16, numBlocks: 4, maxNumBatchedTokens: 32, maxNumSeqs: 1, maxLogitRows: 1 };
  return backend.load({ ...options, kvDType: 'bfloat16', threads: 2, ...limits });
}

/** Logits behind TOKENS as bits. */
function logitsOf(model: LoadedModel): Int32Array {
  const T = TOKENS.length;
  model.run({
    sizes: { T, S: 1, R: 1 },
    tokenIds: Int32Array.from(TOKENS),
    positions: Int32Array.from(TOKENS.keys()),
    slotMapping: Int32Array.from(TOKENS.keys()),
    queryStarts: Int32Array.of(0, T),
    seqLens: Int32Array.of(T),
    blockTables: Int32Array.of(0, 1, 2, 3),
    maxBlocksPerSeq: 4,
    logitRows: Int32Array.of(T - 1),
  });
  return new Int32Array(model.logits.row(0).slice().buffer);
}

/** Loads, computes, waits until what the load writes is there, and closes. */
async function runOnce(options: PackOptions): Promise<{ state: string; note: string | null; logits: Int32Array }> {
  const model = load(options);
  const logits = logitsOf(model);
  const { state, note } = model.packed;
  if (state === 'writing') await written(options);
  model.close();
  return { state, note, logits };
}

async function written(options: PackOptions): Promise<PackedFile> {
  for (;;) {
    const file = backend.findPacked(options);
    if (file?.state === 'present') return file;
    await sleep(5);
  }
}

const cacheIn = (folder: string, maxBytes = 2 ** 40) => new PackedCache({ folder, maxBytes });

describe.each([
  ['bfloat16', {}],
  ['float32', { weightDType: 'float32' }],
  ['float16', { weightDType: 'float16' }],
  ['int8', { quantization: 'int8' }],
  ['int4_g32', { quantization: 'int4_g32' }],
] as const)('%s', (_, type) => {
  test('mapped weights give the bits of packed ones', async () => {
    const alone = await runOnce(packOptions(null, type));
    expect(alone.state).toBe('unused');
    const options = packOptions(cacheIn(freshFolder()), type);
    expect(backend.findPacked(options)?.state).toBe('missing');
    expect(await runOnce(options)).toEqual({ ...alone, state: 'writing' });
    expect(await runOnce(options)).toEqual({ ...alone, state: 'mapped' });
  });
});

test('each type and each program has a file of its own', async () => {
  const store = cacheIn(freshFolder());
  const keys = [packOptions(store), packOptions(store, { quantization: 'int8' }), packOptions(store, {}, LLAMA)];
  expect(new Set(keys.map((options) => backend.findPacked(options)?.path)).size).toBe(3);
  // Rope tables are not in it.
  const program = recordProgram(loadModelConfig(QWEN3), { maxModelLen: 32 });
  expect(backend.findPacked(packOptions(store, { program }))?.path).toBe(backend.findPacked(packOptions(store))?.path);
});

const LLAMA = new URL('../../test/golden/models/llama', import.meta.url).pathname;

/** What a hostile or broken disk may have left under the name of the file. */
const DAMAGES: Readonly<Record<string, (path: string) => void>> = {
  'nothing in it': (path) => truncateSync(path, 0),
  'half of it': (path) => truncateSync(path, Math.floor(statSync(path).size / 2)),
  'a byte less': (path) => truncateSync(path, statSync(path).size - 1),
  'a byte more': (path) => writeFileSync(path, Buffer.concat([readFileSync(path), Buffer.alloc(1)])),
  'another magic': (path) => flip(path, 0),
  'another header': (path) => flip(path, 200),
  'something behind the header': (path) => flip(path, readFileSync(path).indexOf('}]}') + 5),
};

function flip(path: string, at: number): void {
  const bytes = readFileSync(path);
  bytes[at] = (bytes[at] as number) ^ 1;
  writeFileSync(path, bytes);
}

describe('a damaged file is written again:', () => {
  test.each(Object.keys(DAMAGES))('%s', async (name) => {
    const options = packOptions(cacheIn(freshFolder()));
    const { logits } = await runOnce(options);
    const { path } = await written(options);
    const whole = readFileSync(path);
    DAMAGES[name]?.(path);
    expect(backend.findPacked(options)?.state).toBe('damaged');
    expect(await runOnce(options)).toEqual({
      state: 'writing',
      note: `${path} was damaged and is written again.`,
      logits,
    });
    expect(readFileSync(path).equals(whole)).toBe(true);
  });
});

test('other weights are packed, not taken from the file of the old ones', async () => {
  const folder = join(scratch, 'changed');
  cpSync(QWEN3, folder, { recursive: true });
  const store = cacheIn(freshFolder());
  const before = await runOnce(packOptions(store, {}, folder));
  flip(join(folder, 'model.safetensors'), statSync(join(folder, 'model.safetensors')).size - 1000);
  const after = await runOnce(packOptions(store, {}, folder));
  expect(after.state).toBe('writing');
  expect(after.logits).not.toEqual(before.logits);
  expect((await runOnce(packOptions(store, {}, folder))).logits).toEqual(after.logits);
});

test('a file that is deleted while it is mapped serves on', async () => {
  const options = packOptions(cacheIn(freshFolder()));
  const { logits } = await runOnce(options);
  const model = load(options);
  expect(model.packed.state).toBe('mapped');
  rmSync((await written(options)).path);
  expect(logitsOf(model)).toEqual(logits);
  model.close();
});

describe('writers', () => {
  test('two at once end in one whole file', async () => {
    const folder = freshFolder();
    const store = cacheIn(folder);
    let writers = 0;
    // As processes that looked at the same moment.
    const racing = withReserve(
      store,
      (key, bytes) => store.reserve(key, bytes) ?? join(folder, `${key}.${writers++}.tmp`),
    );
    const options = packOptions(racing);
    const models = [load(options), load(options), load(options)];
    const { path } = await written(options);
    while (readdirSync(folder).length > 1) await sleep(5);
    const bytes = readFileSync(path);
    const [first, ...others] = models.map(logitsOf);
    for (const model of models) model.close();
    for (const logits of others) expect(logits).toEqual(first);
    expect((await runOnce(options)).logits).toEqual(first);
    expect(readFileSync(path).equals(bytes)).toBe(true);
  });

  test('one that is closed at once leaves a whole file or none', async () => {
    for (let i = 0; i < 5; i++) {
      const folder = freshFolder();
      const options = packOptions(cacheIn(folder));
      load(options).close();
      expect(readdirSync(folder).every((name) => name.endsWith('.packed'))).toBe(true);
      expect(backend.findPacked(options)?.state).not.toBe('damaged');
    }
  });
});

describe('without room the model serves unpacked, and says why:', () => {
  test('a limit', async () => {
    const used = await runOnce(packOptions(cacheIn(freshFolder(), 1000)));
    expect(used.state).toBe('unused');
    expect(used.note).toMatch(/--packed-cache-max-bytes/);
  });

  test('a folder that cannot be made', async () => {
    const file = join(scratch, 'file');
    writeFileSync(file, '');
    const used = await runOnce(packOptions(cacheIn(join(file, 'folder'))));
    expect(used.state).toBe('unused');
    expect(used.note).toMatch(/not kept for the next start: .*ENOTDIR/);
  });

  // A real one, where this process may mount it.
  describe.skipIf(!canMount())('a full disk', () => {
    test('that shows', async () => {
      const used = await withFullDisk((folder) => runOnce(packOptions(cacheIn(folder))));
      expect(used).toMatchObject({ state: 'unused', note: expect.stringMatching(/has 0.00 GiB free/) });
    });

    test('that shows when the file is made', async () => {
      const used = await withFullDisk(async (folder) => {
        const store = withReserve(cacheIn(folder), (key) => join(folder, `${key}.tmp`));
        const found = await runOnce(packOptions(store));
        expect(readdirSync(folder)).toEqual([]);
        return found;
      });
      expect(used).toMatchObject({
        state: 'unused',
        note: expect.stringMatching(/cannot be written beside .*No space left/),
      });
    });
  });
});

function withReserve(store: PackedStore, reserve: PackedStore['reserve']): PackedStore {
  const { identify, pathOf, touch } = PackedCache.prototype;
  return { identify: identify.bind(store), pathOf: pathOf.bind(store), touch: touch.bind(store), reserve };
}

function canMount(): boolean {
  const folder = mkdtempSync(join(tmpdir(), 'tokenmill-mount-'));
  try {
    mount(folder);
    execFileSync('umount', [folder]);
    return true;
  } catch {
    return false;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function mount(folder: string): void {
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', folder], { stdio: 'ignore' });
}

async function withFullDisk<T>(use: (folder: string) => Promise<T>): Promise<T> {
  const folder = freshFolder();
  mkdirSync(folder);
  mount(folder);
  try {
    return await use(folder);
  } finally {
    execFileSync('umount', [folder]);
  }
}
