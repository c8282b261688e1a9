/** Prometheus text exposition 0.0.4, read: what replicas answer at /metrics. Hostile text gives fewer samples, never more work than its size. */

export interface Exposed {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

const NAME = /[a-zA-Z_:][a-zA-Z0-9_:]*/y;
const LABEL = /\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*"((?:[^"\\]|\\.)*)"\s*,?/y;
const MAX_LABELS = 32;
const MAX_LINE_CHARS = 4096;

/** At most `maxSamples`; lines that cannot be read are left out. */
export function parseExposition(text: string, maxSamples: number): Exposed[] {
  const found: Exposed[] = [];
  for (const line of text.split('\n')) {
    if (found.length >= maxSamples) break;
    if (line === '' || line.startsWith('#') || line.length > MAX_LINE_CHARS) continue;
    const sample = parseLine(line);
    if (sample !== null) found.push(sample);
  }
  return found;
}

function parseLine(line: string): Exposed | null {
  NAME.lastIndex = 0;
  const name = NAME.exec(line)?.[0];
  if (name === undefined) return null;
  let at = name.length;
  const labels: [string, string][] = [];
  if (line[at] === '{') {
    at++;
    while (labels.length <= MAX_LABELS) {
      LABEL.lastIndex = at;
      const pair = LABEL.exec(line);
      if (pair === null) break;
      labels.push([pair[1] as string, unescaped(pair[2] as string)]);
      at = LABEL.lastIndex;
    }
    if (line[at] !== '}') return null;
    at++;
  }
  const value = parseValue(line.slice(at).trim().split(/\s+/, 1)[0] as string);
  // fromEntries defines properties: a label called __proto__ is one like any other.
  return value === null ? null : { name, labels: Object.fromEntries(labels), value };
}

function unescaped(text: string): string {
  return text.includes('\\') ? text.replace(/\\(.)/g, (_, letter: string) => (letter === 'n' ? '\n' : letter)) : text;
}

function parseValue(text: string): number | null {
  if (text === '+Inf' || text === 'Inf') return Number.POSITIVE_INFINITY;
  if (text === '-Inf') return Number.NEGATIVE_INFINITY;
  if (text === 'NaN') return Number.NaN;
  return /^[+-]?(\d|\.\d)/.test(text) && Number.isFinite(Number(text)) ? Number(text) : null;
}
