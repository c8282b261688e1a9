/**
 * Joins dist/ and the packages it imports into a few files under .cache/bundle/, from which a clone runs: finding and
 * linking a thousand small modules takes longer than loading the embedded model. Not part of the published package.
 */
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { rolldown } from 'rolldown';
import { BUNDLE, ROOT } from './setup.mjs';

const dist = join(ROOT, 'dist');
const entries = {
  main: join(dist, 'cli', 'main.js'),
  engine_thread: join(dist, 'client', 'engine_thread.js'),
  gateway_main: join(dist, 'fleet', 'gateway', 'gateway_main.js'),
};

const build = await rolldown({ input: entries, platform: 'node', logLevel: 'warn' });
const { output } = await build.generate({
  format: 'cjs',
  entryFileNames: '[name].js',
  chunkFileNames: '[name]-[hash].js',
  comments: false,
});
await build.close();

/** One letter beyond ASCII would double what V8 has to read of a file; such letters stand in literals only. */
const inAscii = (code) =>
  code.replace(/[^\0-\x7f]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`);

// Names of chunks change with their content, and what nothing imports any more would stay.
rmSync(BUNDLE, { recursive: true, force: true });
mkdirSync(BUNDLE, { recursive: true });
// All in one folder, because the engine's thread and the gateway are looked for beside the file that starts them.
for (const { fileName, code } of output) writeFileSync(join(BUNDLE, fileName), inAscii(code));
writeFileSync(join(BUNDLE, 'package.json'), '{ "type": "commonjs" }\n');
