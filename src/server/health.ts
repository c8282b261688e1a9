/** Liveness, readiness and the deep probe. They follow the engine's own heartbeat, never the HTTP server's good mood. */
import { TokenmillError } from '../base/errors.ts';
import type { ServerContext } from './context.ts';

const DEEP_PROBE_TIMEOUT_MS = 30_000;

function unhealthy(reason: string): TokenmillError {
  return new TokenmillError('overloaded', `The engine is not healthy: ${reason}.`, {
    remedy: 'Restart the server if this lasts.',
    retryAfterS: 5,
  });
}

/** Throws `overloaded` when the engine is dead or stuck. */
export function checkEngine(context: ServerContext): void {
  const health = context.llm.health();
  if (!health.healthy) throw unhealthy(health.reason ?? 'no reason given');
}

/** Throws `overloaded` while draining or unhealthy. */
export function checkReady(context: ServerContext): void {
  if (context.active.isDraining) {
    throw new TokenmillError('overloaded', 'The server is shutting down.', {
      retryAfterS: context.config.shutdownTimeoutS,
    });
  }
  checkEngine(context);
}

/** Generates one token for real. Probes that overlap share one, so that an open route cannot be used to load the engine. */
export function deepProber(context: ServerContext): () => Promise<void> {
  let running: Promise<void> | null = null;
  const probe = async (): Promise<void> => {
    try {
      await context.llm.probe(AbortSignal.timeout(DEEP_PROBE_TIMEOUT_MS));
    } catch (error) {
      throw unhealthy(`the deep probe failed (${error instanceof Error ? error.message : String(error)})`);
    } finally {
      running = null;
    }
  };
  return () => {
    running ??= probe();
    return running;
  };
}
