import { describe, expect, it } from 'vitest';
import { engineViolations, nameViolation, oversized, oversizedText, ratchetViolations } from './tidy/code_rules.ts';
import { type Lockfile, lockfileViolations, missingFromLock } from './tidy/lockfile.ts';
import { importViolations, MAY_IMPORT } from './tidy/rooms.ts';
import { allSources, listPaths, parse, read } from './tidy/sources.ts';
import { wordViolations } from './tidy/words.ts';

const sources = allSources();
const nativePaths = listPaths('native').filter((path) => /\.(cc|h)$/.test(path));

describe('the house', () => {
  it('has no import that the table does not allow', () => {
    expect(sources.flatMap(importViolations)).toEqual([]);
  });

  it('shows the table as it is in docs/architecture.md', () => {
    const rows = read('docs/architecture.md').matchAll(/^\| `src\/(\w+)` \|.*\| ([^|]*) ?\|$/gm);
    const shown = Object.fromEntries([...rows].map(([, room, cell]) => [room, cell?.trim()]));
    const rooms = Object.entries(MAY_IMPORT).filter(([room]) => !room.includes('.'));
    expect(shown).toEqual(
      Object.fromEntries(rooms.map(([room, may]) => [room, may === 'any' ? 'any' : may.join(', ')])),
    );
  });

  it('has an engine room without async, timers, clocks and randomness', () => {
    expect(sources.flatMap(engineViolations)).toEqual([]);
  });

  it('has files and functions of a size a reader can hold', () => {
    const found = Object.assign(
      {},
      ...sources.map(oversized),
      ...nativePaths.map((path) => oversizedText(path, read(path))),
    );
    expect(ratchetViolations(found, JSON.parse(read('scripts/tidy_ratchet.json')))).toEqual([]);
  });

  it('names its files in snake_case', () => {
    const paths = [...sources.map(({ path }) => path), ...nativePaths];
    expect(paths.map(nameViolation).filter((violation) => violation !== null)).toEqual([]);
  });

  it('pulls in nothing that runs scripts or refuses the oldest Node', () => {
    const lock = JSON.parse(read('package-lock.json')) as Lockfile;
    const { engines } = JSON.parse(read('package.json')) as { engines: { node: string } };
    expect(engines.node).toMatch(/^>=\d+\.\d+\.\d+$/);
    expect(lockfileViolations(lock, engines.node.slice(2))).toEqual([]);
    expect(missingFromLock(lock)).toEqual([]);
  });

  it('does not say where it was built', () => {
    const texts = ['src', 'test', 'scripts', 'bench', 'native', 'docs', '.ci']
      .flatMap(listPaths)
      .filter((path) => /\.(ts|mjs|cc|h|md|json|txt|yaml|py)$|\.ci\//.test(path) && path !== 'scripts/tidy.test.ts');
    const top = ['README.md', 'CONTRIBUTING.md', 'CHANGELOG.md', 'package.json', 'package-lock.json'];
    expect([...top, ...texts].flatMap((path) => wordViolations(path, read(path)))).toEqual([]);
  });
});

describe('each rule can fail', () => {
  const violationsOf = (path: string, text: string) => importViolations(parse(path, text));

  it('imports', () => {
    expect(violationsOf('src/engine/a.ts', "import { x } from '../server/x.ts';")).toHaveLength(1);
    expect(violationsOf('src/engine/a.ts', "export { x } from '../executor/x.ts';")).toHaveLength(1);
    expect(violationsOf('src/server/a.ts', "const x = await import('../engine/x.ts');")).toHaveLength(1);
    expect(violationsOf('src/backends/cpu/a.ts', "import '../reference/b.ts';")).toHaveLength(1);
    expect(violationsOf('src/ops/a.ts', "import z from 'zod';")).toHaveLength(1);
    expect(violationsOf('src/attic/a.ts', '')).toHaveLength(1);
    expect(violationsOf('src/backends/cpu/a.ts', "import '../backend.ts'; import './b.ts'; import 'node:fs';")).toEqual(
      [],
    );
  });

  it('engine', () => {
    const bad = 'async function f() { await g(); } const t = Date.now(); const r = Math.random(); setTimeout(f, 1);';
    expect(engineViolations(parse('src/engine/a.ts', bad))).toHaveLength(5);
    expect(engineViolations(parse('src/client/a.ts', bad))).toEqual([]);
  });

  it('sizes', () => {
    const long = `function f() {\n${'  g();\n'.repeat(70)}}\n`;
    expect(oversized(parse('src/base/a.ts', long))).toEqual({ 'src/base/a.ts:f': 72 });
    expect(oversized(parse('src/base/a.ts', 'g();\n'.repeat(501)))).toEqual({ 'src/base/a.ts': 501 });
    expect(oversizedText('native/a.cc', '\n'.repeat(500))).toEqual({});
  });

  it('ratchet', () => {
    expect(ratchetViolations({ a: 80 }, {})).toHaveLength(1);
    expect(ratchetViolations({ a: 80 }, { a: 79 })).toHaveLength(1);
    expect(ratchetViolations({ a: 80 }, { a: 81 })).toHaveLength(1);
    expect(ratchetViolations({}, { a: 80 })).toHaveLength(1);
    expect(ratchetViolations({ a: 80 }, { a: 80 })).toEqual([]);
  });

  it('names', () => {
    expect(nameViolation('src/base/fooBar.ts')).not.toBeNull();
    expect(nameViolation('src/base/foo-bar.ts')).not.toBeNull();
    expect(nameViolation('src/base/foo_bar.test.ts')).toBeNull();
  });

  it('lockfile', () => {
    const lock: Lockfile = {
      packages: {
        '': { engines: { node: '>=99' } },
        'node_modules/a': { version: '1.0.0', engines: { node: '>=22' } },
        'node_modules/b': { version: '1.0.0', hasInstallScript: true },
        'node_modules/c': { version: '1.0.0', hasInstallScript: true, dev: true },
        'node_modules/d': { version: '1.0.0', engines: { node: '^18 || >=20' } },
      },
    };
    expect(lockfileViolations(lock, '20.19.0')).toHaveLength(2);
    const optional = {
      'node_modules/a': { optionalDependencies: { '@x/linux': '1.0.0', '@x/mac': '1.0.0' } },
      'node_modules/@x/linux': {},
    };
    expect(missingFromLock({ packages: optional })).toEqual([
      '@x/mac is missing from package-lock.json; npm ci would fail',
    ]);
  });

  it('words', () => {
    expect(wordViolations('a', 'cd /home/me/x')).toHaveLength(1);
    expect(wordViolations('a', '"/tmp/scratch"')).toHaveLength(1);
    expect(wordViolations('a', 'https://example.com/home/page and ./tmp/x')).toEqual([]);
  });
});
