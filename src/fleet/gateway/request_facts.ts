/** What the gateway needs to know of a request, read from its head and from a few fields of its body. */

import { randomFillSync } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import type { BodyFields } from './scan_body.ts';
import { booleanField, numberField, scanBody, stringField } from './scan_body.ts';

export interface BodyFacts {
  readonly fields: BodyFields;
  readonly model: string | null;
  readonly stream: boolean;
  /** The prompt as it stands in the body: equal beginnings are equal bytes. */
  readonly prompt: Buffer | null;
  readonly user: string | null;
  readonly cacheKey: string | null;
  /** vLLM's: lower goes first. */
  readonly priority: number | null;
  readonly maxTokens: number | null;
}

const WANTED: ReadonlySet<string> = new Set([
  'model',
  'stream',
  'user',
  'session_id',
  'prompt_cache_key',
  'priority',
  'max_tokens',
  'max_completion_tokens',
  'max_output_tokens',
  'messages',
  'prompt',
  'input',
  'inputs',
  'text_input',
]);
/** Where a prompt may be, in the order of the APIs that have it. */
const PROMPTS = ['messages', 'prompt', 'input', 'inputs', 'text_input'] as const;

const MAX_NAME_BYTES = 512;
const NO_FACTS: BodyFacts = {
  fields: Object.create(null),
  model: null,
  stream: false,
  prompt: null,
  user: null,
  cacheKey: null,
  priority: null,
  maxTokens: null,
};

/** Throws `invalid_request` when the body is no JSON object. Of another content type nothing is read. */
export function bodyFacts(body: Buffer | null, contentType: string | undefined): BodyFacts {
  if (body === null || body.length === 0) return NO_FACTS;
  if (contentType !== undefined && !/^application\/(?:[\w.-]+\+)?json\b/i.test(contentType)) return NO_FACTS;
  const fields = scanBody(body, WANTED);
  const promptField = PROMPTS.map((name) => fields[name]).find((field) => field !== undefined);
  const text = (name: string): string | null => stringField(body, fields[name], MAX_NAME_BYTES);
  const count = (name: string): number | null => numberField(body, fields[name]);
  return {
    fields,
    model: text('model'),
    stream: booleanField(body, fields['stream']),
    prompt: promptField === undefined ? null : body.subarray(promptField.start, promptField.end),
    user: text('user'),
    cacheKey: text('prompt_cache_key') ?? text('session_id'),
    priority: count('priority'),
    maxTokens: count('max_completion_tokens') ?? count('max_tokens') ?? count('max_output_tokens'),
  };
}

/** Of English and JSON, roughly. */
const BYTES_PER_TOKEN = 4;

/** By bytes: for limits and scores before the replica counts. */
export function promptTokensOf(facts: BodyFacts): number {
  return facts.prompt === null ? 0 : Math.ceil(facts.prompt.length / BYTES_PER_TOKEN);
}

const MAX_ID_CHARS = 128;
const idBytes = Buffer.alloc(4096);
let idAt = idBytes.length;

function randomId(): string {
  if (idAt >= idBytes.length) {
    randomFillSync(idBytes);
    idAt = 0;
  }
  idAt += 8;
  return idBytes.toString('hex', idAt - 8, idAt);
}

/** The client's own `x-request-id` if it is fit for headers and logs, else a new one. */
export function requestId(value: string | string[] | undefined): string {
  return typeof value === 'string' && value.length <= MAX_ID_CHARS && /^[\x21-\x7e]+$/.test(value) ? value : randomId();
}

/** First value of a header. */
export function headerOf(req: IncomingMessage, name: string): string | undefined {
  const value = req.headers[name];
  return Array.isArray(value) ? value[0] : value;
}
