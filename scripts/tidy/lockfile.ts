/** What a user's `npm install tokenmill` pulls in: must run on the oldest Node we name and run no scripts. */
import semver from 'semver';

interface LockEntry {
  readonly version?: string;
  readonly dev?: boolean;
  readonly devOptional?: boolean;
  readonly hasInstallScript?: boolean;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
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

/**
 * `npm ci` refuses a lock file that lacks an optional dependency, even one for another platform. npm leaves them out of the
 * file when the registry it asks does not have them.
 */
export function missingFromLock(lock: Lockfile): string[] {
  const installed = new Set(Object.keys(lock.packages).map((path) => path.replace(/^.*node_modules\//, '')));
  return Object.values(lock.packages)
    .flatMap(({ optionalDependencies }) => Object.keys(optionalDependencies ?? {}))
    .filter((name) => !installed.has(name))
    .map((name) => `${name} is missing from package-lock.json; npm ci would fail`);
}
