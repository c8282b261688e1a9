/** Durations as Go and Kubernetes write them: `300ms`, `1m30s`, `1.5h`, `0`. */
const UNIT_MS: Readonly<Record<string, number>> = { ns: 1e-6, us: 1e-3, ms: 1, s: 1000, m: 60_000, h: 3_600_000 };

const FORM = /^(?:\d{1,10}(?:\.\d{1,9})?(?:ns|us|ms|s|m|h)){1,8}$/;

/** ms; null when it is not a duration. */
export function parseDuration(text: string): number | null {
  if (text === '0') return 0;
  if (!FORM.test(text)) return null;
  let total = 0;
  for (const [, number, unit] of text.matchAll(/([\d.]+)([a-z]+)/g)) {
    total += Number(number) * (UNIT_MS[unit as string] as number);
  }
  return total;
}
