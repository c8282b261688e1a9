/** Validated reading of config.json: every value has a type and a range, because the file is hostile input. */
import { TokenmillError } from '../base/errors.ts';
import { show } from '../base/show.ts';

export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json };
export type JsonObject = { readonly [key: string]: Json };

export function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

export class ConfigFields {
  private readonly object: JsonObject;
  /** How errors call the file or the object inside it. */
  private readonly where: string;

  constructor(object: JsonObject, where: string) {
    this.object = object;
    this.where = where;
  }

  /** Present and not null. */
  has(key: string): boolean {
    return Object.hasOwn(this.object, key) && this.object[key] !== null;
  }

  isNull(key: string): boolean {
    return Object.hasOwn(this.object, key) && this.object[key] === null;
  }

  raw(key: string): Json | undefined {
    return this.has(key) ? this.object[key] : undefined;
  }

  /** Integer in [min, max]; `fallback` when absent or null, an error when there is none. */
  int(key: string, min: number, max: number, fallback?: number): number {
    const value = this.required(key, fallback);
    if (typeof value !== 'number' || !Number.isInteger(value) || value < min || value > max) {
      throw this.invalid(key, value, `an integer from ${min} to ${max}`);
    }
    return value;
  }

  /** Finite number in [min, max]. */
  float(key: string, min: number, max: number, fallback?: number): number {
    const value = this.required(key, fallback);
    if (typeof value !== 'number' || !(value >= min && value <= max)) {
      throw this.invalid(key, value, `a number from ${min} to ${max}`);
    }
    return value;
  }

  bool(key: string, fallback: boolean): boolean {
    const value = this.required(key, fallback);
    if (typeof value !== 'boolean') throw this.invalid(key, value, 'true or false');
    return value;
  }

  string(key: string, fallback?: string): string {
    const value = this.required(key, fallback);
    if (typeof value !== 'string' || value.length > 256) throw this.invalid(key, value, 'a short string');
    return value;
  }

  /** Numbers in [min, max], exactly `length` of them. */
  floats(key: string, length: number, min: number, max: number): readonly number[] {
    const value = this.raw(key);
    const fits = Array.isArray(value) && value.length === length;
    if (!fits || !value.every((item) => typeof item === 'number' && item >= min && item <= max)) {
      throw this.invalid(key, value, `a list of ${length} numbers from ${min} to ${max}`);
    }
    return value as readonly number[];
  }

  strings(key: string, maxLength: number): readonly string[] {
    const value = this.raw(key);
    if (!Array.isArray(value) || value.length > maxLength || !value.every((item) => typeof item === 'string')) {
      throw this.invalid(key, value, `a list of at most ${maxLength} strings`);
    }
    return value as readonly string[];
  }

  /** One id or a list of them, each in [0, limit). Empty when absent. */
  tokenIds(key: string, limit: number): readonly number[] {
    const value = this.raw(key) ?? [];
    const ids = Array.isArray(value) ? value : [value];
    const fits = (id: Json) => typeof id === 'number' && Number.isInteger(id) && id >= 0 && id < limit;
    if (ids.length > 64 || !ids.every(fits)) {
      throw this.invalid(key, value, `a token id below ${limit}, or a list of at most 64`);
    }
    return ids as readonly number[];
  }

  child(key: string): ConfigFields | null {
    const value = this.raw(key);
    if (value === undefined) return null;
    if (!isObject(value)) throw this.invalid(key, value, 'an object');
    return new ConfigFields(value, `${this.where}, ${key}`);
  }

  invalid(key: string, value: unknown, expected: string): TokenmillError {
    return new TokenmillError('model_files_invalid', `${this.where}: ${key} is ${show(value)}; expected ${expected}.`, {
      param: key,
    });
  }

  private required(key: string, fallback: Json | undefined): Json | undefined {
    return this.raw(key) ?? fallback;
  }
}
