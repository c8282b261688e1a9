/**
 * A folder of packed weights, one file a key. The files used longest ago are deleted when it would exceed its size; on every
 * system we run on, who has a deleted file mapped keeps it. Writers use names of their own and rename, so that a file under
 * its final name is whole, however many processes write it.
 */
import { createHash, randomUUID } from 'node:crypto';
import {
  closeSync,
  fstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readSync,
  realpathSync,
  rmSync,
  statfsSync,
  statSync,
  utimesSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import type { PackedStore } from '../backends/backend.ts';
import { TokenmillError } from '../base/errors.ts';

const GIB = 2 ** 30;
/** A writer touches its file all the time; one that did not for so long has ended. */
const STALE_MS = 10 * 60_000;
/** Share of the disk that is left to others. */
const KEEP_FREE = 0.05;

const PACKED = /^[0-9a-f]{64}\.packed$/;
const TEMPORARY = /^([0-9a-f]{64})\.[\w-]+\.tmp$/;

export interface PackedCacheOptions {
  readonly folder: string;
  readonly maxBytes: number;
}

interface CacheFile {
  readonly path: string;
  readonly name: string;
  readonly bytes: number;
  readonly usedMs: number;
}

export class PackedCache implements PackedStore {
  private readonly folder: string;
  private readonly maxBytes: number;

  constructor({ folder, maxBytes }: PackedCacheOptions) {
    this.folder = folder;
    this.maxBytes = maxBytes;
  }

  identify(path: string): string {
    return identifyFile(path);
  }

  pathOf(key: string): string {
    return join(this.folder, `${key}.packed`);
  }

  touch(key: string): void {
    const now = new Date();
    try {
      utimesSync(this.pathOf(key), now, now);
    } catch {
      // A folder that is only readable keeps its order; nothing is deleted there either.
    }
  }

  reserve(key: string, bytes: number): string | null {
    if (bytes > this.maxBytes) {
      throw new TokenmillError('disk_full', `They take ${gib(bytes)}, the cache may take ${gib(this.maxBytes)}.`, {
        param: '--packed-cache-max-bytes',
        remedy: 'Raise --packed-cache-max-bytes, or give --packed-cache off.',
      });
    }
    mkdirSync(this.folder, { recursive: true, mode: 0o700 });
    const files = this.list();
    const writers = files.filter(({ name }) => TEMPORARY.test(name));
    const [ended, writing] = [writers.filter(isStale), writers.filter((file) => !isStale(file))];
    for (const { path } of ended) rmSync(path, { force: true });
    if (writing.some(({ name }) => name.startsWith(key))) return null;
    const packed = files.filter(({ name }) => PACKED.test(name) && name !== `${key}.packed`);
    this.evict(packed, bytes + sum(writing));
    this.checkDisk(bytes);
    return join(this.folder, `${key}.${randomUUID()}.tmp`);
  }

  /** Deletes the files used longest ago until `bytes` fit. */
  private evict(files: readonly CacheFile[], bytes: number): void {
    let total = sum(files) + bytes;
    for (const file of [...files].sort((a, b) => a.usedMs - b.usedMs)) {
      if (total <= this.maxBytes) return;
      rmSync(file.path, { force: true });
      total -= file.bytes;
    }
  }

  private checkDisk(bytes: number): void {
    const { bavail, blocks, bsize } = statfsSync(this.folder);
    const left = bavail * bsize - bytes;
    if (left >= blocks * bsize * KEEP_FREE) return;
    throw new TokenmillError('disk_full', `${this.folder} has ${gib(bavail * bsize)} free; they take ${gib(bytes)}.`, {
      param: '--packed-cache',
      remedy: 'Free some space, name another folder with --packed-cache, or give --packed-cache off.',
    });
  }

  private list(): CacheFile[] {
    return readdirSync(this.folder).flatMap((name) => {
      const path = join(this.folder, name);
      const found = PACKED.test(name) || TEMPORARY.test(name) ? statSync(path, { throwIfNoEntry: false }) : undefined;
      return found?.isFile() ? [{ path, name, bytes: found.size, usedMs: found.mtimeMs }] : [];
    });
  }
}

function sum(files: readonly CacheFile[]): number {
  return files.reduce((total, { bytes }) => total + bytes, 0);
}

function isStale({ usedMs }: CacheFile): boolean {
  return Date.now() - usedMs > STALE_MS;
}

function gib(bytes: number): string {
  return `${(bytes / GIB).toFixed(2)} GiB`;
}

const SAMPLES = 64;
const SAMPLE_BYTES = 4096;

/**
 * Stands for the content of a weight file. A download's blob is named by the hash that was checked when it came. Any other
 * file is known by size, time of change and 64 pages spread over it, the first and the last among them: hashing all of it would take
 * longer than packing it. Copies that keep their time are the same file; weights that were trained on differ in every page.
 */
export function identifyFile(path: string): string {
  const real = realpathSync(path);
  const name = basename(real);
  const file = openSync(real, 'r');
  try {
    const { size, mtimeNs } = fstatSync(file, { bigint: true });
    if (/^[0-9a-f]{64}$/.test(name) && basename(dirname(real)) === 'blobs') return `sha256 ${name} ${size}`;
    const hash = createHash('sha256');
    const page = Buffer.alloc(SAMPLE_BYTES);
    const last = Math.max(0, Number(size) - SAMPLE_BYTES);
    for (let i = 0; i < SAMPLES; i++) {
      const count = readSync(file, page, 0, SAMPLE_BYTES, Math.floor((last * i) / (SAMPLES - 1)));
      hash.update(page.subarray(0, count));
    }
    return `sampled ${hash.digest('hex')} ${size} ${mtimeNs}`;
  } finally {
    closeSync(file);
  }
}
