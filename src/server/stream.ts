/** Drives one streamed answer: headers late enough that errors keep their status, events, the end, and every way to fail. */
import type { OutgoingHttpHeaders } from 'node:http';
import type { FastifyReply } from 'fastify';
import { TokenmillError } from '../base/errors.ts';
import type { ActiveRequest } from './active.ts';
import type { ServerContext } from './context.ts';
import type { PromptDelta } from './generation.ts';
import { toHttpError } from './http_errors.ts';
import { SseWriter } from './sse.ts';

export type Emit = (json: string) => void;

export interface StreamHandlers {
  readonly onDelta: (delta: PromptDelta, emit: Emit) => void;
  readonly onEnd: (emit: Emit) => void;
}

/** Waits for `first`, at most `ms`; rejects when it does. */
async function settleWithin(first: Promise<unknown>, ms: number): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, ms);
  });
  try {
    await Promise.race([first, late]);
  } finally {
    clearTimeout(timer);
  }
}

function openWriter(context: ServerContext, reply: FastifyReply, active: ActiveRequest): SseWriter {
  const { config } = context;
  reply.hijack();
  return new SseWriter(reply.raw, {
    headers: reply.getHeaders() as OutgoingHttpHeaders,
    maxUnsentBytes: config.maxUnsentBytes,
    keepAliveIntervalS: config.sseKeepAliveIntervalS,
    onSlowReader: () => {
      context.slowReaders(1);
      context.log.warn({ limit: config.maxUnsentBytes }, 'a client does not read its stream: aborted');
      active.abort(new TokenmillError('aborted', 'The client does not read.'));
    },
  });
}

/** Rejects only before the first byte; afterwards a failure becomes an error event. */
export async function streamAnswer(
  context: ServerContext,
  reply: FastifyReply,
  active: ActiveRequest,
  deltas: AsyncGenerator<PromptDelta>,
  handlers: StreamHandlers,
): Promise<void> {
  const first = deltas.next();
  await settleWithin(first, context.config.streamHeaderDelayMs);
  const writer = openWriter(context, reply, active);
  const emit: Emit = (json) => writer.event(json);
  try {
    for (let step = await first; !step.done; step = await deltas.next()) handlers.onDelta(step.value, emit);
    handlers.onEnd(emit);
  } catch (error) {
    if (error instanceof TokenmillError && error.code === 'aborted') return;
    const { body, unexpected } = toHttpError(error);
    if (unexpected) context.log.error({ err: error }, 'a stream failed');
    emit(JSON.stringify(body));
  }
  writer.done();
}
