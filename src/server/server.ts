/** The OpenAI-compatible server over an AsyncLLM: a fastify instance that listens nowhere until told to. */
import { createHash } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import type { Server as HttpsServer } from 'node:https';
import type { Socket } from 'node:net';
import cors from '@fastify/cors';
import fastify, { type FastifyInstance, type FastifyReply, type FastifyServerOptions } from 'fastify';
import { type Logger, pino } from 'pino';
import { type Clock, systemClock } from '../base/clock.ts';
import { TokenmillError } from '../base/errors.ts';
import type { AsyncLLM } from '../client/async_llm.ts';
import { EngineMetrics } from '../metrics/observer.ts';
import { MetricsRegistry } from '../metrics/registry.ts';
import { observeAnswers } from './access_log.ts';
import { ActiveRequests } from './active.ts';
import { keyChecker, OPEN_PATHS } from './auth.ts';
import { BodyReader, parseJsonBody } from './body.ts';
import { DEFAULT_SERVER_CONFIG, type ServerConfig } from './config.ts';
import { type ServerContext, unknownFieldWarner } from './context.ts';
import { drain } from './drain.ts';
import { errorBody, toHttpError } from './http_errors.ts';
import { type ListenAddress, listen } from './listen.ts';
import { registerOpenApi } from './openapi.ts';
import { clientId, randomId } from './request_id.ts';
import { normalRootPath, withoutRootPath } from './root_path.ts';
import { registerRoutes } from './routes.ts';
import { SCHEMA_CONTROLLER } from './schema_controller.ts';
import { startStatsLog } from './stats_log.ts';
import { readTls, refuseBadCertificates, watchTls } from './tls.ts';
import { checkBodySize, mediaTypeError } from './validation.ts';

/** How long last answers get to reach their clients once the server closes. */
const CLOSE_GRACE_MS = 500;

export interface Server {
  readonly app: FastifyInstance;
  readonly context: ServerContext;
  /** Binds and returns the URL, or `unix:PATH`. Throws `port_in_use` or `flag_invalid`. */
  listen(address: ListenAddress): Promise<string>;
  /** Refuses new requests, waits for running ones until shutdownTimeoutS, ends the rest, closes the sockets. Leaves the AsyncLLM open. */
  shutdown(): Promise<void>;
}

function makeContext(llm: AsyncLLM, config: ServerConfig, clock: Clock): ServerContext {
  const { plan } = llm;
  const log: Logger = config.logger ?? pino({ enabled: false });
  const registry = new MetricsRegistry({
    modelName: plan.servedModelNames[0] ?? '',
    maxModelLen: plan.maxModelLen,
    legacy: config.legacyMetrics,
    customBuckets: config.customHistogramBuckets,
    engineFamilies: !config.disableLogStats,
  });
  const metrics = new EngineMetrics(registry, plan.maxModelLen, {
    ...plan,
    memoryUtilization: plan.config.gpuMemoryUtilization,
  });
  const identity = JSON.stringify([
    plan.servedModelNames,
    plan.architecture,
    plan.quantization,
    plan.weightDType,
    plan.backend,
    plan.isa,
  ]);
  return {
    llm,
    config,
    clock,
    registry,
    metrics,
    log,
    slowReaders: registry.counter('tokenmill:slow_readers_aborted_total'),
    active: new ActiveRequests(Math.max(1, config.shutdownTimeoutS)),
    systemFingerprint: `tokenmill-${config.version}-${createHash('sha256').update(identity).digest('hex').slice(0, 8)}`,
    warnUnknownFields: unknownFieldWarner(log),
  };
}

