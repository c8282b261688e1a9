/** API keys: compared in constant time over hashes, so that neither length nor content leaks. */
import { createHash, timingSafeEqual } from 'node:crypto';

/** Paths that need no key: probes, metrics and docs. Everything else does, other than in vLLM, which guards only /v1. */
export const OPEN_PATHS: ReadonlySet<string> = new Set([
  '/',
  '/health',
  '/livez',
  '/ready',
  '/readyz',
  '/ping',
  '/version',
  '/metrics',
  '/docs',
  '/openapi.json',
]);

const digest = (text: string): Buffer => createHash('sha256').update(text, 'utf8').digest();

/** Returns the check of an `Authorization` header; with no keys everything passes. */
export function keyChecker(apiKeys: readonly string[]): (authorization: string | undefined) => boolean {
  const digests = apiKeys.map(digest);
  if (digests.length === 0) return () => true;
  return (authorization) => {
    const [scheme, ...rest] = (authorization ?? '').split(' ');
    const given = digest(rest.join(' '));
    let found = false;
    for (const known of digests) found = timingSafeEqual(given, known) || found;
    return found && scheme?.toLowerCase() === 'bearer';
  };
}
