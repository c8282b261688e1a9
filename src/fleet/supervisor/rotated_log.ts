/**
 * Log files of processes that outlive us. They write to an inherited descriptor (append), which no rename would move: so a
 * full file is copied aside and cut to nothing, and the writer goes on at its new end.
 */
import { closeSync, copyFileSync, openSync, readSync, renameSync, rmSync, statSync, truncateSync } from 'node:fs';

export interface LogBounds {
  readonly maxBytes: number;
  /** Old parts kept beside the file: `x.log.1` is the newest. */
  readonly maxParts: number;
}

function sizeOf(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.size ?? 0;
}

/** Descriptor for a child's stdout and stderr; the caller closes it. Nobody but the owner may read: prompts can be in it. */
export function openLog(path: string): number {
  return openSync(path, 'a', 0o600);
}

/** Moves a file that is over its bound aside. What is written between the copy and the cut is lost. */
export function rotateLog(path: string, bounds: LogBounds): boolean {
  if (sizeOf(path) <= bounds.maxBytes) return false;
  for (let part = bounds.maxParts - 1; part >= 1; part--) {
    if (sizeOf(`${path}.${part}`) > 0) renameSync(`${path}.${part}`, `${path}.${part + 1}`);
  }
  if (bounds.maxParts > 0) copyFileSync(path, `${path}.1`);
  truncateSync(path, 0);
  return true;
}

export function removeLog(path: string, bounds: LogBounds): void {
  rmSync(path, { force: true });
  for (let part = 1; part <= bounds.maxParts; part++) rmSync(`${path}.${part}`, { force: true });
}

/** The last lines, from at most `maxBytes` of the end; '' when there is no file. */
export function tailLog(
  path: string,
  lines: number,
  maxBytes = 1 << 20,
): { readonly text: string; readonly end: number } {
  const end = sizeOf(path);
  const text = readLog(path, Math.max(0, end - maxBytes), maxBytes).text;
  const all = text.split('\n');
  // The file ends with a line break: the last piece is empty.
  const open = all.at(-1) === '' ? 1 : 0;
  return { text: all.slice(Math.max(0, all.length - lines - open)).join('\n'), end };
}

/** What was written from `offset` on; begins at the start again when the file was cut. */
export function readLog(
  path: string,
  offset: number,
  maxBytes: number,
): { readonly text: string; readonly end: number } {
  const size = sizeOf(path);
  const from = offset > size ? 0 : offset;
  const length = Math.min(maxBytes, size - from);
  if (length <= 0) return { text: '', end: from };
  const file = openSync(path, 'r');
  try {
    const bytes = Buffer.alloc(length);
    const count = readSync(file, bytes, 0, length, from);
    return { text: bytes.toString('utf8', 0, count), end: from + count };
  } finally {
    closeSync(file);
  }
}
