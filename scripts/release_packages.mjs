/**
 * Writes packages/<os>-<arch>-<libc>/ for the machine it runs on: one native binary and a manifest by which npm installs it
 * on such machines only. No code and no install script. A release runs this once on each kind of machine.
 */
import { copyFileSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { ADDON, ROOT, run, SetupError, setupOrExit } from './setup.mjs';

export const PACKAGES = join(ROOT, 'packages');

/** `gnu` or `musl` on Linux, null elsewhere. */
function libc() {
  if (process.platform !== 'linux') return null;
  return process.report.getReport().header.glibcVersionRuntime === undefined ? 'musl' : 'gnu';
}

export function platformName() {
  return [process.platform, process.arch, libc()].filter((part) => part !== null).join('-');
}

/** The newest versioned symbol of a library that the binary needs: the oldest system it runs on. */
export function newestSymbol(symbols, library) {
  const versions = [...symbols.matchAll(new RegExp(`\\b${library}_(\\d+(?:\\.\\d+)+)`, 'g'))].map(
    ([, version]) => version,
  );
  const parts = (version) => version.split('.').map(Number);
  const older = (a, b) => {
    const [left, right] = [parts(a), parts(b)];
    for (let i = 0; i < Math.max(left.length, right.length); i++) {
      if ((left[i] ?? 0) !== (right[i] ?? 0)) return (left[i] ?? 0) - (right[i] ?? 0);
    }
    return 0;
  };
  return versions.sort(older).at(-1) ?? null;
}

async function systemFloor(binary) {
  if (process.platform !== 'linux') return {};
  const { code, output } = await run('objdump', ['-T', binary]);
  if (code !== 0) throw new SetupError(`objdump cannot read ${binary}. Install binutils.\n${output}`);
  return { glibc: newestSymbol(output, 'GLIBC'), glibcxx: newestSymbol(output, 'GLIBCXX') };
}

/** Returns the folder it wrote. */
export async function writePlatformPackage() {
  const main = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'));
  const name = platformName();
  const folder = join(PACKAGES, name);
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  copyFileSync(ADDON, join(folder, 'tokenmill.node'));
  copyFileSync(join(ROOT, 'LICENSE'), join(folder, 'LICENSE'));
  const needs = await systemFloor(ADDON);
  const manifest = {
    name: `@tokenmill/cpu-${name}`,
    version: main.version,
    description: `Native kernels of Tokenmill for ${name}`,
    license: main.license,
    os: [process.platform],
    cpu: [process.arch],
    ...(libc() === null ? {} : { libc: [libc() === 'gnu' ? 'glibc' : 'musl'] }),
    engines: main.engines,
    main: './tokenmill.node',
    files: ['tokenmill.node'],
    tokenmill: { needs, bytes: statSync(ADDON).size },
  };
  writeFileSync(join(folder, 'package.json'), `${JSON.stringify(manifest, null, 2)}\n`);
  writeFileSync(
    join(folder, 'README.md'),
    `# ${manifest.name}\n\nThe native kernels of \`tokenmill\` for ${name}. Installed with it; not for use on its own.\n`,
  );
  return folder;
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  await setupOrExit();
  const folder = await writePlatformPackage();
  process.stdout.write(readFileSync(join(folder, 'package.json'), 'utf8'));
}
