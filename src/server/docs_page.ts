/** /docs: the OpenAPI document as one page without scripts or outside assets. */

interface Schema {
  readonly $ref?: string;
  readonly type?: string | readonly string[];
  readonly anyOf?: readonly Schema[];
  readonly oneOf?: readonly Schema[];
  readonly items?: Schema;
  readonly enum?: readonly unknown[];
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly required?: readonly string[];
  readonly description?: string;
}

interface Operation {
  readonly tags?: readonly string[];
  readonly summary?: string;
  readonly description?: string;
  readonly requestBody?: { readonly content?: Readonly<Record<string, { readonly schema?: Schema }>> };
  readonly responses?: Readonly<Record<string, { readonly description?: string }>>;
}

export interface OpenApiDocument {
  readonly info: { readonly title: string; readonly version: string; readonly description?: string };
  readonly paths?: Readonly<Record<string, Readonly<Record<string, Operation>>>>;
  readonly components?: { readonly schemas?: Readonly<Record<string, Schema>> };
}

export interface PageOptions {
  readonly model: string;
  readonly needsKey: boolean;
  readonly refusedFields: ReadonlySet<string>;
}

/** Stands in the page for the URL the reader came by; see {@link withBaseUrl}. */
const BASE = '\u0000BASE\u0000';

export function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
}

