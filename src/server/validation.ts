/** Schema violations in the words of vLLM's validator (pydantic), so that clients that parse them keep working. */

import type { z } from 'zod';
import { TokenmillError } from '../base/errors.ts';

type Issue = z.core.$ZodIssue;

interface Violation {
  readonly type: string;
  readonly loc: string;
  readonly msg: string;
  readonly input: unknown;
  readonly ctx?: Readonly<Record<string, string>>;
}

/** Message of integer schemas, by which their issues are known. */
export const INTEGER = 'Input should be a valid integer';

const MAX_LISTED = 10;
const MAX_INPUT_CHARS = 100;

function quote(text: string): string {
  const clipped = text.length > MAX_INPUT_CHARS ? `${text.slice(0, MAX_INPUT_CHARS)}...` : text;
  const body = clipped.replace(/\\/g, '\\\\').replace(/\n/g, '\\n').replace(/\r/g, '\\r');
  return body.includes("'") && !body.includes('"') ? `"${body}"` : `'${body.replace(/'/g, "\\'")}'`;
}

function show(value: unknown): string {
  if (value === null || value === undefined) return 'None';
  if (value === true) return 'True';
  if (value === false) return 'False';
  if (typeof value === 'string') return quote(value);
  if (Array.isArray(value)) return `'<list of ${value.length} items>'`;
  if (typeof value === 'object') return `'<dict of ${Object.keys(value).length} items>'`;
  return String(value);
}

function line(v: Violation): string {
  const ctx = v.ctx
    ? `, 'ctx': {${Object.entries(v.ctx)
        .map(([k, text]) => `'${k}': ${quote(text)}`)
        .join(', ')}}`
    : '';
  return `  {'type': '${v.type}', 'loc': '${v.loc}', 'msg': ${quote(v.msg)}, 'input': ${show(v.input)}${ctx}}`;
}

function violationError(violations: readonly Violation[]): TokenmillError {
  const count = violations.length;
  const head = `${count} validation error${count === 1 ? '' : 's'}:`;
  const body = violations.slice(0, MAX_LISTED).map(line).join('\n');
  return new TokenmillError('schema_violation', `${head}\n${body}`, { param: violations[0]?.loc ?? null });
}

function valueAt(root: unknown, path: readonly PropertyKey[]): unknown {
  let value = root;
  for (const key of path) {
    if (typeof value !== 'object' || value === null) return undefined;
    value = (value as Record<PropertyKey, unknown>)[key];
  }
  return value;
}

const BOUND_WORDS = { too_small: 'greater than or equal to', too_big: 'less than or equal to' } as const;

function typeWords(expected: string, input: unknown): [type: string, msg: string] {
  const isText = typeof input === 'string';
  switch (expected) {
    case 'int':
    case 'integer':
      if (isText) return ['int_parsing', 'Input should be a valid integer, unable to parse string as an integer'];
      if (typeof input === 'number')
        return ['int_from_float', 'Input should be a valid integer, got a number with a fractional part'];
      return ['int_type', 'Input should be a valid integer'];
    case 'number':
      if (isText) return ['float_parsing', 'Input should be a valid number, unable to parse string as a number'];
      if (typeof input === 'number') return ['finite_number', 'Input should be a finite number'];
      return ['float_type', 'Input should be a valid number'];
    case 'boolean':
      if (isText || typeof input === 'number')
        return ['bool_parsing', 'Input should be a valid boolean, unable to interpret input'];
      return ['bool_type', 'Input should be a valid boolean'];
    case 'string':
      return ['string_type', 'Input should be a valid string'];
    case 'array':
      return ['list_type', 'Input should be a valid list'];
    default:
      return ['dict_type', 'Input should be a valid dictionary'];
  }
}

