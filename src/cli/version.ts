import { readFileSync } from 'node:fs';

/** Of package.json, which lies as deep from src/cli as from dist/cli. */
export function version(): string {
  const manifest = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as {
    version: string;
  };
  return manifest.version;
}
