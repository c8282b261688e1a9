import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';

/** Recorded histories of a real controller, one JSON object a line. */
export function histories<History>(name: 'hpa' | 'keda'): History[] {
  const text = gunzipSync(readFileSync(new URL(`${name}.jsonl.gz`, import.meta.url))).toString();
  return text
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as History);
}
