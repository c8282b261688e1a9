/** One JSON line and the http_* metrics for each answer; never a prompt. */
import type { FastifyInstance } from 'fastify';
import type { MetricsRegistry, Write } from '../metrics/registry.ts';
import type { ServerContext } from './context.ts';

/** Probes and scrapes would drown what matters. */
const UNCOUNTED = new Set(['/metrics', '/health', '/livez', '/ready', '/readyz', '/load', '/ping', '/version']);
const CLIENT_CLOSED = 499;

interface HandlerMetrics {
  readonly requestSize: Write;
  readonly responseSize: Write;
}

class HttpMetrics {
  private readonly registry: MetricsRegistry;
  private readonly highres: Write;
  private readonly sizes = new Map<string, HandlerMetrics>();

  constructor(registry: MetricsRegistry) {
    this.registry = registry;
    this.highres = registry.observer('http_request_duration_highr_seconds');
  }

  observe(
    handler: string,
    method: string,
    status: number,
    ms: number,
    requestBytes: number,
    responseBytes: number,
  ): void {
    const { registry } = this;
    registry.counter('http_requests_total', { handler, method, status: `${Math.floor(status / 100)}xx` })(1);
    registry.observer('http_request_duration_seconds', { handler, method })(ms / 1000);
    this.highres(ms / 1000);
    let sizes = this.sizes.get(handler);
    if (!sizes) {
      sizes = {
        requestSize: registry.observer('http_request_size_bytes', { handler }),
        responseSize: registry.observer('http_response_size_bytes', { handler }),
      };
      this.sizes.set(handler, sizes);
    }
    sizes.requestSize(requestBytes);
    sizes.responseSize(responseBytes);
  }
}

const KNOWN_METHODS = new Set(['GET', 'POST', 'PUT', 'DELETE', 'HEAD', 'OPTIONS', 'PATCH']);

/** `handler` is the route's pattern, `none` for unknown paths, so that the label stays bounded. */
export function observeAnswers(app: FastifyInstance, context: ServerContext): void {
  const metrics = new HttpMetrics(context.registry);
  const quiet = new Set(context.config.disableAccessLogForEndpoints);
  app.addHook('onRequest', async (request, reply) => {
    const startMs = context.clock.now();
    let answered = false;
    const { raw } = reply;
    raw.once('finish', () => {
      answered = true;
    });
    raw.once('close', () => {
      const ms = context.clock.now() - startMs;
      const status = answered ? raw.statusCode : CLIENT_CLOSED;
      const handler = request.routeOptions.url ?? 'none';
      const path = request.url.split('?', 1)[0] ?? '';
      if (!UNCOUNTED.has(handler)) {
        const method = KNOWN_METHODS.has(request.method) ? request.method : 'OTHER';
        const sent = Number(raw.getHeader('content-length') ?? 0);
        metrics.observe(handler, method, status, ms, Number(request.headers['content-length'] ?? 0) || 0, sent || 0);
      }
      if (context.config.disableAccessLog || quiet.has(path)) return;
      const { tokenCounts } = request;
      context.log.info(
        {
          method: request.method,
          path,
          status,
          ms: Math.round(ms * 10) / 10,
          requestId: request.id,
          ...(tokenCounts ? { promptTokens: tokenCounts.prompt, completionTokens: tokenCounts.completion } : {}),
        },
        'request',
      );
    });
  });
}
