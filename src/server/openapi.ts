/** The OpenAPI 3.1 document out of the route schemas, and the page that shows it. */
import fastify, { type FastifyInstance, type RouteOptions } from 'fastify';
import type { ServerContext } from './context.ts';
import { docsPage, type OpenApiDocument, withBaseUrl } from './docs_page.ts';
import { REFUSED_FIELDS } from './refused.ts';
import { SCHEMA_CONTROLLER } from './schema_controller.ts';

const INFO =
  'OpenAI-compatible API of a Tokenmill server, field by field as vLLM has it. Errors are `{"error": {message, type, param, code}}`; 429 and 503 carry Retry-After.';

/**
 * The document of `routes`, written by an app of its own that answers nothing: what writes it is a megabyte of code which
 * most servers never need.
 */
async function describeRoutes(routes: readonly RouteOptions[], { config }: ServerContext): Promise<OpenApiDocument> {
  const [{ default: swagger }, { createJsonSchemaTransform, jsonSchemaTransformObject }] = await Promise.all([
    import('@fastify/swagger'),
    import('fastify-type-provider-zod'),
  ]);
  const app = fastify({ schemaController: SCHEMA_CONTROLLER, exposeHeadRoutes: false });
  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: { title: 'Tokenmill', version: config.version, description: INFO },
      servers: [{ url: config.rootPath === '' ? '/' : config.rootPath }],
      components: { securitySchemes: { bearer: { type: 'http', scheme: 'bearer' } } },
      ...(config.apiKeys.length > 0 ? { security: [{ bearer: [] }] } : {}),
    },
    transform: createJsonSchemaTransform({ zodToJsonConfig: { unrepresentable: 'any' } }),
    transformObject: jsonSchemaTransformObject,
  });
  for (const { method, url, schema } of routes)
    app.route({ method, url, ...(schema ? { schema } : {}), handler: async () => null });
  await app.ready();
  return app.swagger() as unknown as OpenApiDocument;
}

/** Describes the routes that are registered after it. */
export function registerOpenApi(app: FastifyInstance, context: ServerContext): void {
  const { config, llm } = context;
  if (config.disableDocs) return;
  const routes: RouteOptions[] = [];
  app.addHook('onRoute', (route) => {
    // Fastify's own: a HEAD for each GET.
    if (route.method !== 'HEAD') routes.push(route);
  });
  let described: Promise<OpenApiDocument> | null = null;
  const document = (): Promise<OpenApiDocument> => {
    described ??= describeRoutes(routes, context);
    return described;
  };
  const hidden = { schema: { hide: true } };
  app.get('/openapi.json', hidden, document);
  let page: string | null = null;
  app.get('/docs', hidden, async (request, reply) => {
    page ??= docsPage(await document(), {
      model: llm.plan.servedModelNames[0] ?? '',
      needsKey: config.apiKeys.length > 0,
      refusedFields: REFUSED_FIELDS,
    });
    return reply
      .header(
        'content-security-policy',
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
      )
      .type('text/html; charset=utf-8')
      .send(withBaseUrl(page, `${request.protocol}://${request.host}${config.rootPath}`));
  });
  app.get('/', hidden, async (_request, reply) =>
    reply.redirect(config.rootPath === '' ? 'docs' : `${config.rootPath}/docs`),
  );
}
