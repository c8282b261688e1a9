/**
 * Numbers and booleans written as something else, as pydantic's lax mode (the validator of vLLM) takes them: `"5"` is 5, `"on"`
 * and 1 are true, true is 1. What does not fit is left for the schema to refuse in its own words.
 */
import type { z } from 'zod';

type Schema = z.core.$ZodType;

const INT = /^\s*([+-]?\d+(?:_\d+)*)(?:\.0*)?\s*$/;
const FLOAT = /^\s*[+-]?(?:\d+(?:_\d+)*(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?\s*$/i;
const TRUE_WORDS = new Set(['1', 'true', 't', 'yes', 'y', 'on']);
const FALSE_WORDS = new Set(['0', 'false', 'f', 'no', 'n', 'off']);
/** No number that any field takes is longer. */
const MAX_CHARS = 64;

function toInteger(value: unknown, wide = false): unknown {
  if (typeof value === 'boolean') return Number(value);
  const digits = typeof value === 'string' && value.length <= MAX_CHARS ? INT.exec(value)?.[1] : undefined;
  if (digits === undefined) return value;
  const exact = BigInt(digits.replaceAll('_', '').replace(/^\+/, ''));
  return wide && !Number.isSafeInteger(Number(exact)) ? exact : Number(exact);
}

function toFloat(value: unknown): unknown {
  if (typeof value === 'boolean') return Number(value);
  const fits = typeof value === 'string' && value.length <= MAX_CHARS && FLOAT.test(value);
  return fits ? Number(value.replaceAll('_', '')) : value;
}

function toBoolean(value: unknown): unknown {
  if (value === 0 || value === 1) return value === 1;
  if (typeof value !== 'string' || value.length > MAX_CHARS) return value;
  const word = value.toLowerCase();
  return TRUE_WORDS.has(word) ? true : FALSE_WORDS.has(word) ? false : value;
}

/** Changes `children` in place. */
function coerceEach(
  children: Record<string, unknown> | unknown[],
  schemaOf: (key: string) => Schema | undefined,
): void {
  const target = children as Record<string, unknown>;
  for (const key of Object.keys(target)) {
    const schema = schemaOf(key);
    if (schema !== undefined) target[key] = coerceLax(schema, target[key]);
  }
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** Marks a schema of 64-bit integers, whose values are a number or, beyond 2^53, a bigint. */
export const INT64 = 'int64';

/** `value` as `schema` wants it; lists and objects are changed in place. */
export function coerceLax(schema: Schema, value: unknown): unknown {
  if (value === null || value === undefined) return value;
  const { def } = (schema as z.core.$ZodTypes)._zod;
  switch (def.type) {
    case 'optional':
    case 'nullable':
      return coerceLax(def.innerType, value);
    case 'number':
      return 'format' in def && def.format === 'safeint' ? toInteger(value) : toFloat(value);
    case 'custom':
      return (schema as z.ZodType).meta()?.['format'] === INT64 ? toInteger(value, true) : value;
    case 'boolean':
      return toBoolean(value);
    case 'object':
      if (isObject(value)) coerceEach(value, (key) => (Object.hasOwn(def.shape, key) ? def.shape[key] : undefined));
      return value;
    case 'record':
      if (isObject(value)) coerceEach(value, () => def.valueType);
      return value;
    case 'array':
      if (Array.isArray(value)) coerceEach(value, () => def.element);
      return value;
    case 'union':
      // Only of objects: of a union such as `string | string[]` each member has its own idea of a string.
      for (const option of def.options) if (option._zod.def.type === 'object') coerceLax(option, value);
      return value;
    default:
      return value;
  }
}
