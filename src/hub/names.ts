import { TokenmillError } from '../base/errors.ts';

/** Everything a repository can name is checked here before it becomes a path or part of a URL. */

const REPO_ID = /^[A-Za-z0-9][\w.-]{0,95}(?:\/[A-Za-z0-9][\w.-]{0,95})?$/;
const MAX_PATH_BYTES = 1024;

export function isRepoId(id: string): boolean {
  return REPO_ID.test(id) && !id.includes('..') && !id.includes('--') && !/[.-]$/.test(id) && !id.endsWith('.git');
}

/** Whether `path` is relative, stays below its folder, and has no character a file system could misread. */
export function isSafePath(path: string): boolean {
  if (path === '' || Buffer.byteLength(path) > MAX_PATH_BYTES) return false;
  if (/[\p{Cc}\p{Cs}\\:*?"<>|]/u.test(path)) return false;
  const parts = path.split('/');
  return (
    parts.length <= 16 &&
    parts.every((part) => part !== '' && part !== '.' && part !== '..' && Buffer.byteLength(part) <= 255)
  );
}

export function checkRevision(revision: string): void {
  if (isSafePath(revision) && !revision.startsWith('-')) return;
  throw new TokenmillError('invalid_request', `${JSON.stringify(revision)} is not a revision.`, {
    param: 'revision',
    remedy: 'Give a branch, a tag or a commit hash, such as main.',
  });
}

/** Shell pattern as Python's fnmatch: `*` also crosses `/`. */
export function matchesPattern(path: string, pattern: string): boolean {
  let pathAt = 0;
  let patternAt = 0;
  let starAt = -1;
  let starPath = 0;
  while (pathAt < path.length) {
    const char = pattern[patternAt];
    if (char === '*') {
      starAt = patternAt++;
      starPath = pathAt;
    } else if (char === '?' || char === path[pathAt]) {
      patternAt++;
      pathAt++;
    } else if (starAt >= 0) {
      patternAt = starAt + 1;
      pathAt = ++starPath;
    } else return false;
  }
  while (pattern[patternAt] === '*') patternAt++;
  return patternAt === pattern.length;
}
