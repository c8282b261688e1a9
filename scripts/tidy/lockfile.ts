/** What a user's `npm install tokenmill` pulls in: must run on the oldest Node we name and run no scripts. */
import semver from 'semver';

interface LockEntry {
  readonly version?: string;
  readonly dev?: boolean;
  readonly devOptional?: boolean;
  readonly hasInstallScript?: boolean;
  readonly engines?: Readonly<Record<string, string>> | readonly string[];
}

export interface Lockfile {
  readonly packages: Readonly<Record<string, LockEntry>>;
}

/** `oldestNode` is the lower bound of our own `engines.node`, e.g. `20.19.0`. */
export function lockfileViolations(lock: Lockfile, oldestNode: string): string[] {
  const violations: string[] = [];
  for (const [path, entry] of Object.entries(lock.packages)) {
    if (path === '' || entry.dev === true || entry.devOptional === true) continue;
    const name = `${path.replace(/^.*node_modules\//, '')}@${entry.version}`;
    const range = Array.isArray(entry.engines)
      ? undefined
      : (entry.engines as Record<string, string> | undefined)?.['node'];
    if (range !== undefined && !semver.satisfies(oldestNode, range)) {
      violations.push(`${name} wants Node ${range}; we promise ${oldestNode}`);
    }
    if (entry.hasInstallScript === true) violations.push(`${name} runs a script when it is installed`);
  }
  return violations;
}
