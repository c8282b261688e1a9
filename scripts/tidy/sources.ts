/** The tree as the tidy rules see it: files by folder, TypeScript and JavaScript parsed once. */
import { readdirSync, readFileSync } from 'node:fs';
import { join, relative, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type ParseResult, parseSync } from 'oxc-parser';

export const ROOT = fileURLToPath(new URL('../..', import.meta.url));

/** Not ours to keep tidy: installed, built, or data. */
const SKIPPED_FOLDERS = new Set(['node_modules', 'dist', 'dist-pack', 'build', 'coverage', '.git', '.cache', 'models']);

export interface Source {
  /** From the repository's root, with forward slashes. */
  readonly path: string;
  readonly text: string;
  readonly parsed: ParseResult;
}

/** Paths of all files below `folder`, from the repository's root, with forward slashes. */
export function listPaths(folder: string): string[] {
  const found: string[] = [];
  for (const entry of readdirSync(join(ROOT, folder), { withFileTypes: true })) {
    const path = join(ROOT, folder, entry.name);
    if (entry.isDirectory()) {
      if (!SKIPPED_FOLDERS.has(entry.name)) found.push(...listPaths(relative(ROOT, path)));
    } else found.push(relative(ROOT, path).split(sep).join('/'));
  }
  return found.sort();
}

export function read(path: string): string {
  return readFileSync(join(ROOT, path), 'utf8');
}

export function parse(path: string, text: string): Source {
  return { path, text, parsed: parseSync(path, text) };
}

/** Every TypeScript and JavaScript file of the house, parsed. */
export function allSources(): Source[] {
  return ['src', 'test', 'scripts', 'bench', 'native']
    .flatMap(listPaths)
    .filter((path) => /\.(ts|mjs)$/.test(path))
    .map((path) => parse(path, read(path)));
}

export function isTest(path: string): boolean {
  return path.endsWith('.test.ts') || path.includes('/testdata/') || path.startsWith('test/');
}

/** Line of an offset, from 1. */
export function lineAt(text: string, offset: number): number {
  let line = 1;
  for (let at = text.indexOf('\n'); at !== -1 && at < offset; at = text.indexOf('\n', at + 1)) line++;
  return line;
}
