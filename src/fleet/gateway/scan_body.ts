/**
 * Finds a few top-level fields in the bytes of a JSON object without parsing the rest: a prompt of megabytes costs as much as looking
 * for its quotes. What is found is not proof of valid JSON; the replica, which parses it all, is the judge.
 */
import { TokenmillError } from '../../base/errors.ts';

export interface BodyField {
  /** Of the value's bytes in the body, quotes included. */
  readonly start: number;
  readonly end: number;
}

/** Null prototype: keys come from outside. */
export type BodyFields = { [name: string]: BodyField };

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COMMA = 0x2c;
const COLON = 0x3a;
const OPEN_LIST = 0x5b;
const CLOSE_LIST = 0x5d;
const OPEN_OBJECT = 0x7b;
const CLOSE_OBJECT = 0x7d;

/** Top-level keys of one object; those of requests number dozens. */
const MAX_KEYS = 1024;
const MAX_KEY_BYTES = 256;
const MAX_DEPTH = 128;

function bad(why: string): TokenmillError {
  return new TokenmillError('invalid_request', `The request body is not valid JSON: ${why}.`);
}

function skipBlanks(bytes: Buffer, start: number): number {
  let at = start;
  for (; at < bytes.length; at++) {
    const byte = bytes[at] as number;
    if (byte !== 32 && byte !== 10 && byte !== 13 && byte !== 9) break;
  }
  return at;
}

/** Position behind the closing quote of the string that begins at `start`. */
function skipString(bytes: Buffer, start: number): number {
  for (let at = start + 1; ; at++) {
    at = bytes.indexOf(QUOTE, at);
    if (at < 0) throw bad('a string does not end');
    let slashes = 0;
    while (bytes[at - 1 - slashes] === BACKSLASH) slashes++;
    if (slashes % 2 === 0) return at + 1;
  }
}

/** Position behind the value that begins at `start`. */
function skipValue(bytes: Buffer, start: number): number {
  const first = bytes[start];
  if (first === QUOTE) return skipString(bytes, start);
  let at = start;
  let depth = 0;
  while (at < bytes.length) {
    const byte = bytes[at] as number;
    if (byte === QUOTE) {
      at = skipString(bytes, at);
      continue;
    }
    if (byte === OPEN_LIST || byte === OPEN_OBJECT) {
      if (++depth > MAX_DEPTH) throw bad(`it is nested more than ${MAX_DEPTH} deep`);
    } else if (byte === CLOSE_LIST || byte === CLOSE_OBJECT) {
      if (depth === 0) break;
      if (--depth === 0) return at + 1;
    } else if (byte === COMMA && depth === 0) break;
    at++;
  }
  if (depth > 0) throw bad('it ends within a list or an object');
  if (at === start) throw bad('a value is missing');
  return at;
}

/** Where the values of `wanted` are. The last of equal keys wins, as in JSON.parse. Throws `invalid_request`. */
export function scanBody(bytes: Buffer, wanted: ReadonlySet<string>): BodyFields {
  const found: BodyFields = Object.create(null);
  let at = skipBlanks(bytes, 0);
  if (bytes[at] !== OPEN_OBJECT) throw bad('it is no object');
  at = skipBlanks(bytes, at + 1);
  for (let keys = 0; bytes[at] !== CLOSE_OBJECT; keys++) {
    if (keys >= MAX_KEYS) throw bad(`it has more than ${MAX_KEYS} keys`);
    if (bytes[at] !== QUOTE) throw bad('a key is missing');
    const keyEnd = skipString(bytes, at);
    const key = keyEnd - at - 2 > MAX_KEY_BYTES ? '' : keyText(bytes, at, keyEnd);
    at = skipBlanks(bytes, keyEnd);
    if (bytes[at] !== COLON) throw bad('a colon is missing');
    const start = skipBlanks(bytes, at + 1);
    const end = skipValue(bytes, start);
    if (wanted.has(key)) found[key] = { start, end: trimmedEnd(bytes, start, end) };
    at = skipBlanks(bytes, end);
    if (bytes[at] === COMMA) at = skipBlanks(bytes, at + 1);
    else if (bytes[at] !== CLOSE_OBJECT) throw bad('a comma is missing');
  }
  if (skipBlanks(bytes, at + 1) !== bytes.length) throw bad('something follows the object');
  return found;
}

function keyText(bytes: Buffer, start: number, end: number): string {
  const plain = bytes.toString('latin1', start + 1, end - 1);
  return plain.includes('\\') ? String(parseValue(bytes, { start, end })) : plain;
}

function trimmedEnd(bytes: Buffer, start: number, end: number): number {
  let at = end;
  while (at > start && (bytes[at - 1] as number) <= 32) at--;
  return at;
}

function parseValue(bytes: Buffer, { start, end }: BodyField): unknown {
  try {
    return JSON.parse(bytes.toString('utf8', start, end));
  } catch (error) {
    throw bad((error as Error).message.slice(0, 100));
  }
}

/** The field's string, or null when it is absent, null, no string, or longer than `maxBytes`. */
export function stringField(bytes: Buffer, field: BodyField | undefined, maxBytes: number): string | null {
  if (field === undefined || bytes[field.start] !== QUOTE || field.end - field.start - 2 > maxBytes) return null;
  const plain = bytes.toString('utf8', field.start + 1, field.end - 1);
  return plain.includes('\\') ? String(parseValue(bytes, field)) : plain;
}

export function booleanField(bytes: Buffer, field: BodyField | undefined): boolean {
  return (
    field !== undefined && field.end - field.start === 4 && bytes.toString('latin1', field.start, field.end) === 'true'
  );
}

export function numberField(bytes: Buffer, field: BodyField | undefined): number | null {
  if (field === undefined || field.end - field.start > 32) return null;
  const text = bytes.toString('latin1', field.start, field.end);
  return /^-?\d+(\.\d+)?([eE][+-]?\d+)?$/.test(text) ? Number(text) : null;
}

/** Parses a field of at most `maxBytes`; undefined when it is absent or longer. Throws `invalid_request`. */
export function parsedField(bytes: Buffer, field: BodyField | undefined, maxBytes: number): unknown {
  return field === undefined || field.end - field.start > maxBytes ? undefined : parseValue(bytes, field);
}

/** The body with a field's value replaced by the JSON of `value`, or with the field added in front. */
export function withField(bytes: Buffer, name: string, field: BodyField | undefined, value: string | boolean): Buffer {
  const json = Buffer.from(JSON.stringify(value));
  if (field !== undefined) return Buffer.concat([bytes.subarray(0, field.start), json, bytes.subarray(field.end)]);
  const open = bytes.indexOf(OPEN_OBJECT);
  const empty = bytes[skipBlanks(bytes, open + 1)] === CLOSE_OBJECT;
  const key = Buffer.from(`${JSON.stringify(name)}:`);
  return Buffer.concat([
    bytes.subarray(0, open + 1),
    key,
    json,
    Buffer.from(empty ? '' : ','),
    bytes.subarray(open + 1),
  ]);
}
