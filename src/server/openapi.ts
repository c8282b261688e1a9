/** The OpenAPI 3.1 document out of the route schemas, and the page that shows it. */
import swagger from '@fastify/swagger';
import type { FastifyInstance } from 'fastify';
import { createJsonSchemaTransform, jsonSchemaTransformObject } from 'fastify-type-provider-zod';
import type { ServerContext } from './context.ts';
import { docsPage, type OpenApiDocument, withBaseUrl } from './docs_page.ts';
import { REFUSED_FIELDS } from './refused.ts';

const INFO =
  'OpenAI-compatible API of a Tokenmill server, field by field as vLLM has it. Errors are `{"error": {message, type, param, code}}`; 429 and 503 carry Retry-After.';

export async function registerOpenApi(app: FastifyInstance, context: ServerContext): Promise<void> {
  const { config, llm } = context;
  if (config.disableDocs) return;
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
  const hidden = { schema: { hide: true } };
  app.get('/openapi.json', hidden, async () => app.swagger());
  let page: string | null = null;
  app.get('/docs', hidden, async (request, reply) => {
    page ??= docsPage(app.swagger() as unknown as OpenApiDocument, {
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
