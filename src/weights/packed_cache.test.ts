import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { codeOf } from '../base/testdata/code_of.ts';
import { identifyFile, PackedCache } from './packed_cache.ts';

const scratch = mkdtempSync(join(tmpdir(), 'tokenmill-packed-'));
afterAll(() => rmSync(scratch, { recursive: true }));

let folders = 0;
function freshFolder(): string {
  const folder = join(scratch, `${folders++}`);
  mkdirSync(folder);
  return folder;
}

const keyOf = (digit: number) => String(digit).repeat(64);

/** A cache with files of 100 bytes, the first used longest ago. */
function filled(maxBytes: number, files: number): { cache: PackedCache; folder: string; names: () => string[] } {
  const folder = freshFolder();
  const cache = new PackedCache({ folder, maxBytes });
  for (let i = 0; i < files; i++) {
    writeFileSync(cache.pathOf(keyOf(i)), Buffer.alloc(100));
    utimesSync(cache.pathOf(keyOf(i)), 1000 + i, 1000 + i);
  }
  return { cache, folder, names: () => readdirSync(folder).map((name) => name[0] as string) };
}

describe('room', () => {
  test('is made by deleting what was used longest ago', () => {
    const { cache, names } = filled(450, 4);
    cache.touch(keyOf(0));
    expect(cache.reserve(keyOf(9), 250)).toMatch(/9{64}\.[\w-]+\.tmp$/);
    expect(names()).toEqual(['0', '3']);
  });

  test('is not made when there is enough, nor by deleting what is not ours', () => {
    const { cache, folder, names } = filled(450, 2);
    writeFileSync(join(folder, 'someone.elses'), Buffer.alloc(1000));
    cache.reserve(keyOf(9), 250);
    expect(names()).toEqual(['0', '1', 's']);
  });

  test('a file that is written again is not counted twice', () => {
    const { cache, names } = filled(300, 3);
    cache.reserve(keyOf(1), 100);
    expect(names()).toEqual(['0', '1', '2']);
  });

  test('is refused beyond the limit, and beyond the disk', () => {
    const { cache, names } = filled(450, 2);
    expect(codeOf(() => cache.reserve(keyOf(9), 451))).toBe('disk_full');
    const large = new PackedCache({ folder: freshFolder(), maxBytes: 2 ** 60 });
    expect(codeOf(() => large.reserve(keyOf(9), 2 ** 55))).toBe('disk_full');
    expect(names()).toEqual(['0', '1']);
  });
});

describe('writers', () => {
  test('one writes while another does, unless that one has ended', () => {
    const { cache, folder } = filled(1000, 0);
    const path = cache.reserve(keyOf(7), 100) as string;
    writeFileSync(path, Buffer.alloc(100));
    expect(cache.reserve(keyOf(7), 100)).toBeNull();
    expect(cache.reserve(keyOf(8), 100)).not.toBeNull();
    utimesSync(path, 1000, 1000);
    expect(cache.reserve(keyOf(7), 100)).not.toBeNull();
    expect(readdirSync(folder)).toEqual([]);
  });

  test('what is being written counts', () => {
    const { cache, names } = filled(350, 2);
    writeFileSync(cache.reserve(keyOf(7), 100) as string, Buffer.alloc(100));
    cache.reserve(keyOf(8), 100);
    expect(names()).toEqual(['1', '7']);
  });
});

describe('a weight file is known by', () => {
  const SIZE = 1_000_000;
  const write = (path: string, at = -1) => {
    const bytes = Buffer.alloc(SIZE, 1);
    if (at >= 0) bytes[at] = 2;
    writeFileSync(path, bytes);
    utimesSync(path, 5000, 5000);
  };

  test('its size, its time and its pages, not by its name', () => {
    const folder = freshFolder();
    const path = (name: string) => join(folder, name);
    write(path('a'));
    copyFileSync(path('a'), path('b'));
    utimesSync(path('b'), 5000, 5000);
    const id = identifyFile(path('a'));
    expect(identifyFile(path('b'))).toBe(id);
    for (const at of [0, SIZE - 1, Math.floor((SIZE - 4096) * (10 / 63)) + 100]) {
      write(path('c'), at);
      expect(identifyFile(path('c'))).not.toBe(id);
    }
    utimesSync(path('b'), 5001, 5001);
    expect(identifyFile(path('b'))).not.toBe(id);
  });

  test('its hash, when the hub says it', () => {
    const folder = freshFolder();
    const hash = 'ab'.repeat(32);
    mkdirSync(join(folder, 'blobs'));
    write(join(folder, 'blobs', hash));
    symlinkSync(join('blobs', hash), join(folder, 'model.safetensors'));
    expect(identifyFile(join(folder, 'model.safetensors'))).toBe(`sha256 ${hash} ${SIZE}`);
    expect(statSync(join(folder, 'model.safetensors')).size).toBe(SIZE);
  });

  test('less than a page', () => {
    const path = join(freshFolder(), 'small');
    writeFileSync(path, 'x');
    const id = identifyFile(path);
    writeFileSync(path, 'y');
    expect(identifyFile(path)).not.toBe(id);
  });
});