/** Escaped, with `code` spans. */
function prose(text: string): string {
  return escapeHtml(text).replace(/`([^`]+)`/g, '<code>$1</code>');
}

const GROUPS: readonly (readonly [tag: string, title: string])[] = [
  ['generate', 'Generate'],
  ['tokens', 'Tokens'],
  ['models', 'Models'],
  ['probes', 'Probes'],
  ['info', 'Information'],
  ['management', 'Management'],
];

const STYLE = `
:root{color-scheme:light dark;--fg:#1c2024;--bg:#fff;--soft:#f4f6f8;--line:#dfe3e8;--dim:#5d6772;--get:#0b62b8;--post:#17703f;--mark:#a1370b}
@media(prefers-color-scheme:dark){:root{--fg:#e4e7ea;--bg:#14171a;--soft:#1c2024;--line:#30363d;--dim:#a0abb6;--get:#74b7f7;--post:#63cd92;--mark:#f2a37c}}
*{box-sizing:border-box}html{-webkit-text-size-adjust:100%}
body{margin:0 auto;max-width:62rem;padding:2.5rem 1.25rem 4rem;font:16px/1.55 system-ui,sans-serif;color:var(--fg);background:var(--bg);overflow-wrap:anywhere}
h1{margin:0;font-size:1.9rem;letter-spacing:-.01em}h2{margin:2.75rem 0 .75rem;font-size:1.25rem}h3{font-size:1rem;margin:1.3rem 0 .4rem}p{margin:.6rem 0}
a{color:var(--get);text-underline-offset:.15em}a:focus-visible,summary:focus-visible,pre:focus-visible{outline:2px solid var(--get);outline-offset:2px}
.dim{color:var(--dim)}nav{display:flex;flex-wrap:wrap;gap:.3rem 1.2rem;margin-top:1rem}
code{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;font-size:.9em}
pre{margin:0;background:var(--soft);border:1px solid var(--line);border-radius:8px;padding:.8rem 1rem;overflow-x:auto;overflow-wrap:normal;line-height:1.5}pre code{font-size:.85rem}
details{border:1px solid var(--line);border-radius:8px;margin:.5rem 0}
summary{cursor:pointer;padding:.6rem .9rem;display:flex;gap:.15rem .9rem;align-items:baseline;flex-wrap:wrap;border-radius:8px}summary:hover{background:var(--soft)}
details[open]>summary{border-bottom:1px solid var(--line);background:var(--soft);border-radius:8px 8px 0 0}.in{padding:.3rem .9rem 1rem}
.m{font:600 .75rem ui-monospace,monospace;width:2.6rem}.get{color:var(--get)}.post{color:var(--post)}b{font-weight:600;font-size:.8em;color:var(--mark)}
table{border-collapse:collapse;width:100%;font-size:.9rem}td{vertical-align:top;padding:.34rem .9rem .34rem 0;border-top:1px solid var(--line)}tr:first-child td{border-top:0}
.fields td:nth-child(1){width:16rem}.fields td:nth-child(2){width:13rem}.answers td:nth-child(1){width:4rem}
@media(max-width:44rem){body{padding:1.5rem 1rem 3rem}.fields,.fields tbody,.fields tr,.fields td{display:block;width:auto!important}.fields tr{padding:.45rem 0;border-top:1px solid var(--line)}.fields tr:first-child{border-top:0}.fields td{border:0;padding:0}summary .dim{flex-basis:100%}}`;

function resolve(document: OpenApiDocument, schema: Schema | undefined): Schema {
  const name = schema?.$ref?.split('/').pop();
  return (name ? document.components?.schemas?.[name] : schema) ?? {};
}

function typeText(document: OpenApiDocument, schema: Schema, depth = 0): string {
  if (schema.$ref) return schema.$ref.split('/').pop() ?? '';
  const variants = schema.anyOf ?? schema.oneOf;
  if (variants) {
    const texts = variants.filter((v) => v.type !== 'null').map((v) => typeText(document, v, depth));
    return [...new Set(texts)].join(' | ');
  }
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(' | ');
  if (schema.type === 'array') return depth > 2 ? 'array' : `${typeText(document, schema.items ?? {}, depth + 1)}[]`;
  return schema.type === undefined
    ? 'any'
    : [schema.type]
        .flat()
        .filter((type) => type !== 'null')
        .join(' | ');
}

/** Refused fields that have nothing to say beyond that are one line at the end. */
function fieldsTable(document: OpenApiDocument, schema: Schema, refused: ReadonlySet<string>): string {
  const isListed = ([name, field]: readonly [string, Schema]): boolean =>
    field.description !== undefined || !refused.has(name);
  const isRequired = (name: string): boolean => schema.required?.includes(name) ?? false;
  const properties = Object.entries(schema.properties ?? {});
  if (properties.length === 0) return '';
  const row = ([name, field]: readonly [string, Schema]): string =>
    `<tr><td><code>${escapeHtml(name)}</code>${isRequired(name) ? ' <b>required</b>' : ''}</td><td class="dim">${escapeHtml(typeText(document, field))}</td><td>${prose(field.description ?? '')}</td></tr>`;
  const listed = properties.filter(isListed).sort(([a], [b]) => Number(isRequired(b)) - Number(isRequired(a)));
  const rest = properties.filter((property) => !isListed(property)).map(([name]) => `\`${name}\``);
  const note =
    rest.length === 0 ? '' : `<p class="dim">Refused by name in this version: ${prose(rest.join(', '))}.</p>`;
  return `<table class="fields">${listed.map(row).join('')}</table>${note}`;
}

function bodySection(document: OpenApiDocument, operation: Operation, refused: ReadonlySet<string>): string {
  const schema = resolve(document, operation.requestBody?.content?.['application/json']?.schema);
  const variants = schema.anyOf ?? schema.oneOf ?? (schema.properties ? [schema] : []);
  return variants
    .map(
      (variant, i) =>
        `<h3>${i === 0 ? 'Body' : 'or'}</h3>${fieldsTable(document, resolve(document, variant), refused)}`,
    )
    .join('');
}

function operationSection(
  document: OpenApiDocument,
  path: string,
  method: string,
  operation: Operation,
  refused: ReadonlySet<string>,
): string {
  const statuses = Object.entries(operation.responses ?? {}).map(
    ([status, response]) =>
      `<tr><td><code>${escapeHtml(status)}</code></td><td>${prose(response.description ?? '')}</td></tr>`,
  );
  return `<details><summary><span class="m ${method === 'get' ? 'get' : 'post'}">${method.toUpperCase()}</span><code>${escapeHtml(path)}</code><span class="dim">${prose(operation.summary ?? '')}</span></summary>
<div class="in">${operation.description ? `<p>${prose(operation.description)}</p>` : ''}${bodySection(document, operation, refused)}<h3>Answers</h3><table class="answers">${statuses.join('')}</table></div></details>`;
}

function groupSection(document: OpenApiDocument, tag: string, title: string, refused: ReadonlySet<string>): string {
  const sections: string[] = [];
  for (const [path, methods] of Object.entries(document.paths ?? {})) {
    for (const [method, operation] of Object.entries(methods)) {
      if (operation.tags?.includes(tag)) sections.push(operationSection(document, path, method, operation, refused));
    }
  }
  return sections.length === 0 ? '' : `<h2>${title}</h2>${sections.join('\n')}`;
}

function examples({ model, needsKey }: PageOptions): string {
  const name = JSON.stringify(model);
  const key = needsKey ? ` \\\n  -H 'Authorization: Bearer YOUR_KEY'` : '';
  const curl = (path: string, body: string): string =>
    `curl ${BASE}${path} \\\n  -H 'Content-Type: application/json'${key} \\\n  -d '${body.replaceAll("'", "'\\''")}'`;
  const list: readonly (readonly [string, string])[] = [
    [
      'Chat',
      curl('/v1/chat/completions', `{"model": ${name}, "messages": [{"role": "user", "content": "Tell me a story."}]}`),
    ],
    [
      'Streaming',
      curl(
        '/v1/chat/completions',
        `{"stream": true, "messages": [{"role": "user", "content": "Count to ten."}]}`,
      ).replace('curl', 'curl -N'),
    ],
    ['Completion', curl('/v1/completions', `{"model": ${name}, "prompt": "Once upon a time", "max_tokens": 32}`)],
    [
      'The openai client',
      `import OpenAI from 'openai';\n\nconst client = new OpenAI({ baseURL: '${BASE}/v1', apiKey: '${needsKey ? 'YOUR_KEY' : 'none'}' });\nconst stream = await client.chat.completions.create({\n  model: ${name},\n  stream: true,\n  messages: [{ role: 'user', content: 'Tell me a story.' }],\n});\nfor await (const chunk of stream) process.stdout.write(chunk.choices[0]?.delta?.content ?? '');`,
    ],
  ];
  return list
    .map(([title, code]) => `<h3>${title}</h3><pre tabindex="0"><code>${escapeHtml(code)}</code></pre>`)
    .join('\n');
}

/** The page with a placeholder for the base URL. */
export function docsPage(document: OpenApiDocument, options: PageOptions): string {
  const { info } = document;
  const key = options.needsKey
    ? 'This server wants <code>Authorization: Bearer KEY</code> everywhere but on probes, /metrics and these pages.'
    : 'This server needs no API key.';
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1"><title>${escapeHtml(info.title)} API</title><style>${STYLE}</style></head>
<body><header><h1>${escapeHtml(info.title)} <span class="dim">${escapeHtml(info.version)}</span></h1>
<p>Serving <code>${escapeHtml(options.model)}</code> at <code>${BASE}</code>. ${key}</p>
<p>${prose(info.description ?? '')}</p>
<nav><a href="openapi.json">openapi.json</a><a href="v1/models">models</a><a href="metrics">metrics</a><a href="health">health</a><a href="plan">plan</a></nav></header>
<h2>Try it</h2>${examples(options)}
${GROUPS.map(([tag, title]) => groupSection(document, tag, title, options.refusedFields)).join('\n')}
</body></html>
`;
}

export function withBaseUrl(page: string, baseUrl: string): string {
  return page.replaceAll(BASE, escapeHtml(baseUrl));
}
