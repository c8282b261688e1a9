/** RE2 patterns of matchers as JavaScript ones: what the two do not share is refused, and so is what could take exponential time. */
import { queryError } from './query_ast.ts';

const MAX_PATTERN_CHARS = 512;

/** Anchored at both ends, as Prometheus does. */
export function compileRegex(pattern: string, at: number): RegExp {
  if (pattern.length > MAX_PATTERN_CHARS) throw queryError(`a pattern longer than ${MAX_PATTERN_CHARS} characters`, at);
  const { plain, flags } = withoutFlags(pattern);
  const refuse = (what: string) => queryError(`the pattern ${JSON.stringify(pattern)} has ${what}`, at);
  if (/\(\?(?!:)/.test(plain)) throw refuse('a group other than ( ) and (?: )');
  if (/\\[1-9kpPACQEzZxu]/.test(plain)) throw refuse('an escape that is not supported');
  if (/\[\[:/.test(plain)) throw refuse('a POSIX class, which is not supported');
  // A repetition of a repetition backtracks without bound.
  if (/[*+}][^()]*\)[*+{]/.test(plain)) throw refuse('a repeated group that holds a repetition');
  try {
    return new RegExp(`^(?:${plain})$`, flags);
  } catch {
    throw refuse('no meaning as a regular expression');
  }
}

/** `(?i)` in front; a dot fits a line end too, as in Prometheus since version 3. */
function withoutFlags(pattern: string): { readonly plain: string; readonly flags: string } {
  const given = /^\(\?([is]+)\)/.exec(pattern);
  return given
    ? { plain: pattern.slice(given[0].length), flags: given[1]?.includes('i') ? 'is' : 's' }
    : { plain: pattern, flags: 's' };
}
