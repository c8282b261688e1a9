/**
 * Scenario files: lines are commands, the indented lines under them what happened. `#` lines and empty ones are for the reader.
 * REWRITE=1 writes what happened anew; review the diff.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { expect } from 'vitest';

/** `run` carries out one command and tells what happened, a line each. */
export function checkScenario(file: string, run: (command: string, ...words: string[]) => readonly string[]): void {
  const url = new URL(file, import.meta.url);
  const before = readFileSync(url, 'utf8').split('\n');
  const after: string[] = [];
  for (const line of before) {
    if (line.startsWith('  ')) continue;
    after.push(line);
    if (line === '' || line.startsWith('#')) continue;
    const [command = '', ...words] = line.split(/\s+/);
    after.push(...run(command, ...words).map((text) => `  ${text}`));
  }
  if (process.env['REWRITE'] === '1') writeFileSync(url, after.join('\n'));
  else expect(after).toEqual(before);
}
