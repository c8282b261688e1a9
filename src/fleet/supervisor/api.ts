/** The supervisor's HTTP API: on 127.0.0.1, with a token that only the owner of the state folder can read. */
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import { rmSync, writeFileSync } from 'node:fs';
import { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import fastify, { type FastifyInstance, type FastifyRequest } from 'fastify';
import type { Logger } from 'pino';
import { z } from 'zod';
import { ERRORS, serializeError, TokenmillError } from '../../base/errors.ts';
import { type ApiAddress, apiFile, readApiAddress } from './api_address.ts';
import { logPath } from './machine_host.ts';
import { readLog, tailLog } from './rotated_log.ts';
import type { Supervisor } from './supervisor.ts';

const BODY_LIMIT_BYTES = 8 << 20;
const MAX_FILES = 64;
const FOLLOW_PERIOD_MS = 250;
const FOLLOW_BYTES = 1 << 18;

const Name = z.string().min(1).max(300);
const Files = z.array(z.strictObject({ file: z.string().max(4096), text: z.string() })).max(MAX_FILES);
const ApplyBody = z.strictObject({
  files: Files.min(1),
  prune: z.boolean().default(false),
  dryRun: z.boolean().default(false),
});
const RolloutBody = z.strictObject({
  service: Name,
  action: z.enum(['undo', 'promote', 'pause', 'resume']),
  to: Name.nullable().default(null),
});
const ScaleBody = z.strictObject({ service: Name, replicas: z.int().min(0).max(1000).nullable() });
const DeleteBody = z.strictObject({ services: z.array(Name).max(1000).default([]), files: Files.default([]) });
const DownBody = z.strictObject({ force: z.boolean().default(false) });
const ServiceQuery = z.object({ service: Name.optional() });
const EventsQuery = z.object({
  service: Name.optional(),
  after: z.coerce.number().int().min(0).default(0),
  limit: z.coerce.number().int().min(1).max(10_000).default(200),
});
const LogsQuery = z.object({
  member: Name,
  lines: z.coerce.number().int().min(0).max(100_000).default(200),
  follow: z.enum(['0', '1']).default('0'),
});
const SinceQuery = z.object({ since: z.coerce.number().default(0) });

export interface Api {
  readonly address: ApiAddress;
  close(): Promise<void>;
}

export async function startApi(supervisor: Supervisor, stateDir: string, log: Logger): Promise<Api> {
  const token = randomBytes(32).toString('base64url');
  const app = apiApp(supervisor, stateDir, token, log);
  const url = await app.listen({ host: '127.0.0.1', port: 0 });
  const address = { url, token, pid: process.pid };
  const file = apiFile(stateDir);
  // Made anew with its rights: one that was there before could have had others.
  rmSync(file, { force: true });
  writeFileSync(file, JSON.stringify(address), { mode: 0o600, flag: 'wx' });
  return {
    address,
    close: async () => {
      if (readApiAddress(stateDir)?.token === token) rmSync(file, { force: true });
      app.server.closeAllConnections();
      await app.close();
    },
  };
}

const digest = (text: string): Buffer => createHash('sha256').update(text).digest();

function apiApp(supervisor: Supervisor, stateDir: string, token: string, log: Logger): FastifyInstance {
  const app = fastify({ logger: false, bodyLimit: BODY_LIMIT_BYTES, forceCloseConnections: true });
  const expected = digest(`Bearer ${token}`);
  app.addHook('onRequest', async (request) => {
    if (timingSafeEqual(digest(request.headers.authorization ?? ''), expected)) return;
    throw new TokenmillError('unauthorized', 'Missing or wrong token.', {
      remedy: 'It is in api.json of the state folder.',
    });
  });
  app.setErrorHandler((error, _request, reply) => {
    const known = error instanceof TokenmillError ? error : asRequestError(error);
    if (known === null) log.error({ err: error }, 'a request failed');
    const serialized = serializeError(known ?? error);
    return reply.code(ERRORS[serialized.code].status).send({ error: serialized });
  });
  readRoutes(app, supervisor, stateDir);
  writeRoutes(app, supervisor);
  return app;
}

function asRequestError(error: unknown): TokenmillError | null {
  const status = (error as { statusCode?: unknown }).statusCode;
  if (typeof status !== 'number' || status < 400 || status >= 500) return null;
  return new TokenmillError('invalid_request', (error as Error).message);
}

function checked<T extends z.ZodType>(schema: T, value: unknown): z.output<T> {
  const result = schema.safeParse(value ?? {});
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  throw new TokenmillError('invalid_request', `${issue?.path.join('.') || 'body'}: ${issue?.message ?? 'is wrong'}.`);
}

function readRoutes(app: FastifyInstance, supervisor: Supervisor, stateDir: string): void {
  const { views } = supervisor;
  const serviceOf = (request: FastifyRequest): string | null => {
    const { service } = checked(ServiceQuery, request.query);
    return service === undefined ? null : views.resolve(service);
  };
  app.get('/v1/status', async () => supervisor.status());
  app.get('/v1/services', async (request) => {
    const service = serviceOf(request);
    return { services: views.services().filter(({ id }) => service === null || id === service) };
  });
  app.get('/v1/replicas', async (request) => ({ replicas: views.replicaRows(serviceOf(request)) }));
  app.get('/v1/describe', async (request) => {
    const { service } = checked(z.object({ service: Name }), request.query);
    const id = views.resolve(service);
    return views.describe(id, supervisor.events({ service: id, limit: 25 }));
  });
  app.get('/v1/events', async (request) => {
    const { service, after, limit } = checked(EventsQuery, request.query);
    const id = service === undefined ? null : views.resolve(service);
    return { events: supervisor.events({ service: id, afterSeq: after, limit }) };
  });
  app.get('/v1/timeline', async (request) => supervisor.timeline(checked(SinceQuery, request.query).since));
  app.get('/v1/logs', async (request, reply) => {
    const { member, lines, follow } = checked(LogsQuery, request.query);
    const path = logPath(stateDir, supervisor.logMember(member));
    const tail = tailLog(path, lines);
    reply.type('text/plain; charset=utf-8');
    if (follow === '0') return tail.text;
    const gone = new AbortController();
    request.raw.socket.once('close', () => gone.abort());
    return reply.send(Readable.from(followed(path, tail, gone.signal)));
  });
}

/** What is written from now on, until the reader goes. */
async function* followed(
  path: string,
  tail: { text: string; end: number },
  signal: AbortSignal,
): AsyncGenerator<string> {
  if (tail.text !== '') yield tail.text;
  for (let { end } = tail; !signal.aborted; ) {
    const more = readLog(path, end, FOLLOW_BYTES);
    end = more.end;
    if (more.text !== '') yield more.text;
    else await sleep(FOLLOW_PERIOD_MS);
  }
}

function writeRoutes(app: FastifyInstance, supervisor: Supervisor): void {
  app.post('/v1/apply', async (request) => {
    const { files, prune, dryRun } = checked(ApplyBody, request.body);
    return supervisor.apply(files, { prune, dryRun });
  });
  app.post('/v1/rollout', async (request) => {
    const { service, action, to } = checked(RolloutBody, request.body);
    return supervisor.rollout(service, action === 'undo' ? { kind: action, to } : { kind: action });
  });
  app.post('/v1/scale', async (request) => {
    const { service, replicas } = checked(ScaleBody, request.body);
    return supervisor.rollout(service, { kind: 'scale', replicas });
  });
  app.post('/v1/delete', async (request) => {
    const { services, files } = checked(DeleteBody, request.body);
    return supervisor.remove(services, files);
  });
  app.post('/v1/down', async (request) => {
    const { force } = checked(DownBody, request.body);
    supervisor.end(force ? 'kill' : 'down');
    return { ok: true };
  });
  app.post('/v1/gateway/handover', async () => {
    await supervisor.renewGateway();
    return { ok: true };
  });
  app.post('/v1/handover', async () => {
    supervisor.end('handover');
    return { ok: true };
  });
}
