import { closeSync, fstatSync, openSync, readSync } from 'node:fs';

/** Exactly `length` bytes of a file from `offset`; fewer is an error of the caller's, who knows the file's size. */
export function readRange(path: string, offset: number, length: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  const file = openSync(path, 'r');
  try {
    // One readSync takes at most 2 GiB.
    for (let done = 0; done < length; ) {
      const count = readSync(file, bytes, done, Math.min(length - done, 1 << 30), offset + done);
      if (count === 0) throw new Error(`${path} ends before byte ${offset + length}`);
      done += count;
    }
  } finally {
    closeSync(file);
  }
  return bytes;
}

/** Size in bytes. */
export function fileSize(path: string): number {
  const file = openSync(path, 'r');
  try {
    return fstatSync(file).size;
  } finally {
    closeSync(file);
  }
}
