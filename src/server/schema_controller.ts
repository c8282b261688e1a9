/**
 * How routes validate and write, for fastify's constructor: compilers that are set later would not keep it from loading its
 * own ones for JSON Schema, which takes longer than the embedded model.
 */
import type { FastifyServerOptions } from 'fastify';
import type { ZodType } from 'zod';
import { coerceLax } from './lax.ts';
import { schemaError } from './validation.ts';

const compileValidator =
  ({ schema }: { readonly schema: ZodType }) =>
  (data: unknown) => {
    const result = schema.safeParse(coerceLax(schema, data));
    return result.success ? { value: result.data } : { error: schemaError(result.error.issues, data) };
  };

// Fastify's types know validators made by ajv alone.
export const SCHEMA_CONTROLLER = {
  compilersFactory: {
    buildValidator: () => compileValidator,
    buildSerializer: () => () => (data: unknown) => JSON.stringify(data),
  },
} as unknown as NonNullable<FastifyServerOptions['schemaController']>;
