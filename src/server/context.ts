/** What the routes share. */
import type { Logger } from 'pino';
import type { Clock } from '../base/clock.ts';
import { TokenmillError } from '../base/errors.ts';
import type { AsyncLLM } from '../client/async_llm.ts';
import type { EngineMetrics } from '../metrics/observer.ts';
import type { MetricsRegistry, Write } from '../metrics/registry.ts';
import type { ActiveRequests } from './active.ts';
import type { ServerConfig } from './config.ts';

export interface ServerContext {
  readonly llm: AsyncLLM;
  readonly config: ServerConfig;
  readonly clock: Clock;
  readonly registry: MetricsRegistry;
  readonly metrics: EngineMetrics;
  readonly slowReaders: Write;
  readonly active: ActiveRequests;
  readonly log: Logger;
  readonly systemFingerprint: string;
  readonly warnUnknownFields: (body: Readonly<Record<string, unknown>>, known: ReadonlySet<string>) => void;
}

/** Token counts of an answer, for the access log. */
export interface TokenCounts {
  prompt: number;
  completion: number;
}

declare module 'fastify' {
  interface FastifyRequest {
    tokenCounts: TokenCounts | null;
  }
}

/** The served name to answer with. Throws `model_not_found`. */
export function resolveModel(context: ServerContext, requested: string | null | undefined): string {
  const names = context.llm.plan.servedModelNames;
  const first = names[0] ?? '';
  if (!requested) return first;
  if (names.includes(requested)) return requested;
  throw new TokenmillError(
    'model_not_found',
    `The model \`${requested.slice(0, 200)}\` does not exist. Valid aliases: ${names.join(', ')}.`,
    {
      param: 'model',
    },
  );
}

const MAX_WARNED = 1000;

/** Unknown fields are accepted, as in vLLM, and named once in the log. */
export function unknownFieldWarner(log: Logger): ServerContext['warnUnknownFields'] {
  const warned = new Set<string>();
  return (body, known) => {
    for (const field of Object.keys(body)) {
      if (known.has(field) || warned.has(field) || warned.size >= MAX_WARNED) continue;
      warned.add(field);
      log.warn({ field: field.slice(0, 100) }, 'unknown request field is ignored (said once per field)');
    }
  };
}
