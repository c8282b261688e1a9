/** Plots for a terminal, as lines of text. */
import { percentile } from './statistics.ts';

const EIGHTHS = ['', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];

/** A bar of `value` out of `most`, in eighths of a column. */
function bar(value: number, most: number, width: number): string {
  const eighths = most > 0 ? Math.round((value / most) * width * 8) : 0;
  return '█'.repeat(eighths >> 3) + (EIGHTHS[eighths & 7] as string);
}

export function formatNumber(value: number): string {
  if (!Number.isFinite(value)) return 'n/a';
  const size = Math.abs(value);
  return value.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3);
}

/**
 * Counts of `values` in `rows` equal ranges, one line each. The tail beyond the 99th percentile is one last line, so that
 * a single slow request does not squeeze all others into one bar.
 */
export function histogram(values: readonly number[], unit: string, rows = 10, width = 40): string[] {
  if (values.length === 0) return ['(nothing measured)'];
  const ascending = [...values].sort((a, b) => a - b);
  const low = ascending[0] as number;
  const high = percentile(ascending, 99);
  if (high === low) return [`all ${values.length} at ${formatNumber(low)} ${unit}`];
  const counts = new Array<number>(rows).fill(0);
  let beyond = 0;
  for (const value of ascending) {
    if (value > high) beyond++;
    else {
      const row = Math.min(rows - 1, Math.floor(((value - low) / (high - low)) * rows));
      counts[row] = (counts[row] as number) + 1;
    }
  }
  const most = Math.max(...counts, beyond);
  const edge = (row: number) => formatNumber(low + ((high - low) * row) / rows);
  const labels = counts.map((_, row) => `${edge(row)} - ${edge(row + 1)} ${unit}`);
  const lines = [...counts];
  if (beyond > 0) {
    labels.push(`> ${formatNumber(high)} ${unit}`);
    lines.push(beyond);
  }
  const wide = Math.max(...labels.map((label) => label.length));
  return lines.map((count, row) => `${(labels[row] as string).padStart(wide)} │${bar(count, most, width)} ${count}`);
}

/** Share of values at or below, at ten shares from 10% to 100%: one line each, the bar as long as the value. */
export function cumulative(values: readonly number[], unit: string, width = 40): string[] {
  if (values.length === 0) return ['(nothing measured)'];
  const ascending = [...values].sort((a, b) => a - b);
  const most = ascending.at(-1) as number;
  return [10, 25, 50, 75, 90, 95, 99, 100].map((share) => {
    const value = percentile(ascending, share);
    return `${String(share).padStart(3)}% │${bar(value, most, width)} ${formatNumber(value)} ${unit}`;
  });
}

/** Columns aligned: the first to the left, the others to the right. */
export function table(rows: readonly (readonly string[])[]): string[] {
  const columns = Math.max(0, ...rows.map((row) => row.length));
  const widths = Array.from({ length: columns }, (_, at) => Math.max(...rows.map((row) => (row[at] ?? '').length)));
  return rows.map((row) =>
    row
      .map((cell, at) => (at === 0 ? cell.padEnd(widths[at] as number) : cell.padStart(widths[at] as number)))
      .join('  ')
      .trimEnd(),
  );
}