function toViolation(issue: Issue, root: unknown): Violation {
  const loc = ['body', ...issue.path.map(String)].join('.');
  const input = valueAt(root, issue.path);
  if (input === undefined && issue.code === 'invalid_type')
    return { type: 'missing', loc, msg: 'Field required', input: undefined };
  switch (issue.code) {
    case 'invalid_type': {
      const [type, msg] = typeWords(issue.message === INTEGER ? 'int' : issue.expected, input);
      return { type, loc, msg, input };
    }
    case 'too_small':
    case 'too_big': {
      const limit = String(issue.code === 'too_small' ? issue.minimum : issue.maximum);
      if (Array.isArray(input)) {
        const msg = `List should have at most ${limit} items after validation, not ${input.length}`;
        return { type: 'too_long', loc, msg, input };
      }
      return { type: issue.code, loc, msg: `Input should be ${BOUND_WORDS[issue.code]} ${limit}`, input };
    }
    case 'invalid_value':
      return {
        type: 'enum',
        loc,
        msg: `Input should be ${issue.values.map((v) => `'${String(v)}'`).join(', ')}`,
        input,
      };
    case 'invalid_union':
      return { type: 'union_type', loc, msg: issue.message, input };
    default: {
      if (issue.message !== INTEGER) return { type: issue.code, loc, msg: issue.message, input };
      const [type, msg] = typeWords('int', input);
      return { type, loc, msg, input };
    }
  }
}

/** What a failed `safeParse` of the body becomes. */
export function schemaError(issues: readonly Issue[], root: unknown): TokenmillError {
  if (root === undefined || root === null) {
    return violationError([{ type: 'missing', loc: 'body', msg: 'Field required', input: undefined }]);
  }
  return violationError(issues.map((issue) => toViolation(issue, root)));
}

/** A body that is too much to look at. */
export function bodyBoundError(type: 'too_long' | 'too_deep', words: string): TokenmillError {
  return violationError([{ type, loc: 'body', msg: `Input should ${words}`, input: {} }]);
}

const MAX_VALUES = 2 ** 18;

function countValues(value: unknown, atMost: number): number {
  if (typeof value !== 'object' || value === null) return 1;
  // Lists of plain values are counted without being walked.
  if (Array.isArray(value) && value.length > atMost) return value.length;
  let count = 1;
  for (const child of Array.isArray(value) ? value : Object.values(value)) {
    count += countValues(child, atMost - count);
    if (count > atMost) break;
  }
  return count;
}

/**
 * Bounds what the schema gets to see, which makes one issue for each wrong value. `prompt` is left out: it may be a long list,
 * and its schema makes one issue in all. Throws `schema_violation`.
 */
export function checkBodySize(body: unknown): void {
  if (typeof body !== 'object' || body === null) return;
  let count = 0;
  for (const [key, value] of Object.entries(body))
    if (key !== 'prompt') count += countValues(value, MAX_VALUES - count);
  if (count > MAX_VALUES) throw bodyBoundError('too_long', `hold at most ${MAX_VALUES} values`);
}

const PARSER_WORDS: readonly (readonly [RegExp, string])[] = [
  [/property name/, 'Expecting property name enclosed in double quotes'],
  [/':' after/, "Expecting ':' delimiter"],
  [/',' or/, "Expecting ',' delimiter"],
  [/after JSON/, 'Extra data'],
  [/Unterminated string/, 'Unterminated string starting at'],
  [/control character/, 'Invalid control character at'],
  [/escape/i, 'Invalid \\escape'],
];

/** A body that JSON.parse refused. */
export function jsonError(error: Error): TokenmillError {
  const position = /at position (\d+)/.exec(error.message)?.[1] ?? '0';
  const words = PARSER_WORDS.find(([pattern]) => pattern.test(error.message))?.[1] ?? 'Expecting value';
  return violationError([
    { type: 'json_invalid', loc: `body.${position}`, msg: 'JSON decode error', input: {}, ctx: { error: words } },
  ]);
}

export function notUtf8Error(): TokenmillError {
  return violationError([
    {
      type: 'json_invalid',
      loc: 'body',
      msg: 'JSON decode error',
      input: {},
      ctx: { error: 'The body is not valid UTF-8' },
    },
  ]);
}

export function mediaTypeError(allowed: string): TokenmillError {
  return new TokenmillError(
    'schema_violation',
    `1 validation error:\n  Unsupported Media Type: Only ${allowed} is allowed`,
  );
}
