/** The routing table as it comes from the control socket or from its file: checked before anything is made of it. */
import { z } from 'zod';
import { TokenmillError } from '../../base/errors.ts';
import type { RoutingTable } from './routing_table.ts';

export const MAX_TABLE_BYTES = 64 * 2 ** 20;

const name = z.string().min(1).max(1024);
const count = z.number().int().min(0);
const ms = z.number().min(0);
const percent = z.number().min(0).max(100);
const headerName = z.string().regex(/^[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,256}$/);
// biome-ignore lint/suspicious/noControlCharactersInRegex: those are what must not be in a field value
const headerValue = z.string().regex(/^[^\x00-\x08\x0a-\x1f\x7f\u0100-\uffff]*$/);
const httpUrl = z.string().refine((text) => {
  const url = URL.canParse(text) ? new URL(text) : null;
  return url !== null && (url.protocol === 'http:' || url.protocol === 'https:') && url.username === '';
}, 'is no http or https URL');

const endpoint = z.object({ id: name, url: httpUrl, state: z.enum(['ready', 'draining']) });
const revision = z.object({
  // It goes out in a header.
  id: z.string().regex(/^[\x21-\x7e]{1,253}$/),
  percent,
  tags: z.array(name).max(64),
  endpoints: z.array(endpoint).max(4096),
});
const traffic = z.object({
  pins: z.array(z.object({ header: headerName, value: z.string(), to: name })).max(256),
  stickyBy: z.string().nullable(),
  shadow: z.object({ to: name, percent }).nullable(),
  queue: z.object({ maxRequests: count, maxBytes: count, ttlMs: ms, coldTtlMs: ms }),
  fallbacks: z.array(name).max(64),
  priority: z.number(),
  hedgeAfterMs: ms,
  idleTimeoutMs: ms,
});
const service = z.object({
  id: name,
  models: z.array(name).min(1).max(1024),
  revisions: z.array(revision).max(1024),
  traffic,
  holds: z.boolean(),
});

const at = z.object({ file: z.string(), line: z.number(), column: z.number() });
const named = z.object({ name: z.string().max(1024), type: z.enum(['Exact', 'RegularExpression']), value: z.string() });
const rule = z.object({
  matches: z
    .array(
      z.object({
        path: z.object({ type: z.enum(['Exact', 'PathPrefix', 'RegularExpression']), value: z.string() }),
        method: z.string().nullable(),
        headers: z.array(named).max(64),
        query: z.array(named).max(64),
      }),
    )
    .max(1024),
  backends: z.array(z.object({ service: z.string().nullable(), weight: count })).max(64),
  setHeaders: z.record(headerName, headerValue),
  removeHeaders: z.array(headerName).max(64),
  pathPrefixTo: z
    .string()
    .regex(/^(?:\/[\x21-\x7e]*)?$/)
    .nullable(),
  mirrorTo: z.string().nullable(),
  requestTimeoutMs: ms,
});
const route = z.object({ id: name, at, hostnames: z.array(z.string()).max(64), rules: z.array(rule).max(256) });

const target = z.union([
  z.strictObject({ node: name }),
  z.strictObject({ service: name }),
  z.strictObject({ url: httpUrl }),
]);
const step = z.object({
  name: z.string(),
  target,
  data: z.enum(['$request', '$response']),
  weight: z.number().min(0).nullable(),
  condition: z.string().max(4096).nullable(),
  dependency: z.enum(['Soft', 'Hard']),
});
const graph = z.object({
  id: name,
  at,
  nodes: z.record(
    z.string(),
    z.object({ router: z.enum(['Sequence', 'Splitter', 'Ensemble', 'Switch']), steps: z.array(step).max(256) }),
  ),
});

const gateway = z.object({
  host: z.string(),
  port: z.number().int().min(0).max(65_535),
  externals: z.array(z.object({ name, url: httpUrl, model: name, keyEnv: z.string().nullable() })).max(1024),
  scorers: z.record(z.string(), z.number()),
  objectives: z.record(z.string(), z.number()),
  requireKey: z.boolean(),
});

const table = z.object({
  version: z.number().int().min(0),
  services: z.array(service).max(10_000),
  routes: z.array(route).max(10_000),
  graphs: z.array(graph).max(10_000),
  gateway,
});

/** @throws TokenmillError invalid_manifest */
export function parseTable(text: string): RoutingTable {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new TokenmillError('invalid_manifest', `The routing table is not valid JSON: ${(error as Error).message}.`);
  }
  const parsed = table.safeParse(value);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    const where = issue?.path.join('.') ?? '';
    throw new TokenmillError('invalid_manifest', `The routing table is wrong at ${where}: ${issue?.message}.`);
  }
  return parsed.data;
}
