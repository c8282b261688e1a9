import { createHash, type Hash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, open, rename, rm, statfs } from 'node:fs/promises';
import { dirname } from 'node:path';
import { TokenmillError } from '../base/errors.ts';
import { type RepoCache, sizeOf } from './cache.ts';
import { type HubClient, HubUnreachable, type RepoFile } from './hub_client.ts';
import type { DownloadProgress } from './hub_settings.ts';

const PARALLEL_FILES = 4;
/** Connections in a row that brought nothing, and connections in all, before a file is given up. */
const MAX_TRIES = 6;
const MAX_CONNECTIONS = 1000;
/** Kept free beside the download, for the lock, link and index files and for the rest of the machine. */
const SPARE_BYTES = 64 * 1024 * 1024;
const PROGRESS_MS = 100;

/** Where received bytes go; tests put a full disk here. */
export interface Sink {
  write(chunk: Uint8Array): Promise<void>;
  close(): Promise<void>;
}

export interface DiskAccess {
  /** Opens a file for appending at `offset`, cutting what is behind it. */
  openSink(path: string, offset: number): Promise<Sink>;
  freeBytes(folder: string): Promise<number>;
}

export const realDisk: DiskAccess = {
  async openSink(path, offset) {
    const file = await open(path, offset > 0 ? 'r+' : 'w');
    await file.truncate(offset);
    let at = offset;
    return {
      write: async (chunk) => {
        for (let done = 0; done < chunk.length; ) {
          const { bytesWritten } = await file.write(chunk, done, chunk.length - done, at);
          done += bytesWritten;
          at += bytesWritten;
        }
      },
      close: () => file.close(),
    };
  },
  async freeBytes(folder) {
    const { bavail, bsize } = await statfs(folder);
    return bavail * bsize;
  },
};

export interface DownloadJob {
  readonly id: string;
  readonly commit: string;
  readonly files: readonly RepoFile[];
  readonly cache: RepoCache;
  readonly client: HubClient;
  readonly disk: DiskAccess;
  readonly onProgress?: (progress: DownloadProgress) => void;
  readonly signal?: AbortSignal;
}

/**
 * Brings all files of the job into the cache and links them into the snapshot. Interrupted files go on where they
 * stopped; every file is checked against its hash before it gets its name.
 * @throws TokenmillError `disk_full`, `download_failed`; HubUnreachable.
 */
export async function downloadFiles(job: DownloadJob): Promise<void> {
  await mkdir(dirname(job.cache.blob('x')), { recursive: true });
  const meter = new Meter(job);
  await checkSpace(job, meter);
  const queue = [...job.files].sort((a, b) => b.size - a.size);
  const failed = new AbortController();
  const worker = async (): Promise<void> => {
    for (let file = queue.shift(); file && !failed.signal.aborted; file = queue.shift()) {
      try {
        await downloadOne(job, file, meter);
      } catch (error) {
        failed.abort();
        throw error;
      }
    }
  };
  const results = await Promise.allSettled(Array.from({ length: PARALLEL_FILES }, worker));
  for (const result of results) if (result.status === 'rejected') throw result.reason;
  meter.report('', true);
}

const incomplete = (job: DownloadJob, file: RepoFile): string => `${job.cache.blob(file.etag)}.incomplete`;

async function checkSpace(job: DownloadJob, meter: Meter): Promise<void> {
  let needed = 0;
  for (const file of job.files) {
    if ((await sizeOf(job.cache.blob(file.etag))) === file.size) {
      meter.start(file.etag, file.size);
      continue;
    }
    const have = Math.min(Math.max(0, await sizeOf(incomplete(job, file))), file.size);
    meter.start(file.etag, have);
    needed += file.size - have;
  }
  const free = await job.disk.freeBytes(job.cache.folder);
  if (needed > 0 && needed + SPARE_BYTES > free) throw diskFull(job, `${needed} bytes are needed and ${free} are free`);
}

function diskFull(job: DownloadJob, why: string, cause?: unknown): TokenmillError {
  return new TokenmillError('disk_full', `No space for ${job.id} in ${job.cache.folder}: ${why}.`, {
    remedy:
      'Delete models you no longer use from that cache folder, or set HF_HUB_CACHE to a larger disk; what is there is kept and continued.',
    cause,
  });
}

async function downloadOne(job: DownloadJob, file: RepoFile, meter: Meter): Promise<void> {
  const blob = job.cache.blob(file.etag);
  if ((await sizeOf(blob)) !== file.size) {
    await job.cache.locked(
      file.etag,
      async () => {
        if ((await sizeOf(blob)) === file.size) return;
        await fetchVerified(job, file, meter);
        await rename(incomplete(job, file), blob);
      },
      job.signal,
    );
  }
  meter.set(file.etag, file.size, file.path);
  await job.cache.link(job.commit, file.path, file.etag);
}

