/**
 * Packs a release into dist-pack/: the main package and the platform packages that packages/ holds.
 *
 * The platform packages become optionalDependencies in the packed manifest only: in the repository's own they would make
 * `npm ci` ask the registry for a version that is not published yet.
 */
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { PACKAGES, writePlatformPackage } from './release_packages.mjs';
import { ROOT, run, SetupError, setupOrExit } from './setup.mjs';

const OUT = join(ROOT, 'dist-pack');

function readManifest(folder) {
  return JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
}

/** The main package as it is published: no scripts, no development dependencies, platform packages of its own version. */
export function releaseManifest(main, platforms) {
  const { scripts: _scripts, devDependencies: _dev, ...kept } = main;
  const wrong = platforms.find(({ version }) => version !== main.version);
  if (wrong !== undefined)
    throw new SetupError(`${wrong.name} is ${wrong.version}, the main package ${main.version}. Build it again.`);
  return { ...kept, optionalDependencies: Object.fromEntries(platforms.map(({ name, version }) => [name, version])) };
}

async function npmPack(folder) {
  const { code, output } = await run('npm', ['pack', '--json', '--loglevel=error', '--pack-destination', OUT], {
    cwd: folder,
  });
  if (code !== 0) throw new SetupError(`npm pack failed in ${folder}:\n${output}`);
  const [packed] = JSON.parse(output.slice(output.indexOf('[')));
  return join(OUT, packed.filename);
}

/** Returns the tarballs, the main package first, and the folder it was packed from. */
export async function pack() {
  rmSync(OUT, { recursive: true, force: true });
  await writePlatformPackage();
  const platforms = readdirSync(PACKAGES).map((name) => join(PACKAGES, name));
  const main = readManifest(ROOT);
  const stage = join(OUT, 'stage');
  mkdirSync(stage, { recursive: true });
  for (const name of main.files) {
    if (!existsSync(join(ROOT, name)))
      throw new SetupError(`package.json lists ${name} in "files", which does not exist.`);
    cpSync(join(ROOT, name), join(stage, name), { recursive: true });
  }
  const manifest = releaseManifest(main, platforms.map(readManifest));
  writeFileSync(join(stage, 'package.json'), `${JSON.stringify(manifest, null, 2)}\n`);
  const tarballs = [await npmPack(stage)];
  for (const folder of platforms) tarballs.push(await npmPack(folder));
  return { tarballs, stage };
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  await setupOrExit();
  const { tarballs } = await pack();
  process.stdout.write(`${tarballs.join('\n')}\n`);
}
