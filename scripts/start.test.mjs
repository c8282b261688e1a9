/** What `npm start` stands on: set-up that notices every change, the bundle, its code cache. */
import { execFile, spawn } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { BUNDLE, listFiles, ROOT } from './setup.mjs';

const execute = promisify(execFile);

let folder;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tokenmill-start-'));
});
afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

function write(path, text) {
  const file = join(folder, path);
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, text);
}

describe('set-up of a clone', () => {
  const COPIED = ['package.json', 'package-lock.json', 'tsconfig.json', 'tsconfig.build.json'];
  const SCRIPTS = ['setup.mjs', 'bundle.mjs', 'run.mjs', 'code_cache.mjs'].map((name) => join('scripts', name));

  const script = async (name, ...args) => {
    const { stdout, stderr } = await execute(process.execPath, [join('scripts', name), ...args], { cwd: folder });
    return stderr + stdout;
  };

  /** A clone with a CLI of two files and kernels that compile at once. */
  beforeEach(() => {
    mkdirSync(join(folder, 'scripts'));
    for (const name of [...COPIED, ...SCRIPTS]) copyFileSync(join(ROOT, name), join(folder, name));
    symlinkSync(join(ROOT, 'node_modules'), join(folder, 'node_modules'));
    write('src/base/word.ts', `export const word: string = 'one';\n`);
    write('src/base/other.ts', 'export const other = 1;\n');
    write(
      'src/cli/main.ts',
      `import { word } from '../base/word.ts';\nconsole.log(word, process.argv.slice(2).join());\n`,
    );
    write('src/client/engine_thread.ts', `export { word } from '../base/word.ts';\n`);
    write('src/fleet/gateway/gateway_main.ts', `export { word } from '../../base/word.ts';\n`);
    write(
      'native/build.mjs',
      `import { mkdirSync, writeFileSync } from 'node:fs';
mkdirSync('build/Release', { recursive: true });
writeFileSync('build/Release/tokenmill.node', '');\n`,
    );
  });

  it('builds what is missing, then nothing, then what was edited', async () => {
    expect(await script('run.mjs', 'a', 'b')).toMatch(/compiling TypeScript[\s\S]*native kernels[\s\S]*one a,b\n$/);
    expect(await script('setup.mjs', '--check')).toBe('up to date\n');
    expect(await script('run.mjs')).toBe('one \n');

    write('src/base/word.ts', `export const word: string = 'edited';\n`);
    expect(await script('run.mjs')).toMatch(/^setup: compiling TypeScript[\s\S]*edited \n$/);
    expect(await script('run.mjs')).toBe('edited \n');
  });

  it('removes the outputs of a source that is gone, and makes again what was removed', async () => {
    await script('setup.mjs');
    expect(existsSync(join(folder, 'dist', 'base', 'other.js'))).toBe(true);
    rmSync(join(folder, 'src', 'base', 'other.ts'));
    expect(await script('setup.mjs')).toContain('compiling TypeScript');
    expect(listFiles(join(folder, 'dist', 'base'), () => true).filter((file) => file.includes('other'))).toEqual([]);

    rmSync(join(folder, '.cache', 'bundle'), { recursive: true });
    expect(await script('run.mjs')).toContain('one');
    expect(await script('setup.mjs', '--check')).toBe('up to date\n');
  });

  it('names the compiler that is missing, and the cure', async () => {
    copyFileSync(join(ROOT, 'native', 'build.mjs'), join(folder, 'native', 'build.mjs'));
    const bin = join(folder, 'bin');
    mkdirSync(bin);
    symlinkSync(process.execPath, join(bin, 'node'));
    const env = { ...process.env, PATH: bin, CXX: '' };
    const failed = execute(process.execPath, [join('scripts', 'setup.mjs')], { cwd: folder, env });
    const why = /needs cmake and g\+\+ and make\. Install them with `(apt-get install cmake g\+\+ make|xcode-select)/;
    await expect(failed).rejects.toMatchObject({ code: 1 });
    await failed.catch(({ stdout, stderr }) => expect(stdout + stderr).toMatch(why));
  });

  it('says what does not compile, and does not take it for built', async () => {
    await script('setup.mjs');
    write('src/base/word.ts', 'export const word: string = 1;\n');
    await expect(script('run.mjs')).rejects.toThrow(/word\.ts.*TS2322[\s\S]*The TypeScript sources do not compile\./);
    await expect(script('run.mjs')).rejects.toThrow('TS2322');
  });
});

describe('code cache', () => {
  const CACHES = ['main.js.cache', 'part-1.js.cache'];

  const launch = async () => {
    write(
      'launch.mjs',
      `import { runCached } from ${JSON.stringify(join(ROOT, 'scripts', 'code_cache.mjs'))};
const { answer } = runCached(${JSON.stringify(join(folder, 'bundle', 'main.js'))});
console.log(answer());\n`,
    );
    const { stdout } = await execute(process.execPath, [join(folder, 'launch.mjs')]);
    return stdout.trim();
  };
  /** A file that was written again is another one. */
  const caches = () => CACHES.map((name) => statSync(join(folder, 'bundle', name)).ino);

  beforeEach(() => {
    write(
      'bundle/main.js',
      `#!/usr/bin/env node
const { basename } = require('node:path');
const part = require('./part-1.js');
exports.answer = () => [basename(__filename), part.add(1, 2), part === require('./part-1.js')].join(' ');\n`,
    );
    write('bundle/part-1.js', 'exports.add = (a, b) => a + b;\n');
  });

  it('keeps what the first run compiled, and later runs use it as it is', async () => {
    expect(await launch()).toBe('main.js 3 true');
    const made = caches();
    expect(await launch()).toBe('main.js 3 true');
    expect(caches()).toEqual(made);
  });

  it('replaces a cache that is damaged or of other code', async () => {
    await launch();
    const made = caches();
    write('bundle/main.js.cache', 'not a cache');
    expect(await launch()).toBe('main.js 3 true');
    expect(readFileSync(join(folder, 'bundle', 'main.js.cache')).length).toBeGreaterThan(100);
    expect(caches()[1]).toBe(made[1]);

    write('bundle/part-1.js', 'exports.add = (a, b) => a + b + 1;\n');
    expect(await launch()).toBe('main.js 4 true');
    expect(caches()[1]).not.toBe(made[1]);
    expect(await launch()).toBe('main.js 4 true');
  });
});

describe('the bundle', () => {
  it('serves: the model, what is loaded on demand, the end', async () => {
    const child = spawn(process.execPath, [join(ROOT, 'scripts', 'run.mjs'), 'serve', '--port', '0'], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const ended = new Promise((resolve) => child.on('exit', resolve));
    try {
      let output = '';
      const url = await new Promise((resolve, reject) => {
        child.on('exit', () => reject(new Error(`the server ended:\n${output}`)));
        for (const stream of [child.stdout, child.stderr]) {
          stream.setEncoding('utf8').on('data', (text) => {
            output += text;
            const found = /serves \S+ at (http:\S+)/.exec(output);
            if (found !== null) resolve(found[1]);
          });
        }
      });
      const post = async (path, body) => {
        const headers = { 'content-type': 'application/json' };
        return (await fetch(url + path, { method: 'POST', headers, body: JSON.stringify(body) })).json();
      };
      const messages = [{ role: 'user', content: 'What is the capital of France?' }];
      const { choices } = await post('/v1/chat/completions', { messages, temperature: 0 });
      expect(choices[0].message.content).toContain('Paris');
      expect((await fetch(`${url}/docs`)).status).toBe(200);
      const { tokens } = await post('/tokenize', { prompt: 'naïve 👍\ud800', add_special_tokens: false });
      expect(await post('/detokenize', { tokens })).toEqual({ prompt: 'naïve 👍\ufffd' });
    } finally {
      child.kill('SIGTERM');
    }
    expect(await ended).toBe(0);
    expect(listFiles(BUNDLE, (name) => name.startsWith('server-') && name.endsWith('.cache'))).not.toEqual([]);
  });
});