function parseBodies(app: FastifyInstance, config: ServerConfig): void {
  const reader = new BodyReader(config.maxBodyBytes, config.maxBodyBytesTotal);
  app.removeAllContentTypeParsers();
  app.addContentTypeParser(/^application\/json(;|$)/, async (_request: unknown, payload: IncomingMessage) => {
    const encoding = payload.headers['content-encoding'] ?? 'identity';
    if (encoding !== 'identity') throw mediaTypeError(`a body without content-encoding, not ${encoding.slice(0, 40)},`);
    const bytes = await reader.read(payload, Number(payload.headers['content-length'] ?? 0));
    const body = parseJsonBody(bytes);
    checkBodySize(body);
    return body;
  });
  app.addContentTypeParser('*', async () => {
    throw mediaTypeError("'application/json'");
  });
  // As vLLM writes it; JSON is UTF-8 by definition.
  app.addHook('onSend', async (_request, reply, payload) => {
    if (reply.getHeader('content-type') === 'application/json; charset=utf-8')
      reply.header('content-type', 'application/json');
    return payload;
  });
}

function answerErrors(app: FastifyInstance, context: ServerContext): void {
  app.setErrorHandler((error, request, reply) => {
    const { status, body, retryAfterS, unexpected } = toHttpError(error);
    if (unexpected) context.log.error({ err: error, requestId: request.id }, 'request failed');
    if (retryAfterS !== null) reply.header('retry-after', retryAfterS);
    // Fastify closes after a body it could not take. Under a client that still writes, that can reset the connection before
    // the answer is read; what is left of the body is drained instead, until the request timeout.
    if (!request.raw.complete) reply.removeHeader('connection');
    return reply.code(status).send(body);
  });
  const patterns: { readonly test: RegExp; readonly methods: Set<string> }[] = [];
  app.addHook('onRoute', (route) => {
    // The preflight route of CORS matches every path, which would make every unknown path a known one.
    if (route.url.includes('*')) return;
    const test = new RegExp(`^${route.url.replace(/:[^/]+/g, '[^/]+')}$`);
    patterns.push({ test, methods: new Set([route.method].flat()) });
  });
  app.setNotFoundHandler((request, reply) => {
    const path = request.url.split('?', 1)[0] ?? '';
    const methods = patterns.filter(({ test }) => test.test(path)).flatMap((pattern) => [...pattern.methods]);
    if (methods.length === 0) return reply.code(404).send({ detail: 'Not Found' });
    return reply
      .code(405)
      .header('allow', [...new Set(methods)].join(', '))
      .send({ detail: 'Method Not Allowed' });
  });
}

function guard(app: FastifyInstance, config: ServerConfig): void {
  const isAllowed = keyChecker(config.apiKeys);
  app.addHook('onRequest', async (request, reply) => {
    if (config.enableRequestIdHeaders) reply.header('x-request-id', request.id);
    if (request.raw.rawHeaders.length > 2 * config.maxHeaderCount) {
      const message = `The request has more than ${config.maxHeaderCount} header lines.`;
      return reply
        .code(431)
        .header('connection', 'close')
        .send(errorBody(431, 'Bad Request', message));
    }
    if (request.method === 'OPTIONS' || OPEN_PATHS.has(request.url.split('?', 1)[0] ?? '')) return;
    if (!isAllowed(request.headers.authorization))
      throw new TokenmillError('unauthorized', 'Missing or wrong API key.');
  });
}

async function allowOrigins(app: FastifyInstance, config: ServerConfig): Promise<void> {
  if (config.allowedOrigins.length === 0) return;
  const all = (list: readonly string[]): boolean => list.includes('*');
  await app.register(cors, {
    // With credentials browsers refuse `*`, so the origin is echoed.
    origin: all(config.allowedOrigins) ? (config.allowCredentials ? true : '*') : [...config.allowedOrigins],
    methods: all(config.allowedMethods) ? ['GET', 'HEAD', 'POST', 'OPTIONS'] : [...config.allowedMethods],
    ...(all(config.allowedHeaders) ? {} : { allowedHeaders: [...config.allowedHeaders] }),
    credentials: config.allowCredentials,
  });
}

