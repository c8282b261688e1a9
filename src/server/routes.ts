/** Every route: method, path, schema, handler. */
import type { FastifyInstance } from 'fastify';
import type { ZodType } from 'zod';
import * as answers from './answer_schemas.ts';
import { chatHandler } from './chat.ts';
import { completionHandler } from './completions.ts';
import type { ServerContext } from './context.ts';
import { checkEngine, checkReady, deepProber } from './health.ts';
import { listModels, oneModel } from './models.ts';
import { publicPlan } from './plan_view.ts';
import {
  type ChatBody,
  ChatCompletionRequest,
  type CompletionBody,
  CompletionRequest,
  type DetokenizeBody,
  DetokenizeRequest,
  type TokenizeBody,
  TokenizeRequest,
} from './schemas.ts';
import { detokenizeHandler, tokenizeHandler } from './tokenize.ts';

interface Doc {
  readonly tags: readonly string[];
  readonly summary: string;
  readonly description?: string;
  readonly body?: ZodType;
  readonly response: Readonly<Record<number, unknown>>;
}

const json = (description: string, schema: ZodType) => ({ description, content: { 'application/json': { schema } } });
const empty = (description: string) => answers.Empty.describe(description);

function doc(spec: Omit<Doc, 'response'>, ok: unknown, errors: readonly number[]) {
  const response: Record<number, unknown> = { 200: ok };
  for (const status of errors) response[status] = json(answers.STATUS_WORDS[status] ?? 'Error', answers.ErrorResponse);
  return { schema: { ...spec, response } };
}

const REQUEST_ERRORS = [400, 404, 413, 429, 500, 503] as const;

function generationRoutes(app: FastifyInstance, context: ServerContext): void {
  app.post<{ Body: ChatBody }>(
    '/v1/chat/completions',
    doc(
      {
        tags: ['generate'],
        summary: 'Chat completion',
        description:
          'Answers a conversation. With `stream` as server-sent events of `chat.completion.chunk`, ended by `data: [DONE]`.',
        body: ChatCompletionRequest,
      },
      json('The answer, or a stream of chunks', answers.ChatCompletionResponse),
      REQUEST_ERRORS,
    ),
    chatHandler(context),
  );
  app.post<{ Body: CompletionBody }>(
    '/v1/completions',
    doc(
      {
        tags: ['generate'],
        summary: 'Text completion',
        description: 'Continues one or many prompts, given as text or token ids.',
        body: CompletionRequest,
      },
      json('The answer, or a stream of chunks', answers.CompletionResponse),
      REQUEST_ERRORS,
    ),
    completionHandler(context),
  );
}

function modelRoutes(app: FastifyInstance, context: ServerContext): void {
  app.get(
    '/v1/models',
    doc({ tags: ['models'], summary: 'Served models' }, json('The served names', answers.ModelList), []),
    async () => listModels(context),
  );
  app.get<{ Params: { id: string } }>(
    '/v1/models/:id',
    doc({ tags: ['models'], summary: 'One served model' }, json('The model', answers.ModelCard), [404]),
    async (request) => oneModel(context, request.params.id),
  );
  app.post<{ Body: TokenizeBody }>(
    '/tokenize',
    doc(
      { tags: ['tokens'], summary: 'Text or conversation to token ids', body: TokenizeRequest },
      json('The ids', answers.TokenizeResponse),
      [400, 404, 413],
    ),
    tokenizeHandler(context),
  );
  app.post<{ Body: DetokenizeBody }>(
    '/detokenize',
    doc(
      { tags: ['tokens'], summary: 'Token ids to text', body: DetokenizeRequest },
      json('The text', answers.DetokenizeResponse),
      [400, 404, 413],
    ),
    detokenizeHandler(context),
  );
}

function probeRoutes(app: FastifyInstance, context: ServerContext): void {
  const probe = deepProber(context);
  const health = {
    summary: 'Engine heartbeat',
    description: '503 when the engine is dead or stuck. `?deep=1` generates one token for real.',
  };
  for (const path of ['/health', '/livez']) {
    app.get<{ Querystring: { deep?: string } }>(
      path,
      doc({ tags: ['probes'], ...health }, empty('Healthy'), [503]),
      async (request, reply) => {
        checkEngine(context);
        if (request.query.deep && request.query.deep !== '0') await probe();
        return reply.send();
      },
    );
  }
  for (const path of ['/ready', '/readyz']) {
    app.get(
      path,
      doc(
        { tags: ['probes'], summary: 'Ready for requests', description: '503 while draining or unhealthy.' },
        json('Ready', answers.ReadyResponse),
        [503],
      ),
      async () => {
        checkReady(context);
        return { ready: true };
      },
    );
  }
  app.route({
    method: ['GET', 'POST'],
    url: '/ping',
    ...doc({ tags: ['probes'], summary: 'Same as /health' }, empty('Healthy'), [503]),
    handler: async (_request, reply) => {
      checkEngine(context);
      return reply.send();
    },
  });
}

function infoRoutes(app: FastifyInstance, context: ServerContext): void {
  const { registry, config, llm } = context;
  const heartbeatAge = registry.gauge('tokenmill:engine_heartbeat_age_seconds');
  const healthy = registry.gauge('tokenmill:engine_healthy');
  const inFlight = registry.gauge('tokenmill:http_requests_in_flight');
  app.get(
    '/metrics',
    doc(
      { tags: ['info'], summary: 'Prometheus metrics' },
      { description: 'Prometheus text', content: { 'text/plain': { schema: answers.Text } } },
      [],
    ),
    async (_request, reply) => {
      const health = llm.health();
      heartbeatAge(Math.max(0, context.clock.now() - health.heartbeatMs) / 1000);
      healthy(health.healthy ? 1 : 0);
      inFlight(context.active.size);
      return reply.header('content-type', registry.contentType).send(await registry.text());
    },
  );
  app.get(
    '/version',
    doc({ tags: ['info'], summary: 'Version of the server' }, json('The version', answers.VersionResponse), []),
    async () => ({ version: config.version }),
  );
  app.get(
    '/load',
    doc({ tags: ['info'], summary: 'Generation requests in flight' }, json('The number', answers.LoadResponse), []),
    async () => ({ server_load: context.active.size }),
  );
  app.get(
    '/plan',
    doc(
      {
        tags: ['info'],
        summary: 'What was worked out at start, and why',
        description: 'The EnginePlan: blocks, threads, lengths, memory, each with its reason.',
      },
      json('The plan', answers.PlanResponse),
      [],
    ),
    async () => publicPlan(llm.plan),
  );
  if (config.devMode) {
    app.post(
      '/reset_prefix_cache',
      doc(
        {
          tags: ['management'],
          summary: 'Empty the prefix cache',
          description: 'Only in development mode; false when blocks are in use.',
        },
        json('Whether it was emptied', answers.ResetResponse),
        [],
      ),
      async () => ({
        success: await llm.resetPrefixCache(),
      }),
    );
  }
}

export function registerRoutes(app: FastifyInstance, context: ServerContext): void {
  generationRoutes(app, context);
  modelRoutes(app, context);
  probeRoutes(app, context);
  infoRoutes(app, context);
}
