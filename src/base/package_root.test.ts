import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { findPackage, packageRoot, version } from './package_root.ts';

it('finds the folder of our package.json, past those of others', () => {
  const root = mkdtempSync(join(tmpdir(), 'tokenmill-root-'));
  try {
    const deep = join(root, 'out', 'bundle');
    mkdirSync(deep, { recursive: true });
    writeFileSync(join(deep, 'package.json'), '{ "type": "commonjs" }');
    expect(findPackage(deep)?.root).not.toBe(root);
    writeFileSync(join(root, 'package.json'), '{ "name": "tokenmill", "version": "7.8.9" }');
    expect(findPackage(deep)).toEqual({ root, manifest: { name: 'tokenmill', version: '7.8.9' } });
  } finally {
    rmSync(root, { recursive: true });
  }
});

it('knows its own folder and version', () => {
  const manifest = JSON.parse(readFileSync(join(packageRoot(), 'package.json'), 'utf8')) as { version: string };
  expect(version()).toBe(manifest.version);
});