/** What Node could not parse never reaches a route; it still gets the error shape. */
function answerClientError(error: NodeJS.ErrnoException, socket: Socket): void {
  if (!socket.writable) return;
  const status = error.code === 'HPE_HEADER_OVERFLOW' ? 431 : error.code === 'ERR_HTTP_REQUEST_TIMEOUT' ? 408 : 400;
  const phrase = { 431: 'Request Header Fields Too Large', 408: 'Request Timeout', 400: 'Bad Request' }[status];
  const body = JSON.stringify(errorBody(status, 'Bad Request', `${phrase}: the request could not be read.`));
  socket.end(
    `HTTP/1.1 ${status} ${phrase}\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\nconnection: close\r\n\r\n${body}`,
  );
}

/** Also the function that ends its background work. Throws `flag_invalid` for TLS files that cannot be used. */
function newApp(config: ServerConfig, log: Logger): { readonly app: FastifyInstance; readonly stop: () => void } {
  const { tls } = config;
  const rewriteUrl = withoutRootPath(config.rootPath);
  const common: FastifyServerOptions = {
    logger: false,
    schemaController: SCHEMA_CONTROLLER,
    genReqId: (raw) => clientId(raw.headers['x-request-id']) ?? randomId(),
    // Our own reader has the limit; fastify's would answer before it can be counted.
    bodyLimit: Number.MAX_SAFE_INTEGER,
    requestTimeout: config.requestTimeoutS * 1000,
    forceCloseConnections: 'idle',
    routerOptions: { maxParamLength: 512 },
    rewriteUrl,
    frameworkErrors: (error, _request, reply: FastifyReply) => {
      const { status, body } = toHttpError(error);
      void reply.code(status).send(body);
    },
    clientErrorHandler: answerClientError,
  };
  const http = { maxHeaderSize: config.maxHeaderBytes };
  const own = tls === null ? { http } : { https: { ...http, ...readTls(tls) } };
  // Typed as plain HTTP: no route looks at the kind of server below it.
  const options: FastifyServerOptions = { ...common, ...own };
  const app = fastify(options);
  // Node drops further lines without a word, so it gets room for one that tells; see `guard`.
  app.server.maxHeadersCount = config.maxHeaderCount + 1;
  app.decorateRequest('tokenCounts', null);
  if (tls === null) return { app, stop: () => {} };
  const server = app.server as unknown as HttpsServer;
  if (tls.certReqs === 'optional') refuseBadCertificates(server);
  return { app, stop: watchTls(server, tls, log) };
}

/** Testable with `app.inject`, no socket needed. Options not given have the defaults of the flags table. */
export async function createServer(
  llm: AsyncLLM,
  options: Partial<ServerConfig> = {},
  clock: Clock = systemClock,
): Promise<Server> {
  const asked = { ...DEFAULT_SERVER_CONFIG, ...options };
  const config: ServerConfig = { ...asked, rootPath: normalRootPath(asked.rootPath) };
  const context = makeContext(llm, config, clock);
  const { app, stop } = newApp(config, context.log);
  observeAnswers(app, context);
  parseBodies(app, config);
  answerErrors(app, context);
  await allowOrigins(app, config);
  guard(app, config);
  registerOpenApi(app, context);
  registerRoutes(app, context);
  const stops = [stop];
  if (!config.disableLogStats) {
    stops.push(llm.onStats((stats) => context.metrics.onStep(stats)));
    if (config.logger) stops.push(startStatsLog(llm, config.logger, config.statsIntervalS));
  }
  app.addHook('preClose', async () => {
    context.active.beginDrain();
    context.active.abortAll();
    // Sockets that were opened and never used count as busy for Node and would hold the end up for a minute.
    setTimeout(() => app.server.closeAllConnections(), CLOSE_GRACE_MS).unref();
  });
  app.addHook('onClose', async () => {
    for (const stop of stops) stop();
  });
  await app.ready();
  return {
    app,
    context,
    listen: (address) => listen(app, address),
    shutdown: async () => {
      await drain(context.active, config.shutdownTimeoutS, context.log);
      await app.close();
    },
  };
}
