/**
 * Joins dist/ and the packages it imports into a few files under .cache/bundle/, from which a clone runs: finding and
 * linking a thousand small modules takes longer than loading the embedded model. Not part of the published package.
 */
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { rolldown } from 'rolldown';
import { BUNDLE, ROOT } from './setup.mjs';

export async function bundle(entries, folder) {
  const build = await rolldown({ input: entries, platform: 'node', logLevel: 'warn' });
  // Names of chunks change with their content, and what nothing imports any more would stay.
  rmSync(folder, { recursive: true, force: true });
  // All in one folder, because the engine's thread is looked for beside the file that starts it.
  await build.write({ dir: folder, format: 'cjs', entryFileNames: '[name].js', chunkFileNames: '[name]-[hash].js' });
  await build.close();
  writeFileSync(join(folder, 'package.json'), '{ "type": "commonjs" }\n');
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const dist = join(ROOT, 'dist');
  await bundle({ main: join(dist, 'cli', 'main.js'), engine_thread: join(dist, 'client', 'engine_thread.js') }, BUNDLE);
}
