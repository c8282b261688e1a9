/** Strings that say where somebody built this. They help no reader and break for everybody else. */
const FORBIDDEN: readonly { readonly pattern: RegExp; readonly what: string }[] = [
  {
    pattern: /(?<![\w.$}/>-])\/(?:home|root|Users|mnt|work|scratch)\/[\w.-]+/,
    what: 'an absolute path of one machine',
  },
  { pattern: /(?<![\w.$}/>-])\/tmp\/[\w.-]+/, what: 'a path in the temporary folder (ask os.tmpdir())' },
];

/** Lines of a text that hold a forbidden string, as sentences. */
export function wordViolations(path: string, text: string): string[] {
  const violations: string[] = [];
  for (const [index, line] of text.split('\n').entries()) {
    for (const { pattern, what } of FORBIDDEN) {
      const hit = pattern.exec(line);
      if (hit !== null) violations.push(`${path}:${index + 1}: ${what}: ${hit[0]}`);
    }
  }
  return violations;
}
