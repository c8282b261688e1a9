/**
 * Runs a bundle of CommonJS files that lie in one folder, with V8's code cache beside each file: what an earlier run has
 * compiled is not compiled again. Node 20 has no such cache of its own.
 */
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import vm from 'node:vm';

const WRAPPER = ['(function (exports, require, module, __filename, __dirname) { ', '\n})'];

/** Code that has compiled many functions by now, so that the cache holds them; later some of it is thrown away again. */
const SAVE_AFTER_MS = 3000;

function readOrUndefined(path) {
  try {
    return readFileSync(path);
  } catch {
    return undefined;
  }
}

/** Renamed into place, because V8 believes what it reads. A folder that cannot be written to only costs the speed. */
function save(script, path) {
  const draft = `${path}.${process.pid}`;
  try {
    writeFileSync(draft, script.createCachedData());
    renameSync(draft, path);
  } catch {}
}

/** Returns what `entry` exports, a file of its folder; whatever else it requires must be of Node. */
export function runCached(entry) {
  const folder = dirname(entry);
  const outside = createRequire(entry);
  const loaded = new Map();
  const uncached = [];

  function load(path) {
    const known = loaded.get(path);
    if (known !== undefined) return known.exports;
    const cache = `${path}.cache`;
    const cachedData = readOrUndefined(cache);
    const script = new vm.Script(WRAPPER.join(readFileSync(path, 'utf8').replace(/^#!.*/, '')), {
      filename: path,
      importModuleDynamically: vm.constants.USE_MAIN_CONTEXT_DEFAULT_LOADER,
      ...(cachedData === undefined ? {} : { cachedData }),
    });
    if (script.cachedDataRejected !== false) uncached.push({ script, cache });
    const module = { exports: {} };
    loaded.set(path, module);
    script.runInThisContext().call(module.exports, module.exports, require, module, path, folder);
    return module.exports;
  }

  const require = (id) => (id.startsWith('./') ? load(join(folder, id)) : outside(id));
  require.resolve = outside.resolve;

  const saveAll = () => {
    for (const { script, cache } of uncached.splice(0)) save(script, cache);
  };
  setTimeout(saveAll, SAVE_AFTER_MS).unref();
  process.on('exit', saveAll);
  return load(entry);
}
