/** Where the package lies, for the files that it holds beside its code. */
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

interface Manifest {
  readonly name: string;
  readonly version: string;
}

interface Package {
  readonly root: string;
  readonly manifest: Manifest;
}

/** The nearest folder above `start` whose package.json is ours; null when there is none. */
export function findPackage(start: string): Package | null {
  for (let folder = start; ; folder = dirname(folder)) {
    const path = join(folder, 'package.json');
    if (existsSync(path)) {
      const manifest = JSON.parse(readFileSync(path, 'utf8')) as Manifest;
      if (manifest.name === 'tokenmill') return { root: folder, manifest };
    }
    if (folder === dirname(folder)) return null;
  }
}

let found: Package | null = null;

function ownPackage(): Package {
  found ??= findPackage(dirname(fileURLToPath(import.meta.url)));
  if (found === null) throw new Error('The installation has no package.json; install tokenmill again.');
  return found;
}

/** The folder with package.json, from sources, from `dist/` and from bundles, whose files lie elsewhere, alike. */
export function packageRoot(): string {
  return ownPackage().root;
}

export function version(): string {
  return ownPackage().manifest.version;
}
