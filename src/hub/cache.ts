import { randomUUID } from 'node:crypto';
import {
  copyFile,
  lstat,
  mkdir,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  symlink,
  unlink,
  utimes,
  writeFile,
} from 'node:fs/promises';
import { hostname } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { isSafePath } from './names.ts';

/**
 * The cache folder of the Python tools, shared with them: `models--org--name/` with `blobs/<etag>`, `refs/<revision>`
 * (a commit) and `snapshots/<commit>/<path>`, links into blobs. Our locks lie beside theirs in `.locks/`; theirs are
 * held with flock, which Node lacks, so a download by both at once ends in a checksum error of one, never in a bad file.
 */
export class RepoCache {
  readonly folder: string;
  private readonly locks: string;

  constructor(cacheDir: string, id: string) {
    const name = `models--${id.replace('/', '--')}`;
    this.folder = join(cacheDir, name);
    this.locks = join(cacheDir, '.locks', name);
  }

  blob(etag: string): string {
    return join(this.folder, 'blobs', etag);
  }

  snapshot(commit: string): string {
    return join(this.folder, 'snapshots', commit);
  }

  /** The commit a revision stood for when it was last looked up. */
  async commitOf(revision: string): Promise<string | null> {
    if (/^[0-9a-f]{40}$/.test(revision) && (await exists(this.snapshot(revision)))) return revision;
    try {
      const commit = (await readFile(join(this.folder, 'refs', revision), 'utf8')).trim();
      return isSafePath(commit) && !commit.includes('/') ? commit : null;
    } catch {
      return null;
    }
  }

  async writeRef(revision: string, commit: string): Promise<void> {
    if (revision === commit) return;
    const path = join(this.folder, 'refs', revision);
    await mkdir(dirname(path), { recursive: true });
    const temporary = `${path}.${randomUUID()}`;
    await writeFile(temporary, commit);
    await rename(temporary, path);
  }

  /** Makes `snapshots/<commit>/<path>` point at a blob; a copy where links are not possible. */
  async link(commit: string, path: string, etag: string): Promise<void> {
    const target = join(this.snapshot(commit), path);
    await mkdir(dirname(target), { recursive: true });
    const source = relative(dirname(target), this.blob(etag));
    try {
      await symlink(source, target);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === 'EEXIST') {
        if (await exists(target)) return;
        await unlink(target);
        await symlink(source, target);
      } else if (code === 'EPERM' || code === 'ENOSYS' || code === 'ENOTSUP') {
        await copyFile(this.blob(etag), target);
      } else throw error;
    }
  }

  /** Runs `action` while no other process downloads this blob. */
  async locked<T>(etag: string, action: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    await mkdir(this.locks, { recursive: true });
    const release = await acquire(join(this.locks, `${etag}.tokenmill.lock`), signal);
    try {
      return await action();
    } finally {
      await release();
    }
  }
}

/** Size of a file behind links, or -1. */
export async function sizeOf(path: string): Promise<number> {
  try {
    return (await stat(path)).size;
  } catch {
    return -1;
  }
}

export async function exists(path: string): Promise<boolean> {
  return (await sizeOf(path)) >= 0;
}

/** Ids of the models in a cache folder. */
export async function cachedModels(cacheDir: string): Promise<string[]> {
  const names = await readdir(cacheDir).catch(() => []);
  return names.filter((name) => name.startsWith('models--')).map((name) => name.slice(8).replace('--', '/'));
}

const HEARTBEAT_MS = 5_000;
const STALE_MS = 30_000;

/**
 * A lock file made with O_EXCL. Its owner touches it every few seconds; one that was not touched for half a minute, or
 * whose process on this machine has ended, is taken over.
 */
async function acquire(path: string, signal?: AbortSignal): Promise<() => Promise<void>> {
  const mine = JSON.stringify({ pid: process.pid, host: hostname(), id: randomUUID() });
  for (;;) {
    try {
      await writeFile(path, mine, { flag: 'wx' });
      break;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    }
    await removeIfStale(path);
    await sleep(100, undefined, signal ? { signal } : {});
  }
  const heartbeat = setInterval(() => {
    const now = new Date();
    utimes(path, now, now).catch(() => undefined);
  }, HEARTBEAT_MS);
  heartbeat.unref();
  return async () => {
    clearInterval(heartbeat);
    if ((await readFile(path, 'utf8').catch(() => '')) === mine) await rm(path, { force: true });
  };
}

async function removeIfStale(path: string): Promise<void> {
  try {
    const { mtimeMs } = await lstat(path);
    const owner = JSON.parse((await readFile(path, 'utf8')) || '{}') as { pid?: unknown; host?: unknown };
    const gone = owner.host === hostname() && typeof owner.pid === 'number' && !isAlive(owner.pid);
    if (gone || Date.now() - mtimeMs > STALE_MS) await rm(path, { force: true });
  } catch {
    // Released, or written this moment, between two looks: the next turn sees.
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}
