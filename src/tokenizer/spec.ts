import { TokenmillError } from '../base/errors.ts';

/** Reading tokenizer.json, which is hostile input: every field is checked for its type before it is used. */
export type Spec = Readonly<Record<string, unknown>>;

export function invalid(message: string): TokenmillError {
  return new TokenmillError('tokenizer_invalid', `tokenizer.json: ${message}.`, {
    remedy: 'The file is damaged or made for another program; download the model again.',
  });
}

export function unsupported(what: string): TokenmillError {
  return new TokenmillError('tokenizer_invalid', `tokenizer.json asks for ${what}, which is not supported.`);
}

export function asSpec(value: unknown, where: string): Spec {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Spec;
  throw invalid(`${where} is not an object`);
}

/** A part of the pipeline, or null when the file leaves it out. */
export function asSpecOrNull(value: unknown, where: string): Spec | null {
  return value === null || value === undefined ? null : asSpec(value, where);
}

export function asString(value: unknown, where: string): string {
  if (typeof value === 'string') return value;
  throw invalid(`${where} is not a string`);
}

export function asBoolean(value: unknown, fallback: boolean, where: string): boolean {
  if (value === null || value === undefined) return fallback;
  if (typeof value === 'boolean') return value;
  throw invalid(`${where} is not true or false`);
}

export function asArray(value: unknown, where: string): readonly unknown[] {
  if (Array.isArray(value)) return value;
  throw invalid(`${where} is not a list`);
}

/** Ids beyond this would make tables of gigabytes; the largest known vocabulary has 300,000 entries. */
export const MAX_TOKEN_ID = 4_000_000;

export function asCount(value: unknown, fallback: number, max: number, where: string): number {
  if (value === null || value === undefined) return fallback;
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0 && value <= max) return value;
  throw invalid(`${where} is not a whole number up to ${max}`);
}

export function asId(value: unknown, where: string): number {
  const id = asCount(value, -1, MAX_TOKEN_ID, where);
  if (id < 0) throw invalid(`${where} is missing`);
  return id;
}
