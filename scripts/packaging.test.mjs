import { describe, expect, it } from 'vitest';
import { releaseManifest } from './pack.mjs';
import { newestSymbol } from './release_packages.mjs';
import { checkNode } from './setup.mjs';

describe('packaging', () => {
  it('reads the oldest system from the newest symbol, by number and not by letter', () => {
    const symbols = '(GLIBC_2.4) a\n(GLIBC_2.17) b\n(GLIBC_2.2.5) c\n(GLIBCXX_3.4.30) d\n(GLIBC_PRIVATE) e';
    expect(newestSymbol(symbols, 'GLIBC')).toBe('2.17');
    expect(newestSymbol(symbols, 'GLIBCXX')).toBe('3.4.30');
    expect(newestSymbol('', 'GLIBC')).toBeNull();
  });

  it('publishes without scripts and development, with platform packages of its own version', () => {
    const main = {
      name: 'tokenmill',
      version: '1.2.3',
      scripts: { start: 'x' },
      devDependencies: { a: '1' },
      dependencies: { b: '1' },
    };
    const platform = { name: '@tokenmill/cpu-linux-x64-gnu', version: '1.2.3' };
    expect(releaseManifest(main, [platform])).toEqual({
      name: 'tokenmill',
      version: '1.2.3',
      dependencies: { b: '1' },
      optionalDependencies: { '@tokenmill/cpu-linux-x64-gnu': '1.2.3' },
    });
    expect(() => releaseManifest(main, [{ ...platform, version: '1.2.2' }])).toThrow('1.2.2');
  });
});

describe('set-up', () => {
  it('refuses a Node that is too old, and names the one it needs', () => {
    expect(() => checkNode('18.20.0')).toThrow(/needs Node\.js 20\.19\.0 or newer; this is 18\.20\.0/);
    for (const version of ['20.19.0', '20.20.2', '22.0.0', '25.0.0-nightly'])
      expect(() => checkNode(version)).not.toThrow();
  });
});
