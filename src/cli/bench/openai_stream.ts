/** One streamed request to an OpenAI-compatible server, with the time of every chunk. */
import type { Dispatcher } from 'undici';
import { request } from 'undici';
import type { Clock } from '../../base/clock.ts';

export type Endpoint = 'completions' | 'chat';

export interface Target {
  /** Without a trailing slash and without `/v1`, e.g. `http://127.0.0.1:8000`. */
  readonly baseUrl: string;
  readonly endpoint: Endpoint;
  readonly apiKey: string | null;
  readonly dispatcher?: Dispatcher;
}

export interface RequestRecord {
  /** Clock ms. */
  readonly sentMs: number;
  /** How long after its planned time it was sent, ms; 0 = in time. */
  readonly lateMs: number;
  /** Null when no text came. */
  readonly ttftMs: number | null;
  /** Gaps between chunks that carried text, ms. */
  readonly itlMs: readonly number[];
  readonly e2eMs: number;
  /** Null when the server sends no usage and the prompt's length is not known. */
  readonly promptTokens: number | null;
  readonly cachedTokens: number;
  /** From usage; the number of chunks where the server sends none. */
  readonly outputTokens: number;
  readonly outputTokensAreChunks: boolean;
  /** What went wrong; null for a complete answer. */
  readonly error: string | null;
}

export const PATHS: Readonly<Record<Endpoint, string>> = {
  completions: '/v1/completions',
  chat: '/v1/chat/completions',
};

/** A line longer than this is no server-sent event that a benchmark asked for. */
const MAX_LINE = 4 << 20;

/** The `data:` payloads of a server-sent event stream, whatever the chunk borders. Throws on a line without end. */
export async function* eventData(body: AsyncIterable<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let pending = '';
  for await (const chunk of body) {
    pending += decoder.decode(chunk, { stream: true });
    const lines = pending.split(/\r\n|\n|\r(?!$)/);
    pending = lines.pop() as string;
    if (pending.length > MAX_LINE) throw new Error(`a line of more than ${MAX_LINE} characters`);
    for (const line of lines) if (line.startsWith('data:')) yield line.slice(5).trimStart();
  }
  if (pending.startsWith('data:')) yield pending.slice(5).trim();
}

interface StreamChunk {
  readonly choices?: readonly { readonly text?: string; readonly delta?: Readonly<Record<string, unknown>> }[];
  readonly usage?: {
    readonly prompt_tokens?: number;
    readonly completion_tokens?: number;
    readonly prompt_tokens_details?: { readonly cached_tokens?: number } | null;
  } | null;
  readonly error?: unknown;
}

function carriesText({ choices }: StreamChunk): boolean {
  return (choices ?? []).some(({ text, delta }) => {
    if (text) return true;
    return ['content', 'reasoning_content', 'reasoning', 'tool_calls'].some((key) => {
      const value = delta?.[key];
      return typeof value === 'string' ? value !== '' : Array.isArray(value) && value.length > 0;
    });
  });
}

/** Follows the answer; a failure is a record with `error`, never a throw: one bad request is a result too. */
export class StreamTimer {
  private readonly clock: Clock;
  private readonly sentMs: number;
  private readonly lateMs: number;
  private firstMs: number | null = null;
  private lastMs = 0;
  private readonly itlMs: number[] = [];
  private chunks = 0;
  private usage: StreamChunk['usage'] = null;
  private done = false;

  constructor(clock: Clock, lateMs: number) {
    this.clock = clock;
    this.sentMs = clock.now();
    this.lateMs = lateMs;
  }

  /** Throws when the server reports an error inside the stream. */
  onData(data: string): void {
    if (data === '[DONE]') {
      this.done = true;
      return;
    }
    const chunk = JSON.parse(data) as StreamChunk;
    if (chunk.error !== undefined && chunk.error !== null) throw new Error(JSON.stringify(chunk.error));
    if (chunk.usage) this.usage = chunk.usage;
    if (!carriesText(chunk)) return;
    const now = this.clock.now();
    if (this.firstMs === null) this.firstMs = now;
    else this.itlMs.push(now - this.lastMs);
    this.lastMs = now;
    this.chunks++;
  }

  record(error: string | null, promptTokens: number | null): RequestRecord {
    const reported = this.usage?.completion_tokens;
    return {
      sentMs: this.sentMs,
      lateMs: this.lateMs,
      ttftMs: this.firstMs === null ? null : this.firstMs - this.sentMs,
      itlMs: this.itlMs,
      e2eMs: this.clock.now() - this.sentMs,
      promptTokens: this.usage?.prompt_tokens ?? promptTokens,
      cachedTokens: this.usage?.prompt_tokens_details?.cached_tokens ?? 0,
      outputTokens: reported ?? this.chunks,
      outputTokensAreChunks: reported === undefined,
      error: error ?? (this.done ? null : 'the stream ended without [DONE]'),
    };
  }
}

export function authorization(apiKey: string | null): Record<string, string> {
  return apiKey === null ? {} : { authorization: `Bearer ${apiKey}` };
}

/** Sends one request and follows its stream. `lateMs`: how long it waited beyond its planned time. */
export async function timeRequest(
  target: Target,
  body: Readonly<Record<string, unknown>>,
  promptTokens: number | null,
  clock: Clock,
  lateMs: number,
): Promise<RequestRecord> {
  const timer = new StreamTimer(clock, lateMs);
  try {
    const response = await request(target.baseUrl + PATHS[target.endpoint], {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...authorization(target.apiKey) },
      body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } }),
      headersTimeout: 0,
      bodyTimeout: 0,
      ...(target.dispatcher ? { dispatcher: target.dispatcher } : {}),
    });
    if (response.statusCode !== 200) {
      const text = (await response.body.text()).slice(0, 500);
      return timer.record(`HTTP ${response.statusCode}: ${text}`, promptTokens);
    }
    for await (const data of eventData(response.body)) timer.onData(data);
    return timer.record(null, promptTokens);
  } catch (error) {
    return timer.record(error instanceof Error ? error.message : String(error), promptTokens);
  }
}