/** A file with the wrong hash is deleted and fetched once more from its beginning. */
async function fetchVerified(job: DownloadJob, file: RepoFile, meter: Meter): Promise<void> {
  for (let round = 0; round < 2; round++) {
    const hash = await fetchWhole(job, file, meter);
    if (hash === file.etag) return;
    await rm(incomplete(job, file), { force: true });
    meter.set(file.etag, 0, file.path);
  }
  throw new TokenmillError(
    'download_failed',
    `${job.id}/${file.path} arrived twice with a wrong checksum; it was deleted.`,
    {
      remedy: 'A proxy or mirror changes the file, or the hub is broken; try again, or another HF_ENDPOINT.',
    },
  );
}

/** Fetches until the file has its size, over as many connections as it takes; returns its hash in hex. */
async function fetchWhole(job: DownloadJob, file: RepoFile, meter: Meter): Promise<string> {
  const path = incomplete(job, file);
  let reached = 0;
  let fruitless = 0;
  for (let connection = 0; connection < MAX_CONNECTIONS; connection++) {
    const have = Math.max(0, await sizeOf(path));
    const offset = have > file.size ? 0 : have;
    const hash = await hashOfPrefix(file, path, offset);
    if (have === file.size) return hash.digest('hex');
    if (connection > 0) {
      fruitless = offset > reached ? 0 : fruitless + 1;
      if (fruitless >= MAX_TRIES) break;
      await job.client.backOff(fruitless);
    }
    reached = offset;
    try {
      const received = await fetchFrom(job, file, offset, hash, meter);
      if (received.length === file.size) return received.hash.digest('hex');
    } catch (error) {
      if (error instanceof TokenmillError || error instanceof HubUnreachable || job.signal?.aborted) throw error;
      const { code } = error as NodeJS.ErrnoException;
      if (code === 'ENOSPC' || code === 'EDQUOT') throw diskFull(job, `the disk filled up during ${file.path}`, error);
    }
  }
  throw new HubUnreachable(`the connection was lost again and again during ${job.id}/${file.path}`);
}

async function fetchFrom(
  job: DownloadJob,
  file: RepoFile,
  offset: number,
  prefixHash: Hash,
  meter: Meter,
): Promise<{ length: number; hash: Hash }> {
  const response = await job.client.open(job.id, job.commit, file.path, offset);
  const range = /^bytes (\d+)-/.exec(String(response.headers['content-range'] ?? ''));
  const resumes = response.statusCode === 206 && Number(range?.[1]) === offset;
  if (offset > 0 && !resumes) {
    // A server that cannot resume: start over, with this body if it is the whole file.
    if (response.statusCode !== 200) {
      await response.body.dump();
      await rm(incomplete(job, file), { force: true });
      return { length: 0, hash: newHash(file) };
    }
  }
  let length = resumes ? offset : 0;
  const hash = resumes ? prefixHash : newHash(file);
  const sink = await job.disk.openSink(incomplete(job, file), length);
  try {
    for await (const chunk of response.body) {
      const bytes = chunk as Buffer;
      if (length + bytes.length > file.size) {
        throw new TokenmillError('download_failed', `${job.id}/${file.path} sends more than its ${file.size} bytes.`);
      }
      await sink.write(bytes);
      hash.update(bytes);
      length += bytes.length;
      meter.received(bytes.length);
      meter.set(file.etag, length, file.path);
    }
  } finally {
    await sink.close();
  }
  return { length, hash };
}

/** sha256 of large files; git's blob hash (sha1 with a header) of the others. */
function newHash(file: RepoFile): Hash {
  return file.etag.length === 64 ? createHash('sha256') : createHash('sha1').update(`blob ${file.size}\0`);
}

async function hashOfPrefix(file: RepoFile, path: string, length: number): Promise<Hash> {
  const hash = newHash(file);
  if (length === 0) return hash;
  for await (const chunk of createReadStream(path, { end: length - 1 })) hash.update(chunk as Buffer);
  return hash;
}

/** Sums the bytes of parallel files and reports a few times a second. */
class Meter {
  private readonly job: DownloadJob;
  private readonly perBlob = new Map<string, number>();
  private readonly totalBytes: number;
  private readonly startedMs = performance.now();
  private receivedBytes = 0;
  private reportedMs = Number.NEGATIVE_INFINITY;

  constructor(job: DownloadJob) {
    this.job = job;
    this.totalBytes = [...new Map(job.files.map((file) => [file.etag, file.size])).values()].reduce((a, b) => a + b, 0);
  }

  start(etag: string, bytes: number): void {
    this.perBlob.set(etag, bytes);
  }

  received(bytes: number): void {
    this.receivedBytes += bytes;
  }

  set(etag: string, bytes: number, file: string): void {
    this.perBlob.set(etag, bytes);
    this.report(file, false);
  }

  report(file: string, force: boolean): void {
    const now = performance.now();
    if (!force && now - this.reportedMs < PROGRESS_MS) return;
    this.reportedMs = now;
    const bytes = [...this.perBlob.values()].reduce((a, b) => a + b, 0);
    const seconds = Math.max(1e-3, (now - this.startedMs) / 1000);
    this.job.onProgress?.({ file, bytes, totalBytes: this.totalBytes, bytesPerS: this.receivedBytes / seconds });
  }
}
