import { typeError } from './errors.ts';
import type { CallArgs, Value } from './values.ts';
import { isInteger, typeName, Undefined } from './values.ts';

/**
 * Arguments by parameter name, as Python binds them; what was not given is `undefined`.
 * @param required how many of the first parameters must be given.
 */
export function bind(name: string, call: CallArgs, params: readonly string[], required: number): (Value | undefined)[] {
  if (call.args.length > params.length) {
    throw typeError(`${name}() takes at most ${params.length} arguments (${call.args.length} given)`);
  }
  const bound: (Value | undefined)[] = params.map((_, i) => call.args[i]);
  for (const [key, value] of call.kwargs) {
    const at = params.indexOf(key);
    if (at < 0) throw typeError(`${name}() got an unexpected keyword argument '${key}'`);
    if (at < call.args.length) throw typeError(`${name}() got multiple values for argument '${key}'`);
    bound[at] = value;
  }
  const missing = params.slice(0, required).filter((_, i) => bound[i] === undefined);
  if (missing.length > 0) throw typeError(`${name}() missing required argument: '${missing[0]}'`);
  return bound;
}

export function wantString(value: Value, where: string): string {
  if (typeof value === 'string') return value;
  if (value instanceof Undefined) value.raise();
  throw typeError(`${where}: expected str, not ${typeName(value)}`);
}

export function wantInt(value: Value, where: string): number {
  if (isInteger(value)) return Number(value);
  if (value instanceof Undefined) value.raise();
  throw typeError(`${where}: '${typeName(value)}' object cannot be interpreted as an integer`);
}
