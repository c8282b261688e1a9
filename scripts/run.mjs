/**
 * Runs the CLI from a clone, after whatever set-up is missing: `npm start` is `serve`, `npm run tokenmill -- ARGS` the rest.
 * In this same process: a second one would cost a tenth of a second and stand between the terminal and its signals.
 */
import { join } from 'node:path';
import { runCached } from './code_cache.mjs';
import { BUNDLE, setupOrExit } from './setup.mjs';

await setupOrExit();
const main = join(BUNDLE, 'main.js');
process.argv[1] = main;
runCached(main);
